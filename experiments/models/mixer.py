"""Networks of dense layers that mix patches and channels in turn."""

from typing import Any

import flax.linen as nn
import jax

from experiments.models import conv

__all__ = ['MixerNano', 'ResMLP']

_LAYER_SCALE = 0.1


class MixerNano(nn.Module):
  """MLP-Mixer, in a size for CIFAR: two small MLPs with shortcuts a block.

  The blocks are one stack, `hidden`, with a first axis of blocks on its leaves,
  run by one scan. The thesis's table gives the patches a 3x3 kernel of stride
  1, which makes no 64 of them from 32x32 pixels; its text, 4x4. Its dropout
  has no rate there, and is left out. Its N layers are 4 depth + 1.

  Attributes:
    num_classes: number of outputs.
    depth: number of blocks; the thesis has 8 and 16.
    width: channels of a patch.
    token_width: units between the layers that mix patches.
    channel_width: units between the layers that mix channels.
    patch: pixels of a side of a patch; has to divide the image.
    dtype: dtype to compute in; parameters stay float32.

  Source: Esguerra (2023), section 3.5.3.2, table 3.6; Tolstikhin et al.,
    MLP-Mixer: an all-MLP architecture for vision, NeurIPS 2021.
  """

  num_classes: int
  depth: int = 8
  width: int = 128
  token_width: int = 64
  channel_width: int = 512
  patch: int = 4
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = _patches(x, self.width, self.patch, self.dtype)
    x, _ = _stack(_MixerBlock, self.depth)(
        self.token_width, self.channel_width, self.dtype, name='hidden')(
            x, None)
    x = nn.LayerNorm(dtype=self.dtype, name='norm')(x).mean(1)
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)


class _MixerBlock(nn.Module):
  """An MLP across patches, then one across channels."""

  token_width: int
  channel_width: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
    y = nn.LayerNorm(dtype=self.dtype, name='token_norm')(x)
    y = _mlp(y.swapaxes(1, 2), self.token_width, 'token', self.dtype)
    x = x + y.swapaxes(1, 2)
    y = nn.LayerNorm(dtype=self.dtype, name='channel_norm')(x)
    return x + _mlp(y, self.channel_width, 'channel', self.dtype), None


class ResMLP(nn.Module):
  """ResMLP: one linear layer across patches, an MLP across channels a block.

  In place of a normalization, every channel has a scale and a shift. What a
  block adds to its input is multiplied by 0.1 and a scale a channel that starts
  at 1 (LayerScale, as in the published networks of depth 12). The blocks are
  one stack, `hidden`, with a first axis of blocks on its leaves, run by one
  scan. The thesis's dropout has no rate there, and is left out. Its depth of 12
  is 38 layers with kernels, by its text, and 39 in its figure.

  Attributes:
    num_classes: number of outputs.
    depth: number of blocks.
    width: channels of a patch; four times as many units in the MLP.
    patch: pixels of a side of a patch; has to divide the image.
    dtype: dtype to compute in; parameters stay float32.

  Source: Esguerra (2023), section 3.5.3.2, table 3.7; Touvron et al., ResMLP:
    feedforward networks for image classification with data-efficient training,
    arXiv:2105.03404.
  """

  num_classes: int
  depth: int = 12
  width: int = 48
  patch: int = 4
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = _patches(x, self.width, self.patch, self.dtype)
    x, _ = _stack(_ResMLPBlock, self.depth)(self.dtype, name='hidden')(x, None)
    x = _Affine(dtype=self.dtype, name='affine')(x).mean(1)
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)


class _ResMLPBlock(nn.Module):
  """A linear layer across patches, then an MLP across channels."""

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
    y = _Affine(dtype=self.dtype, name='token_affine')(x).swapaxes(1, 2)
    y = nn.Dense(y.shape[-1], dtype=self.dtype, name='token')(y).swapaxes(1, 2)
    x = x + _LAYER_SCALE * _Affine(False, self.dtype, name='token_scale')(y)
    y = _Affine(dtype=self.dtype, name='channel_affine')(x)
    y = _mlp(y, 4 * x.shape[-1], 'channel', self.dtype)
    y = _Affine(False, self.dtype, name='channel_scale')(y)
    return x + _LAYER_SCALE * y, None


class _Affine(nn.Module):
  """A scale, and a shift if wanted, for every channel."""

  use_bias: bool = True
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param(
        'bias', nn.initializers.zeros, shape) if self.use_bias else None
    x, scale, bias = nn.dtypes.promote_dtype(x, scale, bias, dtype=self.dtype)
    scale, bias = (
        p if p is None else p.reshape((1,) * (x.ndim - 1) + shape)
        for p in (scale, bias))
    return x * scale if bias is None else x * scale + bias


def _patches(x: jax.Array, width: int, patch: int, dtype: Any) -> jax.Array:
  """Maps squares of pixels to `width` channels, by the layer `stem`."""
  sizes = x.shape[1:3]
  if any(n % patch for n in sizes):
    near = tuple(max(1, round(n / patch)) * patch for n in sizes)
    raise ValueError(
        f'images of {sizes[0]}x{sizes[1]}: patch={patch} has to divide both; '
        f'the nearest that works is {near[0]}x{near[1]}')
  x = nn.Conv(
      width, (patch, patch), patch, padding='VALID', dtype=dtype,
      conv_general_dilated=conv.conv_general_dilated, name='stem')(x)
  return x.reshape(x.shape[0], -1, width)


def _stack(block: Any, depth: int) -> Any:
  return nn.scan(
      block, variable_axes={'params': 0}, split_rngs={'params': True},
      length=depth)


def _mlp(x: jax.Array, units: int, name: str, dtype: Any) -> jax.Array:
  y = nn.Dense(units, dtype=dtype, name=f'{name}_in')(x)
  y = nn.gelu(y, approximate=False)
  return nn.Dense(x.shape[-1], dtype=dtype, name=f'{name}_out')(y)
