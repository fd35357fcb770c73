"""Random values on a mask, and products of rotations: exact and sparse."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import structinit_jax as si
from structinit_jax import pruning
from structinit_jax import sao
from structinit_jax.pruning import initializers

KEY = jax.random.key(6)
RANDOM = {'normal': pruning.normal, 'uniform': pruning.uniform}
# Each law with its scale divided out, by scipy.
LAWS = {
    ('normal', 'none'): scipy.stats.norm(0, 1),
    ('normal', 'fan_in'): scipy.stats.norm(0, 1),
    ('uniform', 'none'): scipy.stats.uniform(0, 1),
    ('uniform', 'fan_in'): scipy.stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)),
}
every_law = pytest.mark.parametrize('name, scale', LAWS)


def double(x):
  return np.asarray(x, np.float64)


@every_law
def test_values_have_their_law_on_the_mask(name, scale):
  """Unequal splits too: outputs with 10 inputs, and some with 11."""
  like = sao.orthogonal(degree=10, kind='random')
  init = RANDOM[name](like, scale=scale, gain=1.5)
  shape = (407, 333)
  kernel, mask = double(init(KEY, shape)), like.aux(KEY, shape)['mask']
  np.testing.assert_array_equal(kernel != 0, mask)
  np.testing.assert_array_equal(init.aux(KEY, shape)['mask'], mask)
  inputs = np.asarray(mask).sum(axis=0)
  assert set(inputs) == {10, 11}
  if scale == 'fan_in':
    kernel = kernel * np.sqrt(inputs)
  values = kernel[np.asarray(mask)] / 1.5
  assert scipy.stats.kstest(values, LAWS[name, scale].cdf).pvalue > 1e-3
  for count in (10, 11):
    some = values[np.broadcast_to(inputs == count, shape)[np.asarray(mask)]]
    assert scipy.stats.kstest(some, LAWS[name, scale].cdf).pvalue > 1e-3


@pytest.mark.parametrize('name', RANDOM)
def test_scaled_values_keep_the_variance(name):
  init = RANDOM[name](sao.orthogonal(degree=16), scale='fan_in')
  kernel = double(init(KEY, (512, 512)))
  assert abs(np.sum(kernel**2) / 512 - 1) < 0.05


@every_law
def test_all_taps_of_a_kept_kernel_are_drawn(name, scale):
  like = sao.delta_orthogonal(degree=4)
  init = RANDOM[name](like, scale=scale)
  kernel = double(init(KEY, (3, 3, 32, 64)))
  mask = np.asarray(like.aux(KEY, (3, 3, 32, 64))['mask'])
  np.testing.assert_array_equal(kernel != 0, mask)
  want = LAWS[name, scale].var() + LAWS[name, scale].mean()**2
  if scale == 'fan_in':
    want /= 9 * 4
  np.testing.assert_allclose(np.mean(kernel[mask]**2), want, rtol=0.1)


def test_raw_values_are_far_from_an_isometry():
  """Where SAO has 1: about sqrt(c d) / 2, and sqrt(c) + sqrt(d)."""
  like = sao.orthogonal(degree=64)
  largest = {
      name: np.linalg.svd(double(init(like)(KEY, (256, 256))),
                          compute_uv=False)[0]
      for name, init in RANDOM.items()}
  assert abs(largest['uniform'] / 32 - 1) < 0.1
  assert abs(largest['normal'] / 16 - 1) < 0.15


@pytest.mark.optimized
@pytest.mark.parametrize('name', RANDOM)
def test_random_values_by_jit_and_dtype(name):
  init = RANDOM[name](sao.orthogonal(degree=4), scale='fan_in')
  x = init(KEY, (16, 24))
  assert x.dtype == jnp.float32
  np.testing.assert_array_equal(jax.jit(lambda k: init(k, (16, 24)))(KEY), x)
  assert init(KEY, (0, 4)).shape == (0, 4)
  with jax.enable_x64(True):
    np.testing.assert_array_equal(init(KEY, (16, 24), jnp.float32), x)
    y = double(init(KEY, (16, 24), jnp.float64))
    assert (y != y.astype(np.float32)).any()


@pytest.mark.parametrize('name', RANDOM)
def test_random_values_refuse(name):
  like = sao.orthogonal(degree=4)
  with pytest.raises(ValueError, match=r'no `aux`.*si\.sao\.orthogonal'):
    RANDOM[name](jax.nn.initializers.orthogonal())
  with pytest.raises(ValueError, match="'fan_out' is unknown; use none or fan"):
    RANDOM[name](like, scale='fan_out')
  for gain in (0, -1, math.inf, math.nan):
    with pytest.raises(ValueError, match='positive, finite'):
      RANDOM[name](like, gain=gain)
  with pytest.raises(ValueError, match='zeros has no mask'):
    RANDOM[name](si.zeros)(KEY, (4, 4))
  with pytest.raises(ValueError, match='2 axes'):
    RANDOM[name](like)(KEY, (4,))


def test_labels_say_which_scale():
  like = sao.orthogonal(degree=4)
  assert repr(pruning.normal(like)) == (
      "pruning.normal(sao.orthogonal(degree=4), scale='none')")
  assert repr(pruning.uniform(like, scale='fan_in', gain=1.1)) == (
      "pruning.uniform(sao.orthogonal(degree=4), scale='fan_in', gain=1.1)")
  assert repr(pruning.givens(density=0.1)) == 'pruning.givens(density=0.1)'
  assert repr(pruning.givens(density=0.1, gain=2)) == (
      'pruning.givens(density=0.1, gain=2.0)')


@functools.cache
def kernel_and_mask(shape, density, dtype=jnp.float32, gain=1.0):
  init = pruning.givens(density=density, gain=gain)
  return init(KEY, shape, dtype), np.asarray(init.aux(KEY, shape)['mask'])


GIVENS = [
    ((256, 256), 0.03), ((24, 64), 0.2), ((16, 16), 1.0), ((1, 1), 1.0)]
every_size = pytest.mark.parametrize('shape, density', GIVENS)


@every_size
def test_rotations_are_orthogonal(shape, density):
  values = np.linalg.svd(
      double(kernel_and_mask(shape, density)[0]), compute_uv=False)
  assert np.abs(values - 1).max() <= 5e-7


@every_size
def test_rotations_meet_the_density(shape, density):
  kernel, mask = kernel_and_mask(shape, density)
  assert abs(mask.mean() - density) <= 0.5 / max(shape) + 1e-12
  np.testing.assert_array_equal(np.asarray(kernel) != 0, mask)


@every_size
def test_the_support_is_that_of_the_rotations(shape, density):
  """Replayed in NumPy: unions of rows, until no more rotation is nearer."""
  size, rank = max(shape), min(shape)
  target = round(density * size * rank)
  key = jax.random.split(KEY)[0]
  mask = np.eye(size, rank, dtype=bool)
  step = 0
  while mask.sum() < target:
    i, j = map(int, initializers._pair(key, jnp.array(step), size))
    assert i != j
    assert 0 <= min(i, j) <= max(i, j) < size
    after = mask.copy()
    after[[i, j]] = mask[i] | mask[j]
    assert after.sum() - mask.sum() <= rank
    if after.sum() - target > target - mask.sum():
      break
    mask, step = after, step + 1
    if step > 60:  # each one is a call
      return
  got = kernel_and_mask(shape, density)[1]
  np.testing.assert_array_equal(got, mask if shape[0] == size else mask.T)


def test_pairs_are_uniform():
  draw = jax.jit(jax.vmap(lambda step: initializers._pair(KEY, step, 5)))
  first, second = map(np.asarray, draw(jnp.arange(8000)))
  counts = np.bincount(5 * first + second, minlength=25).reshape(5, 5)
  assert not counts.diagonal().any()
  assert scipy.stats.chisquare(counts[~np.eye(5, dtype=bool)]).pvalue > 1e-3


def test_rotations_in_float64():
  with jax.enable_x64(True):
    kernel, mask = kernel_and_mask((64, 24), 0.2, jnp.float64)
    values = np.linalg.svd(np.asarray(kernel), compute_uv=False)
    assert np.abs(values - 1).max() <= 1e-12
    np.testing.assert_array_equal(np.asarray(kernel) != 0, mask)
    init = pruning.givens(density=0.2)
    single = init(KEY, (64, 24), jnp.float32)
  np.testing.assert_array_equal(single, init(KEY, (64, 24)))
  np.testing.assert_array_equal(init.aux(KEY, (64, 24))['mask'], mask)


@pytest.mark.parametrize('shape, centre', [
    ((3, 3, 24, 64), (1, 1)), ((2, 5, 24, 64), (0, 2))])
def test_rotations_of_a_convolution(shape, centre):
  kernel, mask = kernel_and_mask(shape, 0.2, gain=2.0)
  kernel = double(kernel)
  assert (kernel != 0).sum() == (kernel[centre] != 0).sum()
  values = np.linalg.svd(kernel[centre], compute_uv=False)
  assert np.abs(values / 2 - 1).max() <= 5e-7
  # Whole kernels are kept: the taps that are 0 train.
  np.testing.assert_array_equal(
      mask, np.broadcast_to(kernel[centre] != 0, shape))


def test_rotations_under_jit_and_in_a_partition():
  init, shape = pruning.givens(density=0.2), (24, 64)
  kernel, mask = jax.jit(lambda k: (init(k, shape), init.aux(k, shape)))(KEY)
  np.testing.assert_array_equal(kernel, kernel_and_mask(shape, 0.2)[0])
  np.testing.assert_array_equal(
      mask['mask'], kernel_and_mask(shape, 0.2)[1])
  params, aux = si.partition([('.*', init)]).init_with_aux(
      KEY, {'w': jax.ShapeDtypeStruct(shape, jnp.float32)})
  np.testing.assert_array_equal(params['w'] != 0, aux['masks']['w'])


@pytest.mark.parametrize('shape', [(0, 4), (4, 0), (0, 3, 4, 4)])
def test_rotations_of_nothing(shape):
  init = pruning.givens(density=0.5)
  assert init(KEY, shape).shape == shape
  assert init.aux(KEY, shape) == {}


def test_a_density_of_16_bits_is_as_any():
  one, other = (
      pruning.givens(density=x).aux(KEY, (512, 512))['mask']
      for x in (1 / 512, np.float16(1 / 512)))
  np.testing.assert_array_equal(one, other)


def test_rotations_refuse():
  for density in (0, -0.1, 1.1, math.nan, '0.5', None):
    with pytest.raises(ValueError, match='above 0 and at most 1'):
      pruning.givens(density=density)
  for gain in (0, math.nan):
    with pytest.raises(ValueError, match='positive, finite'):
      pruning.givens(density=0.5, gain=gain)
  init = pruning.givens(density=0.01)
  with pytest.raises(ValueError, match=r'32 orthogonal .* works is 0\.015625'):
    init(KEY, (64, 32))
  with pytest.raises(ValueError, match='at least 2 axes'):
    init(KEY, (64,))
  assert pruning.givens(density=0.015625)(KEY, (64, 32)).shape == (64, 32)
