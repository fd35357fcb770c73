"""Plain multilayer perceptrons of any depth, the thesis's MLP-N."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from structinit_jax import layers

__all__ = ['DeepMLP']

_ACTIVATIONS: dict[str, Callable[..., jax.Array]] = {
    'crelu': layers.crelu, 'linear': lambda x: x, 'relu': nn.relu,
    'silu': nn.silu, 'tanh': nn.tanh}


class DeepMLP(nn.Module):
  """Dense layers of which all but a few have one width, under one scan.

  The widths are those of the first layers, `stem`, `dense_1`, ..; of the last
  one there are `depth` layers, all after the first in one stack: `hidden` has
  kernels (depth - 1, width, width), (depth - 1, 2 width, width) for 'crelu'.
  The thesis's MLP-N is `depth=N`, its MLP-7 `widths=(100,), depth=6`. A stack
  does not sow.

  Attributes:
    num_classes: number of outputs.
    depth: layers of the last width.
    widths: units of the first layers.
    activation: 'tanh', 'relu', 'silu', 'linear', or 'crelu', which doubles what
      the next layer takes.
    skip: whether the input of a stacked layer joins its preactivation.
    degree: if given, the stack is an `SAOStack`, which computes with its
      nonzeros alone and stores them as `hidden/values`.
    dtype: dtype to compute in; parameters stay float32.

  Source: Esguerra (2023), Tables 3.3 and 3.4, section 4.2.3 for `skip`.
  """

  num_classes: int
  depth: int = 50
  widths: tuple[int, ...] = (512, 256)
  activation: str = 'tanh'
  skip: bool = False
  degree: int | None = None
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    if self.activation not in _ACTIVATIONS:
      raise ValueError(
          f'activation {self.activation!r} is unknown; use one of '
          f'{", ".join(_ACTIVATIONS)}')
    if self.depth < 2 or not self.widths:
      raise ValueError(
          f'depth={self.depth} must be at least 2, and widths={self.widths} '
          'name at least one layer')
    activation = _ACTIVATIONS[self.activation]
    x = x.reshape(x.shape[0], -1)
    for i, width in enumerate(self.widths):
      name = f'dense_{i}' if i else 'stem'
      x = activation(nn.Dense(width, dtype=self.dtype, name=name)(x))
      if self.activation == 'relu':
        self.sow('intermediates', 'relu', x)
    if self.degree is None:
      x = _Stack(
          self.depth - 1, self.widths[-1], activation, self.skip, self.dtype,
          name='hidden')(x)
    elif self.skip:
      raise ValueError('skip=True takes a dense stack; leave degree out')
    else:
      x = layers.SAOStack(
          self.depth - 1, self.widths[-1], self.degree, activation,
          looks_linear=self.activation == 'crelu', dtype=self.dtype,
          name='hidden')(x)
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)


class _Stack(nn.Module):
  """`h -> activation(h K_l + b_l (+ h))`, l = 1 .. depth."""

  depth: int
  features: int
  activation: Callable[..., jax.Array]
  skip: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    if self.skip and x.shape[-1] != self.features:
      raise ValueError(
          'skip=True takes an activation that keeps the number of features')
    kernel = self.param(
        'kernel', nn.initializers.lecun_normal(batch_axis=(0,)),
        (self.depth, x.shape[-1], self.features))
    bias = self.param(
        'bias', nn.initializers.zeros_init(), (self.depth, self.features))
    x, kernel, bias = nn.dtypes.promote_dtype(
        x, kernel, bias, dtype=self.dtype)

    def layer(h: jax.Array, params: tuple[jax.Array, jax.Array]) -> Any:
      kernel, bias = params
      y = jnp.dot(h, kernel) + bias[None]
      return self.activation(y + h if self.skip else y), None

    return jax.lax.scan(layer, x, (kernel, bias))[0]
