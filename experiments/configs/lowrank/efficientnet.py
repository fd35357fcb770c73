"""EfficientNets of Low-rank networks by function approximation (2022).

    python -m experiments.main \
        --config=experiments/configs/lowrank/efficientnet.py:b3 \
        --workdir=runs/lowrank_b3

`:b3`, `:b7`, `:b9`, or b0 without it. What is compared, and the training, is as
in `resnet50.py`, but the activation is Swish, and the weight decay 1e-5, that
of Tan and Le (2019). In the paper Frobenius decay diverged here. Depthwise
kernels have one input channel and stay whole; the dense layers of
squeeze-and-excitation are factors, unless the initializers are given
`dense='stem|head|.*squeeze|.*excite'`.

Less is to be gained than with the ReLU, as Swish is nearly linear where inputs
are small: `colabs/lowrank.ipynb` computes both.

As in `resnet50.py`, images are of 64x64 pixels; the variants are made for 224,
300, 600 and, b9, 744. The paper's sizes of b9 are not in the copy that we have,
and those of `experiments/models/efficientnet.py` are ours. So are the numbers
of the training; stochastic depth and dropout are off.

Paper, tables 1 to 5, 7 and 8: not in that copy. Ours: not run here.
"""

import ml_collections

from experiments.configs.lowrank import resnet50


def get_config(variant: str = 'b0') -> ml_collections.ConfigDict:
  """Returns the config of a variant."""
  config = resnet50.get_config()
  config.title = f'Low-rank EfficientNet-{variant} on ImageNet of 64x64'
  config.model = f'efficientnet(variant={variant!r})'
  config.weight_decay = 1e-5
  config.initializers = resnet50.initializers('swish')
  return config
