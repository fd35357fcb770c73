"""A multilayer perceptron."""

from typing import Any

import flax.linen as nn
import jax

__all__ = ['MLP']


class MLP(nn.Module):
  """Dense layers with ReLU.

  Attributes:
    num_classes: number of outputs.
    widths: units of every hidden layer.
    dtype: dtype to compute in; parameters stay float32.
  """

  num_classes: int
  widths: tuple[int, ...] = (256, 256)
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = x.reshape(x.shape[0], -1)
    for i, width in enumerate(self.widths):
      name = 'stem' if i == 0 else f'dense_{i}'
      x = nn.relu(nn.Dense(width, dtype=self.dtype, name=name)(x))
      self.sow('intermediates', 'relu', x)
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)
