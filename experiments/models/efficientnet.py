"""EfficientNet, for ImageNet-like images."""

import functools
import math
from typing import Any
from typing import NamedTuple

import flax.linen as nn
import jax

from experiments.models import conv

__all__ = ['STAGES', 'VARIANTS', 'EfficientNet', 'Stage', 'efficientnet']


class Stage(NamedTuple):
  """Blocks of one shape, before scaling.

  Attributes:
    window: of the depthwise convolutions.
    stride: of the first block; the others have 1.
    expansion: channels inside a block, relative to its input.
    width: channels of its output.
    count: blocks.
  """

  window: int
  stride: int
  expansion: int
  width: int
  count: int


STAGES = (  # of b0
    Stage(3, 1, 1, 16, 1), Stage(3, 2, 6, 24, 2), Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3), Stage(5, 1, 6, 112, 3), Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1))
# Width and depth relative to b0, and pixels of a side of its images. Tan and Le
# have b0 to b7. Vodrahalli et al. train a b9 of which no copy gives the sizes:
# this one is ours, and goes on as b6, b7 and (2.2, 3.6, 672), a later b8, do.
VARIANTS = {
    'b0': (1.0, 1.0, 224), 'b1': (1.0, 1.1, 240), 'b2': (1.1, 1.2, 260),
    'b3': (1.2, 1.4, 300), 'b4': (1.4, 1.8, 380), 'b5': (1.6, 2.2, 456),
    'b6': (1.8, 2.6, 528), 'b7': (2.0, 3.1, 600), 'b9': (2.4, 4.1, 744)}
_STEM, _TOP = 32, 1280
_SQUEEZE = 4
_DIVISOR = 8


class EfficientNet(nn.Module):
  """Inverted residual blocks with squeeze-and-excitation, scaled in two ways.

  A block is `expand`, a 1x1 convolution that is left out where the expansion is
  1; `depthwise`; a scale of every channel between 0 and 1, which the dense
  layers `squeeze`, to a quarter of the channels of the block's input, and
  `excite` make of the channels' means; and `project`, a 1x1 convolution, after
  which there is no activation. The input is added where shapes agree. Other
  activations are Swish, so no unit can be dead, and none is sown. Convolutions
  have no bias, as a normalization follows; `top` is the last one.

  Its convolutions are padded as 'SAME', and a running average keeps 0.99 of
  itself, as in the published code. The published dropout before `head` is left
  out.

  Attributes:
    num_classes: number of outputs.
    width: of all layers, relative to b0; channels are rounded to multiples of
      8, but not by more than a tenth down.
    depth: of all stages, relative to b0; blocks are rounded up.
    stages: of b0.
    drop: stochastic depth: in training, what block i of n adds to its input is
      left out with probability `drop * i / n`, image by image. Above 0, `apply`
      needs an rng 'dropout', which `Trainer` does not give; 0.2 is published.
    dtype: dtype to compute in; parameters stay float32.

  Source: Tan and Le, EfficientNet: Rethinking model scaling for convolutional
    neural networks (2019), table 1 and section 3.3; Sandler et al.,
    MobileNetV2 (2018); Huang et al., Deep networks with stochastic depth
    (2016), of `drop`.
  """

  num_classes: int
  width: float = 1.0
  depth: float = 1.0
  stages: tuple[Stage, ...] = STAGES
  drop: float = 0.0
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    norm = functools.partial(
        nn.BatchNorm, use_running_average=not train, momentum=0.99,
        epsilon=1e-3, dtype=self.dtype)
    x = _conv(_round(_STEM * self.width), 3, 2, self.dtype, 'stem')(x)
    x = nn.swish(norm(name='stem_norm')(x))
    counts = [math.ceil(stage.count * self.depth) for stage in self.stages]
    index = 0
    for stage, count in zip(self.stages, counts, strict=True):
      for i in range(count):
        rate = self.drop * index / sum(counts)
        x = _Block(
            stage._replace(
                stride=1 if i else stage.stride,
                width=_round(stage.width * self.width)),
            nn.Dropout(rate, (1, 2, 3), deterministic=not train), norm,
            self.dtype, name=f'blocks_{index}')(x)
        index += 1
    x = _conv(_round(_TOP * self.width), 1, 1, self.dtype, 'top')(x)
    x = nn.swish(norm(name='top_norm')(x)).mean((1, 2))
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)


class _Block(nn.Module):
  """MBConv: wide inside, narrow where the shortcut is."""

  stage: Stage
  drop: Any
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    window, stride, expansion, width, _ = self.stage
    wide = x.shape[-1] * expansion
    y = x
    if expansion > 1:
      y = _conv(wide, 1, 1, self.dtype, 'expand')(y)
      y = nn.swish(self.norm(name='expand_norm')(y))
    y = _conv(wide, window, stride, self.dtype, 'depthwise', wide)(y)
    y = nn.swish(self.norm(name='depthwise_norm')(y))
    gate = nn.swish(nn.Dense(
        max(x.shape[-1] // _SQUEEZE, 1), dtype=self.dtype,
        name='squeeze')(y.mean((1, 2), keepdims=True)))
    y = y * nn.sigmoid(nn.Dense(wide, dtype=self.dtype, name='excite')(gate))
    y = _conv(width, 1, 1, self.dtype, 'project')(y)
    y = self.norm(name='project_norm')(y)
    return x + self.drop(y) if x.shape == y.shape else y


def _conv(
    width: int, window: int, stride: int, dtype: Any, name: str,
    groups: int = 1) -> nn.Conv:
  return nn.Conv(
      width, (window, window), stride, feature_group_count=groups,
      use_bias=False, dtype=dtype,
      conv_general_dilated=conv.conv_general_dilated, name=name)


def _round(channels: float) -> int:
  near = max(int(channels + _DIVISOR / 2) // _DIVISOR * _DIVISOR, _DIVISOR)
  return near if near >= 0.9 * channels else near + _DIVISOR


def efficientnet(
    num_classes: int, variant: str = 'b0', dtype: Any = None) -> EfficientNet:
  """Returns an EfficientNet by its name.

  Args:
    num_classes: number of outputs.
    variant: a name in `VARIANTS`: 'b0' to 'b7', or 'b9', whose sizes are ours.
    dtype: dtype to compute in.

  Returns:
    A model for images of about the size that `VARIANTS` has; 5.3, 12.2 and 66.3
    million parameters as b0, b3 and b7.

  Raises:
    ValueError: for an unknown variant.
  """
  if variant not in VARIANTS:
    raise ValueError(
        f'efficientnet: variant={variant!r} must be one of '
        f'{", ".join(VARIANTS)}')
  width, depth, _ = VARIANTS[variant]
  return EfficientNet(num_classes, width, depth, dtype=dtype)
