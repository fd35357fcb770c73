"""LeNet-5, as Li et al. (2018) count it: 44,426 parameters on MNIST."""

from typing import Any

import flax.linen as nn
import jax

__all__ = ['LeNet']


class LeNet(nn.Module):
  """Two convolutions of 5x5 pixels, each max-pooled, and dense layers.

  Attributes:
    num_classes: number of outputs.
    widths: channels of the convolutions, then units of the dense layers.
    dtype: dtype to compute in; parameters stay float32.
  """

  num_classes: int
  widths: tuple[int, int, int, int] = (6, 16, 120, 84)
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for name, width in zip(('stem', 'conv_1'), self.widths[:2], strict=True):
      x = nn.relu(nn.Conv(
          width, (5, 5), padding='VALID', dtype=self.dtype, name=name)(x))
      self.sow('intermediates', 'relu', x)
      x = nn.max_pool(x, (2, 2), (2, 2))
    x = x.reshape(x.shape[0], -1)
    for name, width in zip(('dense_1', 'dense_2'), self.widths[2:],
                           strict=True):
      x = nn.relu(nn.Dense(width, dtype=self.dtype, name=name)(x))
      self.sow('intermediates', 'relu', x)
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)
