"""Augmentations: Pillow's operations, the published policy, whole labels."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageOps
import pytest

from experiments import augment

SIZES = [(32, 32), (24, 40)]
ENHANCERS = {
    'brightness': ImageEnhance.Brightness, 'contrast': ImageEnhance.Contrast,
    'color': ImageEnhance.Color, 'sharpness': ImageEnhance.Sharpness}


APPLY = jax.jit(jax.vmap(augment._apply, (None, 0)))


def _noise(count, size=(32, 32), seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, *size, 3), np.uint8)


def _photographs(size=(32, 32)):
  """Images with few and many, even and uneven values, and plain ones."""
  height, width = size
  noise = _noise(9, size)
  y, x = np.mgrid[:height, :width]
  slope = np.stack([x * 5, y * 4 + 30, 200 - x - y], -1).astype(np.uint8)
  dark = noise[1] // 9 + 40
  flat = np.full_like(slope, 77)
  flat[..., 1] = 255
  mostly = flat.copy()
  mostly[:3] = noise[2][:3]
  squared = (noise[3].astype(int)**2 // 255).astype(np.uint8)
  ends = np.where(noise[4] > 99, np.uint8(255), np.uint8(0))
  return np.stack([noise[0], slope, dark, flat, mostly, squared, ends])


def _ours(name, level, sign, images):
  operation = augment._operation(name, level, sign, *images.shape[1:3])
  operation = jax.tree.map(np.int32, operation)
  out = APPLY(operation, images)
  assert out.dtype == jnp.uint8
  return np.asarray(out)


def _pillow(name, level, sign, image):
  """What the operation is in the authors' words: Pillow's functions."""
  picture = Image.fromarray(image)
  share = level / 9
  size, affine = picture.size, Image.Transform.AFFINE
  shift = sign * int(150 / 331 * share * (
      size[0] if name == 'translate_x' else size[1]))
  if name in ENHANCERS:
    picture = ENHANCERS[name](picture).enhance(1 + sign * 0.9 * share)
  else:
    picture = {
        'shear_y': lambda: picture.transform(
            size, affine, (1, 0, 0, sign * 0.3 * share, 1, 0)),
        'translate_x': lambda: picture.transform(
            size, affine, (1, 0, shift, 0, 1, 0)),
        'translate_y': lambda: picture.transform(
            size, affine, (1, 0, 0, 0, 1, shift)),
        'rotate': lambda: picture.rotate(sign * 30 * share),
        'autocontrast': lambda: ImageOps.autocontrast(picture),
        'equalize': lambda: ImageOps.equalize(picture),
        'invert': lambda: ImageOps.invert(picture),
        'solarize': lambda: ImageOps.solarize(picture, 255 - 255 * share),
        'posterize': lambda: ImageOps.posterize(picture, 8 - round(4 * share)),
    }[name]()
  return np.asarray(picture)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('name', [
    'shear_y', 'translate_x', 'translate_y', 'rotate', 'equalize', 'invert',
    'solarize', 'posterize'])
def test_moves_and_tables_are_pillows(name, size):
  images = _photographs(size)
  for level in range(10):
    for sign in (1, -1):
      ours = _ours(name, level, sign, images)
      for image, got in zip(images, ours, strict=True):
        np.testing.assert_array_equal(got, _pillow(name, level, sign, image))


def _agrees_but_for_whole_numbers(got, numerators, denominators, pillow):
  """Checks quotients rounded down, and Pillow's wherever it cannot slip."""
  want = np.clip(numerators // denominators, 0, 255)
  np.testing.assert_array_equal(got, want)
  gap = np.abs(want - pillow)
  assert gap[numerators % denominators != 0].max(initial=0) == 0
  assert gap.max() <= 1


@pytest.mark.parametrize('size', SIZES)
def test_autocontrast_fills_the_range(size):
  images = _photographs(size)
  ours = _ours('autocontrast', 0, 1, images)
  for image, got in zip(images, ours, strict=True):
    for c in range(3):
      pixels = image[..., c].astype(int)
      low, high = pixels.min(), pixels.max()
      if low == high:
        np.testing.assert_array_equal(got[..., c], pixels)
        continue
      assert (got[..., c].min(), got[..., c].max()) == (0, 255)
      _agrees_but_for_whole_numbers(
          got[..., c], 255 * (pixels - low), high - low,
          _pillow('autocontrast', 0, 1, image)[..., c].astype(int))


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('name', ENHANCERS)
def test_enhancements_are_pillows(name, size):
  images = _photographs(size)
  for level in range(10):
    for sign in (1, -1):
      ours = _ours(name, level, sign, images)
      for image, got in zip(images, ours, strict=True):
        base = np.asarray(ENHANCERS[name](
            Image.fromarray(image)).enhance(0)).astype(int)
        blend = 10 * base + (10 + sign * level) * (image - base)
        _agrees_but_for_whole_numbers(
            got, blend, 10, _pillow(name, level, sign, image).astype(int))


def test_level_0_changes_nothing_that_has_levels():
  images = _photographs()
  for name in ('shear_y', 'translate_x', 'translate_y', 'rotate', 'posterize',
               *ENHANCERS):
    np.testing.assert_array_equal(_ours(name, 0, 1, images), images)


# Table 7 of the paper.
PUBLISHED = """
Invert 0.1 7 Contrast 0.2 6
Rotate 0.7 2 TranslateX 0.3 9
Sharpness 0.8 1 Sharpness 0.9 3
ShearY 0.5 8 TranslateY 0.7 9
AutoContrast 0.5 8 Equalize 0.9 2
ShearY 0.2 7 Posterize 0.3 7
Color 0.4 3 Brightness 0.6 7
Sharpness 0.3 9 Brightness 0.7 9
Equalize 0.6 5 Equalize 0.5 1
Contrast 0.6 7 Sharpness 0.6 5
Color 0.7 7 TranslateX 0.5 8
Equalize 0.3 7 AutoContrast 0.4 8
TranslateY 0.4 3 Sharpness 0.2 6
Brightness 0.9 6 Color 0.2 8
Solarize 0.5 2 Invert 0.0 3
Equalize 0.2 0 AutoContrast 0.6 0
Equalize 0.2 8 Equalize 0.6 4
Color 0.9 9 Equalize 0.6 6
AutoContrast 0.8 4 Solarize 0.2 8
Brightness 0.1 3 Color 0.7 0
Solarize 0.4 5 AutoContrast 0.9 3
TranslateY 0.9 9 TranslateY 0.7 9
AutoContrast 0.9 2 Solarize 0.8 3
Equalize 0.8 8 Invert 0.1 3
TranslateY 0.7 9 AutoContrast 0.9 1
"""
NAMES = {'ShearY': 'shear_y', 'TranslateX': 'translate_x',
         'TranslateY': 'translate_y'}
DRAWS = 20000


def _outcomes(image):
  """Every image that the published policy makes of one, and how often."""
  shares = collections.Counter()
  for line in PUBLISHED.split('\n')[1:-1]:
    fields = line.split()
    paths = [(1 / 25, image)]
    for name, probability, level in (fields[:3], fields[3:]):
      name = NAMES.get(name, name.lower())
      after = []
      for share, before in paths:
        after.append((share * (1 - float(probability)), before))
        after += [
            (share * float(probability) / 2,
             _ours(name, int(level), sign, before[None])[0])
            for sign in (1, -1)]
      paths = after
    for share, result in paths:
      shares[result.tobytes()] += share
  return shares


def test_the_policy_is_the_published_one():
  image = _noise(1, (16, 16), seed=1)[0] // 2 + 20
  shares = _outcomes(image)
  assert sum(shares.values()) == pytest.approx(1)
  out = np.asarray(jax.jit(augment.autoaugment)(
      jax.random.key(0), jnp.asarray(np.repeat(image[None], DRAWS, 0))))
  counts = collections.Counter(result.tobytes() for result in out)
  assert set(counts) <= set(shares)
  assert len(shares) > 80
  for result, share in shares.items():
    deviation = (DRAWS * share * (1 - share))**0.5
    assert abs(counts[result] - DRAWS * share) <= 5 * deviation


def test_images_are_drawn_for_one_by_one():
  images = jnp.asarray(np.repeat(_noise(1), 64, 0))
  out = np.asarray(jax.jit(augment.autoaugment)(jax.random.key(0), images))
  assert len({image.tobytes() for image in out}) > 20


@pytest.mark.parametrize('images', [
    jnp.zeros((2, 8, 8, 1), jnp.uint8), jnp.zeros((2, 8, 8, 3), jnp.float32)])
def test_autoaugment_takes_coloured_bytes(images):
  with pytest.raises(ValueError) as caught:
    augment.make('autoaugment')(jax.random.key(0), images, jnp.arange(2))
  for part in ('autoaugment', str(images.shape), str(images.dtype),
               'expected 3 channels of uint8'):
    assert part in str(caught.value)


# ---- CutMix. Image i is filled with the value i, and its label is 100 + i.

BATCH = 12


def _cutmix(key, size=(20, 30), p=1.0):
  values = np.arange(BATCH, dtype=np.uint8)[:, None, None, None]
  images = jnp.asarray(np.broadcast_to(values, (BATCH, *size, 2)))
  return augment.make(f'cutmix(p={p})')(key, images, 100 + jnp.arange(BATCH))


@pytest.mark.parametrize('seed', range(20))
def test_labels_count_as_their_pixels(seed):
  images, labels = jax.tree.map(np.asarray, _cutmix(jax.random.key(seed)))
  assert images.dtype == np.uint8
  assert labels.weight.dtype == np.float32
  np.testing.assert_array_equal(labels.first, 100 + np.arange(BATCH))
  assert sorted(labels.second) == sorted(labels.first)
  assert len(set(labels.weight)) == 1
  boxes = set()
  for i, image in enumerate(images):
    own, other = (label[i] - 100 for label in (labels.first, labels.second))
    if own == other:
      assert (image == own).all()
      continue
    assert (image[..., 0] == image[..., 1]).all()
    pasted = image[..., 0] == other
    assert ((image[..., 0] == own) | pasted).all()
    assert 1 - pasted.mean() == pytest.approx(labels.weight[i], abs=1e-6)
    rows, columns = pasted.any(1), pasted.any(0)
    np.testing.assert_array_equal(pasted, rows[:, None] & columns)
    for line in (rows, columns):  # in one piece
      assert np.abs(np.diff(line.astype(int), prepend=0, append=0)).sum() <= 2
    boxes.add(pasted.tobytes())
  assert len(boxes) == 1


def test_the_box_is_as_large_as_published():
  height, width, count = 20, 30, 4000
  keys = jax.random.split(jax.random.key(1), count)
  weights = np.asarray(jax.jit(jax.vmap(
      lambda key: _cutmix(key, (height, width))[1].weight[0]))(keys))

  u = (np.arange(5000) + 0.5) / 5000
  lengths = []
  for side in (height, width):
    half = (side * np.sqrt(u)).astype(int) // 2
    centre = np.arange(side)
    low = np.maximum(centre - half[:, None], 0)
    high = np.minimum(centre + half[:, None], side)
    lengths.append((high - low) / side)
  first, second = (np.stack([x.mean(1), (x**2).mean(1)]) for x in lengths)
  mean, square = (first * second).mean(1)
  error = ((square - mean**2) / count)**0.5
  assert abs((1 - weights).mean() - mean) < 5 * error


@pytest.mark.parametrize('p', [0.0, 0.3, 0.5, 1.0])
def test_a_batch_is_mixed_with_probability_p(p):
  side, count = 64, 2000
  keys = jax.random.split(jax.random.key(2), count)
  images, labels = jax.jit(jax.vmap(
      lambda key: _cutmix(key, (side, side), p)))(keys)
  mixed = np.asarray(labels.weight[:, 0]) < 1
  share = p * (1 - (2 / side)**2)  # a box of less than two pixels is none
  assert abs(mixed.sum() - count * share) <= 5 * (
      count * share * (1 - share))**0.5
  for batch in np.asarray(images)[~mixed][:5]:
    assert (batch == np.arange(BATCH)[:, None, None, None]).all()


@pytest.mark.parametrize('p, nearest', [(1.5, '1'), (-0.1, '0')])
def test_a_probability_lies_between_0_and_1(p, nearest):
  with pytest.raises(ValueError, match=f'p {p}.*nearest: {nearest}$'):
    augment.make(f'cutmix(p={p})')


# ---- Expressions.

EVERYTHING = 'crop_flip + autoaugment + cutmix(p=1.0)'


def test_none_is_none():
  assert augment.make('none') is None


@pytest.mark.parametrize('expression', ['crop_flip', 'flip', 'autoaugment'])
def test_an_image_that_is_not_mixed_has_one_label(expression):
  labels = jnp.arange(16)
  _, mixed = augment.make(expression)(
      jax.random.key(0), jnp.asarray(_noise(16)), labels)
  np.testing.assert_array_equal(mixed.first, labels)
  np.testing.assert_array_equal(mixed.second, labels)
  np.testing.assert_array_equal(mixed.weight, np.ones(16, np.float32))


def test_the_first_stage_has_the_key_itself():
  images, labels = jnp.asarray(_noise(16)), jnp.arange(16)
  key = jax.random.key(3)
  want = augment.crop_flip(key, images)
  for expression in ('crop_flip', 'crop_flip + cutmix(p=0.0)'):
    got, _ = augment.make(expression)(key, images, labels)
    np.testing.assert_array_equal(got, want)


def test_stages_are_applied_in_their_order(monkeypatch):
  for name, change in (('double', lambda x: x * 2), ('add', lambda x: x + 1)):
    monkeypatch.setitem(
        augment.AUGMENTATIONS, name,
        lambda change=change: lambda key, x, labels: (change(x), labels))
  images, labels = jnp.full((1, 8, 8, 3), 10, jnp.uint8), jnp.arange(1)
  for expression, value in (('double + add', 21), ('add + double', 22),
                            ('double + none + double', 40)):
    got, _ = augment.make(expression)(jax.random.key(0), images, labels)
    np.testing.assert_array_equal(got, np.full_like(images, value))


def test_stages_have_keys_of_their_own():
  images, labels = jnp.asarray(_noise(64)), jnp.arange(64)
  key = jax.random.key(0)
  once, twice = (
      augment.make(expression)(key, images, labels)[0]
      for expression in ('crop_flip', 'crop_flip + crop_flip'))
  again = augment.crop_flip(key, once)
  assert (np.asarray(twice) != np.asarray(again)).any((1, 2, 3)).sum() > 32


def test_a_seed_sees_the_same_in_any_company():
  images, labels = _noise(3 * 8).reshape(3, 8, 32, 32, 3), np.arange(8)
  fn = augment.make(EVERYTHING)
  keys = jax.random.split(jax.random.key(7), 3)
  together = jax.jit(jax.vmap(fn, (0, 0, None)))(keys, images, labels)
  for i in range(3):
    alone = jax.jit(fn)(keys[i], images[i], labels)
    jax.tree.map(np.testing.assert_array_equal, alone,
                 jax.tree.map(lambda leaf, i=i: leaf[i], together))


def test_eight_devices_see_the_same_as_one():
  images, labels = jnp.asarray(_noise(16)), jnp.arange(16)
  fn = jax.jit(augment.make(EVERYTHING))
  want = fn(jax.random.key(0), images, labels)
  mesh = jax.make_mesh(
      (8,), ('batch',), axis_types=(jax.sharding.AxisType.Auto,))
  split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('batch'))
  got = fn(jax.random.key(0), *jax.device_put((images, labels), split))
  jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize('expression, parts', [
    ('crop', ["unknown augmentation 'crop'", "'crop_flip'"]),
    ('crop_flip + cutmx', ["'cutmx'", "did you mean 'cutmix'"]),
    ('cutmix(q=0.5)', ["'cutmix' has no option 'q'", 'known: p']),
    ('crop_flip(pad=2)', ['crop_flip(pad=2)']),
    ('cutmix + cutmix(p=0.1)', ['mixes twice', 'use cutmix once']),
    ('crop_flip+cutmix', ["'crop_flip+cutmix' is not a name"]),
])
def test_a_wrong_expression_is_named(expression, parts):
  with pytest.raises(ValueError) as caught:
    augment.make(expression)
  for part in parts:
    assert part in str(caught.value)


# ---- Crops and mirror images.


def _moves(image):
  """Every shift and mirror image that there may be, by what was done."""
  side = len(image)
  padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
  return {(i, j, mirror): padded[i:i + side, j:j + side][:, ::mirror]
          for i in range(9) for j in range(9) for mirror in (1, -1)}


@pytest.mark.parametrize('channels', [1, 3])
def test_moves_are_drawn_evenly(channels):
  image = _noise(1, (8, 8))[0, ..., :channels] // 2 + 1
  images = jnp.asarray(np.repeat(image[None], 4000, 0))
  out = np.asarray(jax.jit(augment.crop_flip)(jax.random.key(0), images))
  assert out.dtype == np.uint8
  table = {x.tobytes(): move for move, x in _moves(image).items()}
  moves = np.array([table[image.tobytes()] for image in out])
  for axis, values in ((0, range(9)), (1, range(9)), (2, (-1, 1))):
    counts = [int((moves[:, axis] == value).sum()) for value in values]
    share = 1 / len(counts)
    deviation = (4000 * share * (1 - share))**0.5
    assert max(abs(count - 4000 * share) for count in counts) < 5 * deviation
