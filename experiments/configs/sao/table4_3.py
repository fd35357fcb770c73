"""Table 4.3 of Sparsity-Aware Orthogonal Initialization: width for depth.

    python -m experiments.main \
        --config=experiments/configs/sao/table4_3.py:25 \
        --workdir=runs/table4_3_25

MLP-N on CIFAR-10 with the nonzeros of the dense MLP-4: N after the colon and
the degree that belongs to it. The same with skip connections, from the input
of a layer to its preactivation, and figure 4.11, which follows their singular
values:

    --config.model='deep_mlp(depth=23, widths=(640, 432), skip=True)'

SGD with momentum and a weight decay of 5e-4, 200 epochs, divided by 10 at 60,
120 and 160 (section 3.5.5). The thesis gives neither widths nor, for these
depths, learning rates. With 640 and 432 units the dense network of N = 4 layers
in all has its 2.43e6 weights, and the degrees are 1/2, 1/4, 1/8 and 1/16 of
432. At these densities b of all layers but the last, ours have (3072 640 + 640
432 + (N - 3) 432^2) b + 4320 weights, more than the thesis's at small N.

Thesis, in percent:

    N     degree  parameters  dense  SAO    SAO + skip
    4     dense   2.43e6      56.54
    25    216     2.52e6      56.23  55.99  56.80
    50    108     2.43e6      55.72  53.53  56.64
    100   54      2.38e6      56.52  52.10  55.02
    200   27      2.36e6      56.44  49.15  39.71

So sparse and deep does not beat dense and shallow. Ours: not run here.
"""

import ml_collections

from experiments.configs import default

_DEGREES = {'25': 216, '50': 108, '100': 54, '200': 27}


def get_config(depth: str = '25') -> ml_collections.ConfigDict:
  """Returns the config at a depth."""
  if depth not in _DEGREES:
    raise ValueError(f'N = {depth} is not in the table: {", ".join(_DEGREES)}')
  config = default.get_config()
  config.title = f'SAO, Table 4.3: MLP-{depth} on CIFAR-10'
  config.dataset = 'cifar10'
  config.model = f'deep_mlp(depth={int(depth) - 2}, widths=(640, 432))'
  config.schedule = 'multistep(at=(60, 120, 160), factor=0.1)'
  config.learning_rate = 1e-2
  config.weight_decay = 5e-4
  config.batch_size = 128
  config.epochs = 200
  config.initializers = (
      'Dense = sao(density=1.0)',
      f"SAO = sao(density={_DEGREES[depth] / 432}, dense='head')",
  )
  config.baseline = 'Dense'
  return config
