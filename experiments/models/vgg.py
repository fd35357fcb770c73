"""VGG-16 with batch normalization, for CIFAR-like images."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models import conv

__all__ = ['VGG16']

# Width, convolutions and the window of the pool after them.
_BLOCKS = ((64, 2, 2), (128, 2, 2), (256, 3, 1), (512, 3, 3), (512, 3, 3))
_CIRCULAR_BLOCKS = 2
_IMAGE = 36
_WIDTHS = (256, 128)
_WINDOW = 3


class VGG16(nn.Module):
  """13 3x3 convolutions with batch normalization, then three dense layers.

  Images get zeros around them to 36x36, and max pools leave 18, 9, 9, 3 and 1
  pixels a side: sizes that 3 divides where `circular` needs it. Convolutions
  have no bias, as a normalization follows.

  Attributes:
    num_classes: number of outputs.
    circular: whether the last 6 convolutions pad circularly, with dilation
      n / 3 for images of n x n, as SAO-ECO needs to be an isometry.
    dtype: dtype to compute in; parameters stay float32.

  Source: Esguerra (2023), section 3.5.3.5, table 3.11; Simonyan and Zisserman,
    Very deep convolutional networks for large-scale image recognition, ICLR
    2015, configuration D.
  """

  num_classes: int
  circular: bool = False
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    if max(x.shape[1:3]) > _IMAGE:
      raise ValueError(
          f'vgg16: images of {x.shape[1]}x{x.shape[2]} are too large; the '
          f'largest that works is {_IMAGE}x{_IMAGE}')
    pads = [((_IMAGE - n) // 2, (_IMAGE - n + 1) // 2) for n in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    index = 0
    for block, (width, count, pool) in enumerate(_BLOCKS):
      circular = self.circular and block >= len(_BLOCKS) - _CIRCULAR_BLOCKS
      for _ in range(count):
        name, norm = (f'conv_{index}', f'norm_{index}') if index else (
            'stem', 'stem_norm')
        x = nn.Conv(
            width, (_WINDOW, _WINDOW), use_bias=False, dtype=self.dtype,
            padding='CIRCULAR' if circular else 'SAME',
            kernel_dilation=x.shape[1] // _WINDOW if circular else 1,
            conv_general_dilated=conv.conv_general_dilated, name=name)(x)
        x = nn.relu(nn.BatchNorm(
            use_running_average=not train, momentum=0.9, dtype=self.dtype,
            name=norm)(x))
        self.sow('intermediates', 'relu', x)
        index += 1
      x = nn.max_pool(x, (pool, pool), (pool, pool))
    x = x.reshape(x.shape[0], -1)
    for i, width in enumerate(_WIDTHS):
      x = nn.relu(nn.Dense(width, dtype=self.dtype, name=f'dense_{i}')(x))
      self.sow('intermediates', 'relu', x)
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)
