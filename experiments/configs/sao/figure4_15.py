"""Figure 4.15 of Sparsity-Aware Orthogonal Initialization: deep ReLU CNNs.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_15.py:0.5 \
        --workdir=runs/figure4_15

Vanilla CNN with ReLU on CIFAR-10, as in figure 4.14 but for the activation. N =
128, W = 32 here; the others are N = 32, W = 256; N = 128, W = 128; and N = 256,
512 and 768, W = 32:

    --config.model="vanilla_cnn(depth=768, width=32, activation='looks_linear')"
    --config.learning_rate=1e-4 --config.schedule='cosine(warmup=10)'

The warmup is for N = 768 alone (section 3.5.3.3). The thesis makes ReLU layers
isometries by kernels [[H, -H], [-H, H]] (equation 3.5); ours are the same
function with half the kernel, on relu(h) and relu(-h) of W channels.

Thesis, section 4.4.1.1, without legible numbers: as for tanh. Ours: not run
here.
"""

import ml_collections

from experiments.configs.sao import figure4_14


def get_config(density: str = '0.125') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = figure4_14.get_config(density)
  config.title = 'SAO, Figure 4.15: vanilla CNN (ReLU) on CIFAR-10'
  config.model = config.model.replace('tanh', 'looks_linear')
  config.initializers = tuple(
      entry[:-1] + ', looks_linear=True)' for entry in config.initializers)
  return config
