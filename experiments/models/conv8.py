"""The network of Gated Convolutional Layers and Joint K-Means (Zhou)."""

from typing import Any

import flax.linen as nn
import jax

from experiments.models import conv
import structinit_jax as si

__all__ = ['Conv8']

# Window, stride and, relative to the first, channels of a convolution.
_LAYERS = ((11, 1, 1), (11, 2, 1), (5, 1, 2), (5, 2, 2), (3, 1, 4), (3, 1, 4),
           (3, 1, 8), (3, 1, 8))
_UNITS = 128


class Conv8(nn.Module):
  """Eight convolutions, the first of 11x11 pixels, and three dense layers.

  Batch normalization and ReLU follow every layer but the last; before the dense
  layers is the mean over pixels.

  Attributes:
    num_classes: number of outputs.
    width: channels of the first convolutions; the last have 8 times as many.
    gated: whether convolutions are `si.layers.GatedConv`.
    dtype: dtype to compute in; parameters stay float32.

  Source: Zhou, table 1.
  """

  num_classes: int
  width: int = 16
  gated: bool = False
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    layer = si.layers.GatedConv if self.gated else nn.Conv
    for i, (window, stride, times) in enumerate(_LAYERS):
      name = f'conv_{i}' if i else 'stem'
      x = layer(
          times * self.width, (window, window), stride, use_bias=False,
          dtype=self.dtype, conv_general_dilated=conv.conv_general_dilated,
          name=name)(x)
      x = self._normalized(x, train, f'{name}_norm')
    x = x.mean((1, 2))
    for i in range(2):
      x = nn.Dense(
          _UNITS, use_bias=False, dtype=self.dtype, name=f'dense_{i}')(x)
      x = self._normalized(x, train, f'dense_{i}_norm')
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)

  def _normalized(self, x: jax.Array, train: bool, name: str) -> jax.Array:
    x = nn.relu(nn.BatchNorm(
        use_running_average=not train, momentum=0.9, dtype=self.dtype,
        name=name)(x))
    self.sow('intermediates', 'relu', x)
    return x
