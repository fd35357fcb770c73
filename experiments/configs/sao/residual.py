"""Where SAO does not help: batch normalization and residual networks.

    python -m experiments.main --config=experiments/configs/sao/residual.py \
        --workdir=runs/residual

ResNet-20 on handwritten digits with an eighth of the kernels, five seeds; on
CIFAR-10 it is figure 4.17.

Ours, final accuracy in percent:

    SAO           93.00
    Dense         93.28
    EOI           93.11
    RG-N, scaled  94.33
    RG-S          93.67
    LMP-S         93.22
    LRP-S         92.89

All within the spread of the seeds: where layers are normalized, it does not
matter in the end that kernels start orthogonal, nor which are removed. In the
first epoch SAO, at 15.56, is behind RG-N, scaled, at 38.06, and LMP-S at 32.56.
(`experiments/published/sao/residual/table.md`)
"""

import ml_collections

from experiments.configs import default


def get_config() -> ml_collections.ConfigDict:
  """Returns the config."""
  config = default.get_config()
  config.title = 'SAO-Delta in ResNet-20 with batch normalization'
  config.dataset = 'digits'
  config.model = 'resnet_cifar(depth=20)'
  config.learning_rate = 0.1
  config.weight_decay = 5e-4
  config.schedule = 'cosine'
  config.epochs = 8
  config.seeds = 5
  gain = 2**0.5  # for ReLU
  config.initializers = (
      f'Dense = sao(density=1.0, gain={gain})',
      f'SAO = sao(density=0.125, gain={gain})',
      f'EOI = eoi(density=0.125, gain={gain})',
      f"RG-N, scaled = rg_normal(density=0.125, scale='fan_in', gain={gain})",
      f'RG-S = rg(density=0.125, gain={gain})',
      f'LMP-S = lmp(density=0.125, gain={gain})',
      f'LRP-S = lrp(density=0.125, gain={gain})',
  )
  config.baseline = 'SAO'
  return config
