"""Residual networks, for ImageNet-like and for CIFAR-like images."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models import conv

__all__ = ['ResNet', 'resnet18', 'resnet50', 'resnet_cifar']

_EXPANSION = 4  # of a bottleneck


class ResNet(nn.Module):
  """Residual blocks in stages; a stage doubles the width.

  Every stage but the first halves the image. For ImageNet the stem is a 7x7
  convolution and a max pool, both of stride 2, and a shortcut that changes
  shape is a 1x1 convolution; for CIFAR the stem is a 3x3 convolution, and such
  a shortcut drops pixels and appends zeros, without parameters.

  A bottleneck has its stride in the 3x3 convolution, as in what is known as
  version 1.5; the paper has it in the 1x1 convolution before, which drops three
  quarters of the pixels unseen.

  Attributes:
    num_classes: number of outputs.
    blocks: blocks in every stage.
    width: channels of the first stage; of its 3x3 convolutions, if bottlenecks.
    for_imagenet: which of the two stems and shortcuts.
    dtype: dtype to compute in; parameters stay float32.
    bottleneck: whether a block is a 1x1, a 3x3 and a 1x1 convolution, the last
      to four times the width, and not two 3x3 ones.

  Source: He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition
    (2016), table 1 and section 4.2.
  """

  num_classes: int
  blocks: tuple[int, ...] = (2, 2, 2, 2)
  width: int = 64
  for_imagenet: bool = True
  dtype: Any = None
  bottleneck: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    norm = functools.partial(
        nn.BatchNorm, use_running_average=not train, momentum=0.9,
        dtype=self.dtype)
    window, stride = (7, 2) if self.for_imagenet else (3, 1)
    x = _conv(self.width, window, stride, self.dtype, 'stem')(x)
    x = nn.relu(norm(name='stem_norm')(x))
    self.sow('intermediates', 'relu', x)
    if self.for_imagenet:
      x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    index = 0
    for stage, count in enumerate(self.blocks):
      for i in range(count):
        stride = 2 if stage and i == 0 else 1
        x = _Block(
            self.width * 2**stage, stride, self.bottleneck, self.for_imagenet,
            norm, self.dtype, name=f'blocks_{index}')(x)
        index += 1
    x = x.mean((1, 2))
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)


class _Block(nn.Module):
  """Two 3x3 convolutions, or a bottleneck, beside a shortcut."""

  width: int
  stride: int
  bottleneck: bool
  project: bool
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width, stride = self.width, self.stride
    layers = [(width, 3, stride), (width, 3, 1)]
    if self.bottleneck:
      width *= _EXPANSION
      layers = [(self.width, 1, 1), (self.width, 3, stride), (width, 1, 1)]
    y = x
    for i, layer in enumerate(layers):
      if i:
        y = nn.relu(y)
        self.sow('intermediates', 'relu', y)
      y = _conv(*layer, self.dtype, f'conv_{i}')(y)
      y = self.norm(name=f'norm_{i}')(y)
    more = width - x.shape[-1]
    if stride > 1 or more:
      if self.project:
        x = _conv(width, 1, stride, self.dtype, 'shortcut')(x)
        x = self.norm(name='shortcut_norm')(x)
      else:
        x = x[:, ::stride, ::stride]
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more)))
    y = nn.relu(x + y)
    self.sow('intermediates', 'relu', y)
    return y


def _conv(
    width: int, window: int, stride: int, dtype: Any, name: str) -> nn.Conv:
  # Padded alike on both sides, as in the paper's code: 'SAME' is not for
  # stride 2.
  return nn.Conv(
      width, (window, window), stride, padding=window // 2, use_bias=False,
      dtype=dtype, conv_general_dilated=conv.conv_general_dilated, name=name)


def resnet18(num_classes: int, dtype: Any = None) -> ResNet:
  """Returns the ResNet-18 of ImageNet.

  Args:
    num_classes: number of outputs.
    dtype: dtype to compute in.

  Returns:
    A model for images of about 224x224; 11.7 million parameters.
  """
  return ResNet(num_classes, dtype=dtype)


def resnet50(num_classes: int, dtype: Any = None) -> ResNet:
  """Returns the ResNet-50 of ImageNet, version 1.5.

  Args:
    num_classes: number of outputs.
    dtype: dtype to compute in.

  Returns:
    A model for images of about 224x224; 25.56 million parameters.
  """
  return ResNet(num_classes, (3, 4, 6, 3), dtype=dtype, bottleneck=True)


def resnet_cifar(
    num_classes: int, depth: int = 56, dtype: Any = None) -> ResNet:
  """Returns the ResNet of a depth 6 n + 2 for CIFAR.

  Args:
    num_classes: number of outputs.
    depth: layers with weights on the longest path.
    dtype: dtype to compute in.

  Returns:
    A model for images of about 32x32, of three stages of n blocks with 16, 32
    and 64 channels; 0.85 million parameters at depth 56.

  Raises:
    ValueError: if the depth is not 8, 14, 20, ...
  """
  n = int((depth - 2) // 6)
  if n < 1 or depth != 6 * n + 2:
    near = sorted({max(8, 6 * n + 2), max(8, 6 * n + 8)})
    raise ValueError(
        f'resnet_cifar: depth={depth} must be 6 n + 2 with n at least 1; '
        f'nearest: {" and ".join(map(str, near))}')
  return ResNet(num_classes, (n, n, n), 16, False, dtype)
