"""Figure 4.21 of Sparsity-Aware Orthogonal Initialization: ResNets, SAO-ECO.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_21.py:0.5 \
        --workdir=runs/figure4_21

The ResNet-20 (32 by `--config.model='resnet_cifar(depth=32)'`) and the training
of figure 4.17, with ECO kernels; `:0.5`, `:0.25`, or 12.5 % without it. What is
-T is pruned after 200 epochs, and trained for 200 more. The thesis makes images
36x36, and the convolutions of the last block circular; ours pad 32x32 with
zeros, so ECO kernels are no isometries here. LRP-S is in the thesis's text.

Thesis, section 4.4.2.4, without legible numbers: RG-S and SAO mostly ahead of
LRP-S and LMP-S, LMP-T ahead of all; SAO hardly differs from RG. Ours: not run
here.
"""

import ml_collections

from experiments.configs.sao import figure4_17


def get_config(density: str = '0.125') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = figure4_17.get_config(density)
  config.title = 'SAO, Figure 4.21: ResNets on CIFAR-10, ECO'
  config.initializers = (
      "Dense = sao(density=1.0, conv='eco')",
      f"SAO = sao(density={density}, conv='eco')",
      f"LMP-S = lmp(density={density}, conv='eco')",
      f"LMP-T = lmp(density={density}, trained=True, conv='eco')",
      f'LRP-S = lrp(density={density})',
      f"RG-S = rg(density={density}, conv='eco')",
      f"RG-T = rg(density={density}, trained=True, conv='eco')",
  )
  return config
