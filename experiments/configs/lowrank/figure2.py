"""Figure 2: how far a start is from the best one, against accuracy.

    python -m experiments.main --config=experiments/configs/lowrank/figure2.py \
        --workdir=runs/lowrank_figure2
    python -m experiments.lowrank_figures runs/lowrank_figure2

Convolutions at a tenth of the rank, started by every method: by Adam after more
and more steps, so that the objective falls gradually, from the singular vectors
and from factors drawn as kernels are. The second command draws the excess of
the objective over the least one against accuracy. The paper trains on ImageNet;
this is the demo's network, without batch normalization, on handwritten digits.
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
