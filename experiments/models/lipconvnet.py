"""LipConvNet: convolutions that are orthogonal, and MaxMin."""

from typing import Any

import flax.linen as nn
import jax

from experiments.models import conv
from structinit_jax import layers
from structinit_jax import sao

__all__ = ['LipConvNet']

_IMAGE = 24
_SKEW_BLOCKS = 2
_STRIDES = (2, 2, 2, 3, 1)
_WIDTH = 32
_WINDOW = 3


class LipConvNet(nn.Module):
  """Five blocks of depth / 5 orthogonal convolutions, MaxMin after each.

  The first two blocks are of `layers.SOCConv`, the others of `layers.ECOConv`.
  A block's last convolution doubles the channels and is strided, by moving
  squares of pixels into channels. So the network before `head` is 1-Lipschitz
  whatever its parameters (in training, up to the error of 5 terms of SOC's
  series). On what a stride of 3 leaves of 3x3 pixels, one, the table's 3x3
  kernel has one tap, and is 1x1 here.

  Larger images are cropped to their central 24x24. After shifts of up to 4
  pixels, as `augment='crop_flip'` makes them, that is a random crop of an image
  of 32x32.

  The parameters are `stem/kernel` and `soc_<i>/kernel`, (3, 3, c, c), of any
  scale; `eco_<i>/values`, a tuple of arrays (k, k, count, d, c), of any scale,
  too; biases; and `head`.

  `constrained=False` is what the thesis trains: the last three blocks are
  circular convolutions with dilation n / k and a free `eco_<i>/kernel`,
  orthogonal only if it starts so, by `sao.eco`, and only at the start. These
  can be pruned as any kernel can; what has `values` is orthogonalized anew
  whatever they are.

  Attributes:
    num_classes: number of outputs.
    depth: convolutions, 5, 10, 15, ...
    degree: input channels of an output channel of the ECO layers; or
      `density`; neither is dense.
    density: as of `layers.ECOConv`.
    constrained: whether ECO layers stay orthogonal.
    dtype: dtype to compute in; parameters stay float32.

  Source: Esguerra (2023), section 3.5.3.4, table 3.10; Yu et al., Constructing
    orthogonal convolutions in an explicit manner, ICLR 2022.
  """

  num_classes: int
  depth: int = 5
  degree: int | None = None
  density: float | None = None
  constrained: bool = True
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    self._check(x.shape)
    top, left = ((n - _IMAGE) // 2 for n in x.shape[1:3])
    x = x[:, top:top + _IMAGE, left:left + _IMAGE]
    repeats = self.depth // len(_STRIDES)
    for i in range(self.depth):
      block, place = divmod(i, repeats)
      width, stride = _WIDTH * 2**block, 1
      if place == repeats - 1:
        width, stride = 2 * width, _STRIDES[block]
      if block < _SKEW_BLOCKS:
        x = layers.SOCConv(
            width, (_WINDOW, _WINDOW), stride, dtype=self.dtype,
            name=f'soc_{i}' if i else 'stem')(x, train)
      else:
        x = self._eco(x, width, stride, f'eco_{i}')
      x = layers.maxmin(x)
    x = x.reshape(x.shape[0], -1)
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)

  def _eco(
      self, x: jax.Array, width: int, stride: int, name: str) -> jax.Array:
    size = x.shape[1] // stride
    window = min(_WINDOW, size)
    if self.constrained:
      return layers.ECOConv(
          width, (window, window), stride, self.degree, self.density,
          dtype=self.dtype, name=name)(x)
    return nn.Conv(
        width, (window, window), padding='CIRCULAR',
        kernel_dilation=size // window, dtype=self.dtype,
        conv_general_dilated=conv.conv_general_dilated, name=name)(
            sao.space_to_depth(x, stride))

  def _check(self, shape: tuple[int, ...]) -> None:
    blocks = len(_STRIDES)
    if self.depth < blocks or self.depth % blocks:
      low = self.depth // blocks * blocks
      near = sorted({max(blocks, low), max(blocks, low + blocks)})
      raise ValueError(
          f'lipconvnet: depth={self.depth} must be a positive multiple of '
          f'{blocks}; nearest: {" and ".join(map(str, near))}')
    if min(shape[1:3]) < _IMAGE:
      raise ValueError(
          f'lipconvnet: images of {shape[1]}x{shape[2]} are too small; the '
          f'smallest that works is {_IMAGE}x{_IMAGE}')
    if not self.constrained and (self.degree, self.density) != (None, None):
      raise ValueError(
          'lipconvnet: with constrained=False the initializer of the kernels '
          'says which exist; leave degree and density out')
