"""Figure 4.17 of Sparsity-Aware Orthogonal Initialization: ResNets, CIFAR-10.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_17.py:0.5 \
        --workdir=runs/figure4_17

ResNet-20 (32, 44 and 56 by `--config.model='resnet_cifar(depth=32)'`) with
SAO-Delta, dense and at a density: `:0.5`, or 12.5 % without it. SGD with
momentum and a learning rate of 0.1, divided by 10 at epochs 100 and 150, 200
epochs (section 3.5.3.6). Batches of 128, shifts and mirrors are those of He et
al. (2016), 3 runs are ours; the thesis's masks are `kind='thesis'`, ours the
default.

Thesis, section 4.4.1.2, without legible numbers: no advantage of SAO over LMP-S
and RG-S. Ours: not run here.
"""

import ml_collections

from experiments.configs import default


def get_config(density: str = '0.125') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = default.get_config()
  config.title = 'SAO, Figure 4.17: ResNets on CIFAR-10'
  config.dataset = 'cifar10'
  config.model = 'resnet_cifar(depth=20)'
  config.schedule = 'multistep(at=(100, 150), factor=0.1)'
  config.learning_rate = 0.1
  config.weight_decay = 5e-4
  config.batch_size = 128
  config.augment = 'crop_flip'
  config.epochs = 200
  config.initializers = (
      'Dense = sao(density=1.0)',
      f'SAO = sao(density={density})',
      f'LMP-S = lmp(density={density})',
      f'RG-S = rg(density={density})',
  )
  config.baseline = 'Dense'
  return config
