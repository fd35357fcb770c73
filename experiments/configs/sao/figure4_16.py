"""Figure 4.16 of Sparsity-Aware Orthogonal Initialization: CINIC-10.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_16.py:0.03125 \
        --workdir=runs/figure4_16

Vanilla CNN with ReLU and W = 128 on CINIC-10, dense and at a density: `:0.5`,
`:0.25`, `:0.125` (without it, too) and `:0.03125`. N = 8 here; 16, 32 and 128
by another depth in `--config.model`, 128 with `--config.learning_rate=1e-3`. A
cosine after one epoch of warmup, and two strided convolutions before the
classifier, averaged over the pixels that remain; all else is as in figure 4.15,
what is ours included.

Thesis, section 4.4.1.1, without legible numbers: LMP-S fails at high sparsity,
and in deep networks also at low sparsity; SAO trains, and among N = 8, 16, 32
stands sparsity the better the deeper it is. Ours: not run here.
"""

import ml_collections

from experiments.configs.sao import figure4_15


def get_config(density: str = '0.125') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = figure4_15.get_config(density)
  config.title = 'SAO, Figure 4.16: vanilla CNN on CINIC-10'
  config.dataset = 'cinic10'
  config.model = (
      "vanilla_cnn(depth=8, width=128, activation='looks_linear', "
      "final='convs')")
  config.schedule = 'cosine(warmup=1)'
  config.learning_rate = 1e-2
  config.initializers = config.initializers[:4]
  return config
