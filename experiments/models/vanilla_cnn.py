"""Plain convolutional networks of any depth."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models import conv
from structinit_jax import layers
from structinit_jax import sao

__all__ = ['VanillaCNN']

_ACTIVATIONS = {
    'relu': nn.relu, 'tanh': nn.tanh, 'looks_linear': layers.crelu}
_FINALS = ('pool', 'convs')
_WINDOW = 3


class VanillaCNN(nn.Module):
  """3x3 convolutions of one width, without normalization or shortcuts.

  `stem`, `conv_1` of stride 2, depth - 1 equal layers under one scan (`hidden`,
  with a first axis of layers on its leaves), an average over the image, `head`.
  These are the rows of the thesis's table; where its text counts N
  convolutions, the table has N + 1.

  `circular=True` is the form in which SAO-ECO is an isometry: `hidden` and
  `conv_1` pad circularly, with dilation n / 3 for images of n x n, and the
  stride of `conv_1` moves squares of pixels into channels.

  Attributes:
    num_classes: number of outputs.
    depth: N, convolutions after the stem, at least 2.
    width: channels of every convolution.
    activation: 'relu', 'tanh', or 'looks_linear': relu(x) and relu(-x), so
      that layers take 2 `width` channels.
    final: 'pool', or 'convs', which puts `conv_2` and `conv_3` of stride 2
      before the average, as the thesis does for CINIC-10 and CIFAR-100. Their
      padding is of zeros.
    circular: whether to pad circularly; 6 has to divide the padded image.
    pad: zeros at every side of the image; 2 makes 36x36 of CIFAR's, the size
      that the thesis gives networks with circular layers.
    dtype: dtype to compute in; parameters stay float32.

  Source: Esguerra (2023), section 3.5.3.3, table 3.9; section 3.4.4.2 for the
    circular form.
  """

  num_classes: int
  depth: int = 32
  width: int = 64
  activation: str = 'relu'
  final: str = 'pool'
  circular: bool = False
  pad: int = 0
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for name, known in (('activation', (*_ACTIVATIONS,)), ('final', _FINALS)):
      if getattr(self, name) not in known:
        raise ValueError(
            f'{name} {getattr(self, name)!r} is unknown; use one of {known}')
    if self.depth < 2:
      raise ValueError(
          f'vanilla_cnn: depth={self.depth} must be at least 2, conv_1 and one '
          'hidden layer')
    pads = (self.pad, self.pad)
    x = jnp.pad(x, ((0, 0), pads, pads, (0, 0)))
    x = self._conv('stem')(x)
    options: dict[str, Any] = {}
    if self.circular:
      self._check(x.shape)
      # Before the activation: relu(x) and relu(-x) have to stay two halves.
      x = sao.space_to_depth(x, 2)
      options = {
          'padding': 'CIRCULAR',
          'kernel_dilation': [n // _WINDOW for n in x.shape[1:3]]}
    x = self._activate(x)
    x = self._conv('conv_1', 1 if self.circular else 2, **options)(x)
    x = self._activate(x)

    def layer(hidden: nn.Conv, x: jax.Array, _: None) -> tuple[jax.Array, None]:
      return _ACTIVATIONS[self.activation](hidden(x)), None

    x, _ = nn.scan(
        layer, variable_axes={'params': 0}, split_rngs={'params': True},
        length=self.depth - 1)(self._conv('hidden', **options), x, None)
    if self.final == 'convs':
      for name in ('conv_2', 'conv_3'):
        x = self._activate(self._conv(name, 2)(x))
    x = x.mean((1, 2))
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)

  def _activate(self, x: jax.Array) -> jax.Array:
    x = _ACTIVATIONS[self.activation](x)
    if self.activation != 'tanh':
      self.sow('intermediates', 'relu', x)
    return x

  def _conv(
      self, name: str, stride: int = 1, padding: Any = _WINDOW // 2,
      kernel_dilation: Any = 1,
  ) -> nn.Conv:
    return nn.Conv(
        self.width, (_WINDOW, _WINDOW), stride, padding=padding,
        kernel_dilation=kernel_dilation, dtype=self.dtype,
        conv_general_dilated=_conv_general_dilated, name=name)

  def _check(self, shape: tuple[int, ...]) -> None:
    unit = 2 * _WINDOW
    sizes = shape[1:3]
    if any(n % unit for n in sizes):
      near = tuple(max(1, round(n / unit)) * unit for n in sizes)
      raise ValueError(
          f'vanilla_cnn: with circular=True {unit} has to divide the padded '
          f'image, {sizes[0]}x{sizes[1]} with pad={self.pad}: a stride of 2, '
          f'then kernels of {_WINDOW}; the nearest that works is '
          f'{near[0]}x{near[1]}')


def _conv_general_dilated(
    lhs: jax.Array, rhs: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
  # The backward pass makes the patches again: those of hundreds of layers
  # would not fit in memory.
  return jax.checkpoint(
      lambda x, kernel: conv.conv_general_dilated(x, kernel, *args, **kwargs),
      prevent_cse=False)(lhs, rhs)
