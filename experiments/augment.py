"""Augmentation of a batch, on the device: deterministic in its key.

Every function is ordinary JAX without branches, made for `vmap` over seeds
inside a jitted scan. Images are `(batch, height, width, channels)` and keep
their dtype.
"""

from collections.abc import Callable
import functools
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import registry

__all__ = ['AUGMENTATIONS', 'Labels', 'autoaugment', 'crop_flip', 'cutmix',
           'flip', 'make']

_STAGE_STREAM = np.uint32(2**31)  # folded in where an image's number may be
_CROP_PAD = 4

AUGMENTATIONS = registry.Registry('augmentation')


class Labels(NamedTuple):
  """Two labels an image and how much the first one counts.

  Attributes:
    first: `(batch,)` integers.
    second: `(batch,)` integers.
    weight: `(batch,)` float32 in [0, 1], the weight of `first`; `second` has
      the rest.
  """

  first: jax.Array
  second: jax.Array
  weight: jax.Array


_Stage = Callable[[jax.Array, jax.Array, Labels], tuple[jax.Array, Labels]]


def make(
    expression: str
) -> Callable[..., tuple[jax.Array, Labels]] | None:
  """Makes the augmentation that a config asks for.

  Args:
    expression: names in `AUGMENTATIONS`, with options, joined by `' + '` in
      the order in which they are applied: `'autoaugment + cutmix(p=0.5)'`.

  Returns:
    A function of a key, images and integer labels `(batch,)` that returns the
    images and their `Labels`, or None if the expression is `'none'`.

  Raises:
    ValueError: for an unknown name or option, or if images would be mixed
      twice.

  Example:
    >>> augment = make('crop_flip + cutmix(p=1.0)')
    >>> images, labels = augment(
    ...     jax.random.key(0), jnp.zeros((8, 32, 32, 3), jnp.uint8),
    ...     jnp.arange(8))
    >>> images.shape, labels.weight.shape
    ((8, 32, 32, 3), (8,))
  """
  parts = expression.split(' + ')
  if [registry.parse(part)[0] for part in parts].count('cutmix') > 1:
    raise ValueError(
        f'augmentation {expression!r} mixes twice, but an image carries two '
        'labels at most; use cutmix once')
  built = (AUGMENTATIONS.build(part) for part in parts)
  stages = [stage for stage in built if stage is not None]
  if not stages:
    return None

  def augment(
      key: jax.Array, images: jax.Array, labels: jax.Array
  ) -> tuple[jax.Array, Labels]:
    mixed = Labels(labels, labels, jnp.ones(labels.shape, jnp.float32))
    for i, stage in enumerate(stages):
      # The first one's images do not depend on whether others follow.
      own = jax.random.fold_in(key, _STAGE_STREAM + np.uint32(i)) if i else key
      images, mixed = stage(own, images, mixed)
    return images, mixed

  return augment


def _stage(
    function: Callable[[jax.Array, jax.Array], jax.Array]
) -> Callable[[], _Stage]:
  """Returns the maker of a stage that leaves the labels as they are."""
  return lambda: lambda key, images, labels: (function(key, images), labels)


# ---- Crops and mirror images.


def flip(key: jax.Array, images: jax.Array) -> jax.Array:
  """Mirrors half of the images.

  Args:
    key: PRNG key.
    images: `(batch, height, width, channels)`.

  Returns:
    As `images`.
  """
  mirrored = jax.random.bernoulli(key, shape=(len(images),))
  return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def crop_flip(key: jax.Array, images: jax.Array) -> jax.Array:
  """Shifts every image by up to 4 pixels each way and mirrors half of them.

  As in He et al. (2016), section 4.2; black comes in at the border.

  Args:
    key: PRNG key.
    images: `(batch, height, width, channels)`.

  Returns:
    As `images`.
  """
  crop_key, flip_key = jax.random.split(key)
  count, *shape = images.shape
  corners = jax.random.randint(crop_key, (count, 2), 0, 2 * _CROP_PAD + 1)
  mirrored = jax.random.bernoulli(flip_key, shape=(count,))
  pad = (_CROP_PAD, _CROP_PAD)
  images = jnp.pad(images, ((0, 0), pad, pad, (0, 0)))

  def one(image: jax.Array, corner: jax.Array, mirror: jax.Array) -> jax.Array:
    image = jax.lax.dynamic_slice(image, (*corner, 0), shape)
    return jnp.where(mirror, image[:, ::-1], image)

  return jax.vmap(one)(images, corners, mirrored)


# ---- AutoAugment. A policy has 25 pairs of operations. Under `vmap` a switch
# computes all its branches, so there is none: one pipeline does every
# operation, and what an operation is says in which step it differs from doing
# nothing.

_POLICY = (  # operation, probability, level: twice
    ('invert', 0.1, 7, 'contrast', 0.2, 6),
    ('rotate', 0.7, 2, 'translate_x', 0.3, 9),
    ('sharpness', 0.8, 1, 'sharpness', 0.9, 3),
    ('shear_y', 0.5, 8, 'translate_y', 0.7, 9),
    ('autocontrast', 0.5, 8, 'equalize', 0.9, 2),
    ('shear_y', 0.2, 7, 'posterize', 0.3, 7),
    ('color', 0.4, 3, 'brightness', 0.6, 7),
    ('sharpness', 0.3, 9, 'brightness', 0.7, 9),
    ('equalize', 0.6, 5, 'equalize', 0.5, 1),
    ('contrast', 0.6, 7, 'sharpness', 0.6, 5),
    ('color', 0.7, 7, 'translate_x', 0.5, 8),
    ('equalize', 0.3, 7, 'autocontrast', 0.4, 8),
    ('translate_y', 0.4, 3, 'sharpness', 0.2, 6),
    ('brightness', 0.9, 6, 'color', 0.2, 8),
    ('solarize', 0.5, 2, 'invert', 0.0, 3),
    ('equalize', 0.2, 0, 'autocontrast', 0.6, 0),
    ('equalize', 0.2, 8, 'equalize', 0.6, 4),
    ('color', 0.9, 9, 'equalize', 0.6, 6),
    ('autocontrast', 0.8, 4, 'solarize', 0.2, 8),
    ('brightness', 0.1, 3, 'color', 0.7, 0),
    ('solarize', 0.4, 5, 'autocontrast', 0.9, 3),
    ('translate_y', 0.9, 9, 'translate_y', 0.7, 9),
    ('autocontrast', 0.9, 2, 'solarize', 0.8, 3),
    ('equalize', 0.8, 8, 'invert', 0.1, 3),
    ('translate_y', 0.7, 9, 'autocontrast', 0.9, 1),
)
_TOP_LEVEL = 9
_BLENDED_WITH = ('brightness', 'contrast', 'color', 'sharpness')
_LUMA = np.array([[[19595, 38470, 7471]]], np.int32)  # of 2**16, ITU-R 601


def _fixed(
    a: float, b: float, c: float, d: float, e: float, f: float
) -> np.ndarray:
  """Returns 2**16 times the map of (column, row, 1) to a pixel's source.

  The centre (x, y) of a pixel is taken from (a x + b y + c, d x + e y + f); the
  source is the pixel in which that lies, so the map is to be rounded down.
  """
  rows = [[a, b, c + (a + b) / 2], [d, e, f + (d + e) / 2]]
  return np.floor(np.array(rows) * 2**16 + 0.5).astype(np.int32)


class _Operation(NamedTuple):
  """What happens to an image, step by step; the defaults change nothing.

  Attributes:
    matrix: where pixels come from, see `_fixed`.
    spread: how each channel's values are spread over 0..255: 0 not at all, 1
      linearly, 2 evenly.
    threshold: values from here on are inverted.
    mask: bits that are kept.
    base: index in `_BLENDED_WITH` of the image blended with.
    tenths: the result is base + tenths / 10 (image - base).
  """

  matrix: Any = _fixed(1, 0, 0, 0, 1, 0)
  spread: Any = 0
  threshold: Any = 256
  mask: Any = 255
  base: Any = 0
  tenths: Any = 10


def _operation(
    name: str, level: int, sign: int, height: int, width: int
) -> _Operation:
  """Returns an operation of Cubuk et al., at level / 9 of its range."""
  share = level / _TOP_LEVEL
  if name in _BLENDED_WITH:
    return _Operation(
        base=_BLENDED_WITH.index(name), tenths=10 + sign * level)
  if name == 'autocontrast':
    return _Operation(spread=1)
  if name == 'equalize':
    return _Operation(spread=2)
  if name == 'invert':
    return _Operation(threshold=0)
  if name == 'solarize':
    return _Operation(threshold=255 - 255 * level // _TOP_LEVEL)
  if name == 'posterize':
    return _Operation(mask=256 - 2**round(4 * share))
  if name == 'shear_y':
    return _Operation(_fixed(1, 0, 0, sign * 0.3 * share, 1, 0))
  if name == 'rotate':
    angle = sign * math.radians(30 * share)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return _Operation(_fixed(
        cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))
  x, y = (
      sign * int(150 / 331 * share * side * (name == way))
      for way, side in (('translate_x', width), ('translate_y', height)))
  return _Operation(_fixed(1, 0, x, 0, 1, y))


def _table(height: int, width: int) -> _Operation:
  """Returns all operations, each leaf (25, 2, 3, ...).

  The last axis is what a draw decides: nothing, sign +1 or sign -1.
  """
  operations = []
  for pair in _POLICY:
    for name, _, level in (pair[:3], pair[3:]):
      operations += [_Operation(), *(
          _operation(name, level, sign, height, width) for sign in (1, -1))]
  return jax.tree.map(
      lambda *x: np.array(x, np.int32).reshape(-1, 2, 3, *np.shape(x[0])),
      *operations)


def _point(operation: _Operation, channel: jax.Array) -> jax.Array:
  """Does what depends on a pixel's value alone: a table of 256 decides."""
  value = jnp.arange(256)
  low, high = channel.min(), channel.max()
  stretched = 255 * (value - low) // jnp.maximum(high - low, 1)
  stretched = jnp.where(high > low, stretched, value)

  counts = jnp.zeros(256, jnp.int32).at[channel].add(1)
  step = (channel.size - counts[high]) // 255
  below = jnp.cumsum(counts) - counts
  evened = (step // 2 + below) // jnp.maximum(step, 1)
  evened = jnp.where(step > 0, jnp.minimum(evened, 255), value)

  table = jax.lax.select_n(operation.spread, value, stretched, evened)
  table = jnp.where(table < operation.threshold, table, 255 - table)
  return (table & operation.mask)[channel]


def _smooth(image: jax.Array) -> jax.Array:
  """Averages 3x3 pixels, the middle one five times; the border stays."""
  height, width, _ = image.shape
  total = 4 * image[1:-1, 1:-1]
  for i in range(3):
    for j in range(3):
      total += image[i:height - 2 + i, j:width - 2 + j]
  return image.at[1:-1, 1:-1].set((2 * total + 13) // 26)


def _apply(operation: _Operation, image: jax.Array) -> jax.Array:
  """Does one operation to one image, in whole numbers as Pillow does."""
  height, width, _ = image.shape
  (a, b, c), (d, e, f) = operation.matrix
  x, y = jnp.arange(width)[None], jnp.arange(height)[:, None]
  image = image.at[(d * x + e * y + f) >> 16, (a * x + b * y + c) >> 16].get(
      mode='fill', fill_value=0, wrap_negative_indices=False)
  image = image.astype(jnp.int32)

  channels = jnp.moveaxis(image, -1, 0).reshape(3, -1)
  channels = jax.vmap(functools.partial(_point, operation))(channels)
  image = jnp.moveaxis(channels.reshape(3, height, width), 0, -1)
  # Else XLA looks every value up again for each pixel it is averaged with.
  image = jax.lax.optimization_barrier(image)

  grey = ((image * _LUMA).sum(-1, keepdims=True) + 2**15) >> 16
  mean = (2 * grey.sum() + grey.size) // (2 * grey.size)
  base = jax.lax.select_n(
      operation.base, jnp.zeros_like(image), jnp.full_like(image, mean),
      jnp.broadcast_to(grey, image.shape), _smooth(image))
  blend = 10 * base + operation.tenths * (image - base)
  return (jnp.clip(blend, 0, 2550) // 10).astype(jnp.uint8)


def autoaugment(key: jax.Array, images: jax.Array) -> jax.Array:
  """Applies one of AutoAugment's 25 pairs of operations to every image.

  The policy that was found for CIFAR-10. A pair is drawn for each image, and
  each of its two operations is then left out with its own probability. Shears
  (0.3), shifts (150/331 of the side), rotations (30 degrees) and enhancements
  (by 0.9) go level / 9 of the way, in a direction drawn as well; the nearest
  pixel is taken, and black comes in at the border. Quotients are rounded down
  exactly, where Pillow's floating point may miss a whole number by one.

  Args:
    key: PRNG key.
    images: `(batch, height, width, 3)` uint8, in 0..255.

  Returns:
    As `images`.

  Raises:
    ValueError: if the images have another dtype or number of channels.

  Source: Cubuk, Zoph, Mane, Vasudevan, Le, AutoAugment: Learning Augmentation
  Strategies from Data (2019), tables 6 and 7.
  """
  if images.shape[-1] != 3 or images.dtype != jnp.uint8:
    raise ValueError(
        f'autoaugment: images of shape {images.shape} and dtype '
        f'{images.dtype} are not coloured bytes; expected 3 channels of uint8')
  count, height, width, _ = images.shape
  policy_key, use_key, sign_key = jax.random.split(key, 3)
  pair = jax.random.randint(policy_key, (count,), 0, len(_POLICY))
  probability = jnp.array([(row[1], row[4]) for row in _POLICY], jnp.float32)
  used = jax.random.uniform(use_key, (count, 2)) < probability[pair]
  sign = jax.random.bernoulli(sign_key, shape=(count, 2)).astype(jnp.int32)
  chosen = jnp.where(used, 1 + sign, 0)
  table = _table(height, width)
  for slot in range(2):
    operations = jax.tree.map(
        lambda leaf, i=slot: jnp.asarray(leaf)[pair, i, chosen[:, i]], table)
    images = jax.vmap(_apply)(operations, images)
  return images


# ---- Mixing images.


def cutmix(p: float = 0.5) -> _Stage:
  r"""Pastes the same box of another image of the batch into every image.

  With $u \sim U(0, 1)$, which is Beta(1, 1), the box has the sides
  $\sqrt{u}$ of the image's; its centre is uniform, and what lies outside is
  cut. `Labels.second` and its weight, the box's share of the pixels, are those
  of the image that it comes from.

  Args:
    p: probability that a batch is mixed at all.

  Returns:
    A function of a key, images `(batch, height, width, channels)` and Labels.

  Raises:
    ValueError: if p is no probability.

  Source: Yun, Han, Oh, Chun, Choe, Yoo, CutMix: Regularization Strategy to
  Train Strong Classifiers with Localizable Features (2019), algorithm A1.
  """
  if not 0 <= p <= 1:
    raise ValueError(
        f'cutmix: p {p} is no probability; nearest: {min(max(p, 0), 1)}')

  def stage(
      key: jax.Array, images: jax.Array, labels: Labels
  ) -> tuple[jax.Array, Labels]:
    use_key, size_key, centre_key, order_key = jax.random.split(key, 4)
    count, *sides, _ = images.shape
    use = jax.random.bernoulli(use_key, p)
    root = jnp.sqrt(jax.random.uniform(size_key))
    inside = []
    for side, own in zip(sides, jax.random.split(centre_key), strict=True):
      half = (side * root).astype(jnp.int32) // 2
      centre = jax.random.randint(own, (), 0, side)
      at = jnp.arange(side)
      inside.append((at >= centre - half) & (at < centre + half))
    box = use & inside[0][:, None] & inside[1][None]
    order = jax.random.permutation(order_key, count)
    images = jnp.where(box[None, ..., None], images[order], images)
    weight = jnp.full_like(labels.weight, 1 - box.mean())
    return images, Labels(labels.first, labels.first[order], weight)

  return stage


AUGMENTATIONS['none'] = lambda: None
AUGMENTATIONS['autoaugment'] = _stage(autoaugment)
AUGMENTATIONS['crop_flip'] = _stage(crop_flip)
AUGMENTATIONS['cutmix'] = cutmix
AUGMENTATIONS['flip'] = _stage(flip)
