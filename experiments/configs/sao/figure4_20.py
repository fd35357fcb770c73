"""Figure 4.20 of Sparsity-Aware Orthogonal Initialization: VGG-16.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_20.py:0.125 \
        --workdir=runs/figure4_20

VGG-16 with batch normalization on CIFAR-10, dense and at a density, 12.5 %
where none is given. SAO is SAO-ECO, and the last 6 convolutions of all networks
pad circularly, with dilation (section 3.5.3.5). SGD with momentum and a
learning rate of 0.1 by the text (0.01 by table 3.14), times 0.2 at epochs 60
and 120, 200 epochs; what is -T is pruned then, and trained for 200 more.
Batches of 128, shifts and mirrors and 3 runs are ours; the thesis's masks are
`kind='thesis'`, ours the default.

Thesis, section 4.4.2.3, without legible numbers: no advantage of SAO over
LMP-S; slightly ahead of RG-S and RG-T. Ours: not run here.
"""

import ml_collections

from experiments.configs import default


def get_config(density: str = '0.125') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = default.get_config()
  config.title = 'SAO, Figure 4.20: VGG-16 on CIFAR-10'
  config.dataset = 'cifar10'
  config.model = 'vgg16(circular=True)'
  config.schedule = 'multistep(at=(60, 120), factor=0.2)'
  config.learning_rate = 0.1
  config.weight_decay = 1e-4
  config.batch_size = 128
  config.augment = 'crop_flip'
  config.epochs = 200
  config.initializers = (
      "Dense = sao(density=1.0, conv='eco')",
      f"SAO = sao(density={density}, conv='eco')",
      f"LMP-S = lmp(density={density}, conv='eco')",
      f"RG-S = rg(density={density}, conv='eco')",
      f"RG-T = rg(density={density}, trained=True, conv='eco')",
  )
  config.baseline = 'Dense'
  return config
