"""Figure 4.22 of Sparsity-Aware Orthogonal Initialization: ResNet-18, ECO.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_22.py:0.5 \
        --workdir=runs/figure4_22

The ResNet-18 and the training of figure 4.18 on CIFAR-100, with ECO kernels;
`:0.5`, `:0.25`, or 12.5 % without it. As in figure 4.21, ours pad with zeros.

Thesis, section 4.4.2.4: LMP-S ahead of SAO. One bar is labelled 68.69, of which
series cannot be read. Ours: not run here.
"""

import ml_collections

from experiments.configs.sao import figure4_18


def get_config(density: str = '0.125') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = figure4_18.get_config(density)
  config.title = 'SAO, Figure 4.22: ResNet-18 on CIFAR-100, ECO'
  config.initializers = (
      "Dense = sao(density=1.0, conv='eco')",
      f"SAO = sao(density={density}, conv='eco')",
      f"LMP-S = lmp(density={density}, conv='eco')",
  )
  return config
