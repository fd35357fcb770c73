"""The shallow four-convolution network of the Grassmannian packings paper."""

from typing import Any

import flax.linen as nn
import jax

from experiments.models import conv

__all__ = ['ShallowCNN']


class ShallowCNN(nn.Module):
  """3x3 convolutions with ReLU, then one dense layer.

  The paper fixes four convolutions and 32 channels after the first; widths and
  strides of the rest are ours.

  Attributes:
    num_classes: number of outputs.
    widths: channels after every convolution.
    strides: stride of every convolution.
    dtype: dtype to compute in; parameters stay float32.
  """

  num_classes: int
  widths: tuple[int, ...] = (32, 32, 64, 64)
  strides: tuple[int, ...] = (2, 1, 2, 1)
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for i, (width, stride) in enumerate(
        zip(self.widths, self.strides, strict=True)):
      x = nn.Conv(
          width, (3, 3), stride, dtype=self.dtype,
          conv_general_dilated=conv.conv_general_dilated,
          name='stem' if i == 0 else f'conv_{i}')(x)
      x = nn.relu(x)
      self.sow('intermediates', 'relu', x)
    x = x.reshape(x.shape[0], -1)
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)
