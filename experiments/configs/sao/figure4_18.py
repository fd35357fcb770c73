"""Figure 4.18 of Sparsity-Aware Orthogonal Initialization: ResNet-18.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_18.py:0.5 \
        --workdir=runs/figure4_18

ResNet-18 on CIFAR-100 with SAO-Delta, dense and at a density: `:0.5`, or 12.5 %
without it. A 3x3 first convolution and stages of 64 to 512 channels (table
3.13); shortcuts that change shape have no parameters, as in He et al. (2016)
for CIFAR. SGD with Nesterov momentum and a learning rate of 0.1, times 0.2 at
epochs 60, 120 and 160, 200 epochs (section 3.5.3.6). Batches of 128, shifts and
mirrors and 3 runs are ours; the thesis's masks are `kind='thesis'`, ours the
default.

Thesis, section 4.4.1.2: no advantage of SAO over LMP-S. One bar is labelled
67.73, of which series cannot be read. Ours: not run here.
"""

import ml_collections

from experiments.configs.sao import figure4_17


def get_config(density: str = '0.125') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = figure4_17.get_config(density)
  config.title = 'SAO, Figure 4.18: ResNet-18 on CIFAR-100'
  config.dataset = 'cifar100'
  config.model = 'resnet(for_imagenet=False)'
  config.optimizer = 'sgd(momentum=0.9, nesterov=True)'
  config.schedule = 'multistep(at=(60, 120, 160), factor=0.2)'
  config.initializers = config.initializers[:3]
  return config
