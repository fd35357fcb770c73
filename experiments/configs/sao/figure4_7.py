"""Figure 4.7 of Sparsity-Aware Orthogonal Initialization: MLP-7 on MNIST.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_7.py:tanh \
        --workdir=runs/figure4_7_tanh

Seven layers of 100 units at a sparsity of 90 %, all of them: 'linear', 'tanh',
'relu' or 'silu'. SGD with a learning rate of 0.01, divided by 10 at epochs 30
and 60, weight decay of 5e-4, 90 epochs (section 3.5.3.1); GMP-T is pruned then,
and trained for 90 more. Batches of 128, momentum and 3 runs are ours; images
are 28x28, not padded to 32x32.

Thesis, section 4.2.1, without legible numbers: GMP-T and SAO are about as
accurate as the dense network, GMP-S up to 7 points less.

Ours: not run here.
"""

import ml_collections

from experiments.configs import default

_ACTIVATIONS = ('linear', 'tanh', 'relu', 'silu')


def get_config(activation: str = 'tanh') -> ml_collections.ConfigDict:
  """Returns the config for an activation."""
  if activation not in _ACTIVATIONS:
    raise ValueError(
        f'activation {activation!r} is not in the figure: '
        f'{", ".join(_ACTIVATIONS)}')
  config = default.get_config()
  config.title = f'SAO, Figure 4.7: MLP-7 ({activation}) on MNIST'
  config.dataset = 'mnist'
  config.model = (
      f"deep_mlp(depth=6, widths=(100,), activation='{activation}')")
  config.schedule = 'multistep(at=(30, 60), factor=0.1)'
  config.weight_decay = 5e-4
  config.batch_size = 128
  config.epochs = 90
  config.initializers = (
      'Dense = sao(density=1.0)',
      "SAO = sao(density=0.1, dense='')",
      "GMP-S = gmp(density=0.1, dense='')",
      "GMP-T = gmp(density=0.1, dense='', trained=True)",
  )
  config.baseline = 'Dense'
  return config
