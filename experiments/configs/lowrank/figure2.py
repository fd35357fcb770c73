"""Figure 2: how far a start is from the best one, against accuracy.

    python -m experiments.main --config=experiments/configs/lowrank/figure2.py \
        --workdir=runs/lowrank_figure2
    python -m experiments.lowrank_figures runs/lowrank_figure2

Convolutions at a tenth of the rank, started by every method: by Adam after more
and more steps, so that the objective falls gradually, from the singular vectors
and from factors drawn as kernels are. The second command draws the excess of
the objective over the least one against accuracy. The paper trains on ImageNet;
this is the demo's network, without batch normalization, on handwritten digits.

Ours, 10 seeds, test accuracy in percent:

                              excess %   first epoch   final
    drawn                     77.7       76.6          92.4
    LFAI-Adam, 10 steps       49.6       50.8          91.8
    LFAI-Adam, 30 steps       35.2       43.5          92.0
    LFAI-Adam, 100 steps      13.3       63.4          92.0
    LFAI-Adam, 300 steps       2.5       71.4          92.6
    LFAI-Adam, 1000 steps      0.5       69.9          92.1
    SVD                        1.6       59.6          91.2
    LFAI-WS-Adam, 100 steps    1.4       69.0          91.8
    LFAI-WS-Adam, 1000 steps   0.3       68.7          92.0
    exact                      0         69.2          91.9
    exact, norms kept         22.3       82.1          92.6

The paper finds accuracy to rise as the excess falls. Here, after one epoch, it
first falls with it, by 33 points from drawn factors to 30 steps of Adam, and
then rises by 28; the two starts of largest norm are the first by then, whatever
their excess. At the end all intervals but the SVD's overlap widely.
(`experiments/published/lowrank/figure2/figure2.md`)
"""

import ml_collections

from experiments.configs import demo

_STEPS = (10, 30, 100, 300, 1000)


def get_config() -> ml_collections.ConfigDict:
  """Returns the config."""
  config = demo.get_config()
  config.title = 'Low-rank starts: excess of the objective and accuracy'
  options = {
      'drawn': "method='baseline'",
      **{f'LFAI-Adam, {steps} steps': f"method='adam', steps={steps}, batch=256"
         for steps in _STEPS},
      'SVD': "method='spectral'",
      **{f'LFAI-WS-Adam, {steps} steps':
         f"method='adam_warm', steps={steps}, batch=256" for steps in _STEPS},
      'rescaled': "method='rescaled'",
      'exact': "method='exact'",
      'exact, norms kept': "method='exact', norms='kept'",
  }
  config.initializers = tuple(
      f"{name} = lfai({given}, rank_scale=0.1, body='he_normal')"
      for name, given in options.items())
  config.baseline = 'exact'
  return config
