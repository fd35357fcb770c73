"""Figure 4.13 of Sparsity-Aware Orthogonal Initialization: ResMLP.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_13.py:0.0625 \
        --workdir=runs/figure4_13

ResMLP of 12 blocks on CIFAR-10, dense and at a density, as in figure 4.12, with
all of its recipe (sections 3.5.3.2 and 4.3.2).

Thesis: LMP-S is ahead at lower sparsities, SAO at higher ones, and by more than
in the MLP-Mixer. One bar is labelled 70.98, of which series cannot be read.
Ours: not run here.
"""

import ml_collections

from experiments.configs.sao import figure4_12


def get_config(density: str = '0.125') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = figure4_12.get_config(density)
  config.title = 'SAO, Figure 4.13: ResMLP on CIFAR-10'
  config.model = 'resmlp(depth=12)'
  config.initializers = config.initializers[:3]
  return config
