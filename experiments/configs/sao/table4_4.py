"""Table 4.4 of Sparsity-Aware Orthogonal Initialization: CIFAR-100.

    python -m experiments.main \
        --config=experiments/configs/sao/table4_4.py:0.03125 \
        --workdir=runs/table4_4

Vanilla CNN with ReLU on CIFAR-100, dense and at a density: `:0.5`, `:0.25`
(without it, too) or `:0.03125`. N = 8 here; 16 and 32 by another depth in
`--config.model`. The thesis gives no width; ours is that of figure 4.16, as is
all else. LMP-S is added.

Thesis, final accuracy in percent:

    sparsity       N = 8   N = 16   N = 32
    0  (dense)     67.35    66.52    63.10
    50 %           66.49    64.17    62.23
    75 %           63.12    63.47    61.10
    96.875 %       51.61    53.75    54.23

Ours: not run here.
"""

import ml_collections

from experiments.configs.sao import figure4_16


def get_config(density: str = '0.25') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = figure4_16.get_config(density)
  config.title = 'SAO, Table 4.4: vanilla CNN on CIFAR-100'
  config.dataset = 'cifar100'
  config.initializers = config.initializers[:3]
  return config
