"""Figure 4.19 of Sparsity-Aware Orthogonal Initialization: LipConvNet.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_19.py:0.0625 \
        --workdir=runs/figure4_19

LipConvNet-5 on CIFAR-10 (10 and 15 by
`--config.model='lipconvnet(depth=10, constrained=False)'`), dense and at a
density: `:0.0625`, a sparsity of 93.75 %, or 50 % without it. As in the thesis,
ECO kernels start orthogonal and train freely. Those that stay orthogonal, which
no pruning can be compared with, are

    --config.model='lipconvnet(depth=5, density=0.0625)'
    --config.initializers="('SAO = sao(density=0.0625)',)" --config.baseline=SAO

SGD with a learning rate of 0.01, divided by 10 at epochs 50 and 150, 200 epochs
(section 3.5.3.4); what is -T is pruned then, and trained for 200 more. Momentum
of 0.9, batches of 128 and 3 runs are ours, and so is that shifts and mirrors
before a central crop make the 24x24 of table 3.10: random crops in training,
the middle in the test.

Thesis, section 4.4.2.1, without legible numbers: at lower sparsities pruning is
ahead; at 93.75 % and more only SAO trains, for every N; RG-S and RG-T fail
beyond 50 %. Ours: not run here.
"""

import ml_collections

from experiments.configs import default


def get_config(density: str = '0.5') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = default.get_config()
  config.title = 'SAO, Figure 4.19: LipConvNet on CIFAR-10'
  config.dataset = 'cifar10'
  config.model = 'lipconvnet(depth=5, constrained=False)'
  config.schedule = 'multistep(at=(50, 150), factor=0.1)'
  config.weight_decay = 5e-4
  config.batch_size = 128
  config.augment = 'crop_flip'
  config.epochs = 200
  config.initializers = (
      "Dense = sao(density=1.0, conv='eco')",
      f"SAO = sao(density={density}, conv='eco')",
      f"LMP-S = lmp(density={density}, conv='eco')",
      f"LMP-T = lmp(density={density}, trained=True, conv='eco')",
      f"RG-S = rg(density={density}, conv='eco')",
      f"RG-T = rg(density={density}, trained=True, conv='eco')",
  )
  config.baseline = 'Dense'
  return config
