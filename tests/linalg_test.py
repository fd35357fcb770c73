"""Orthogonal matrices and angles, against float64 numpy and scipy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from structinit_jax import linalg

KEY = jax.random.key(11)
haar = jax.jit(linalg.haar, static_argnums=(1, 2))


def gram_error(q):
  """Returns the largest entry of `Q^T Q - I` (of `Q Q^T - I`, if wide)."""
  q = np.asarray(q, np.float64)
  if q.shape[-2] < q.shape[-1]:
    q = np.swapaxes(q, -1, -2)
  gram = np.swapaxes(q, -1, -2) @ q - np.eye(q.shape[-1])
  return np.max(np.abs(gram), initial=0)


@pytest.mark.parametrize('shape', [
    (0, 0), (0, 3), (3, 0), (1, 1), (1, 4), (4, 1), (8, 3), (3, 8), (100, 40),
    (2, 1, 3, 5), (0, 4, 3)])
def test_haar_is_orthonormal(shape):
  q = haar(KEY, shape)
  assert q.shape == shape
  assert q.dtype == jnp.float32
  assert gram_error(q) <= 1e-6 * math.sqrt(max(shape))


@pytest.mark.parametrize('shape', [(3, 8), (100, 40)])
def test_haar_in_float64(shape):
  with jax.enable_x64(True):
    q = haar(KEY, shape, jnp.float64)
    assert q.dtype == jnp.float64
    assert gram_error(q) < 1e-13
    default = jax.eval_shape(lambda: linalg.haar(KEY, shape))
  assert default.dtype == jnp.float32


def test_haar_columns_of_a_batch_differ():
  q = np.asarray(haar(KEY, (3, 4, 2)))
  assert len({one.tobytes() for one in q}) == 3


SAMPLES = 4000


def sample_haar():
  return linalg.haar(KEY, (SAMPLES, 3, 3))


def sample_wide():
  return linalg.haar(KEY, (SAMPLES, 3, 4))


def sample_rotations():
  keys = jax.random.split(KEY, SAMPLES)
  return jax.vmap(lambda key: linalg.haar_rotate(key, jnp.eye(3)))(keys)


@functools.cache
def drawn(sample):
  return np.asarray(jax.jit(sample)(), np.float64)


every_sample = pytest.mark.parametrize(
    'sample', [sample_haar, sample_rotations, sample_wide])


@every_sample
def test_moments_are_those_of_haar_measure(sample):
  """Means within 5 standard errors. LAPACK's own Q fails the first."""
  q = drawn(sample)
  m = max(q.shape[1:])
  error = 5 / math.sqrt(SAMPLES)
  np.testing.assert_allclose(
      q.mean(0), 0, atol=error * math.sqrt(1 / m))
  variance = 3 / (m * (m + 2)) - 1 / m**2  # of a squared entry
  np.testing.assert_allclose(
      (q**2).mean(0), 1 / m, atol=error * math.sqrt(variance))


@every_sample
def test_an_entry_has_the_distribution_of_a_uniform_unit_vector(sample):
  # x^2 of a uniform unit vector of R^m is Beta(1/2, (m-1)/2) distributed.
  q = drawn(sample)
  m = max(q.shape[1:])
  beta = scipy.stats.beta(0.5, (m - 1) / 2)
  for row, column in [(0, 0), (1, 2), (2, 1), (2, 2)]:
    entries = q[:, row, column]
    assert scipy.stats.kstest(entries**2, beta.cdf).pvalue > 1e-4
    positive = np.sum(entries > 0)
    assert scipy.stats.binomtest(positive, SAMPLES).pvalue > 1e-4


@pytest.mark.parametrize('sample', [sample_haar, sample_rotations])
def test_the_rotation_angle_is_that_of_haar_measure(sample):
  """O(3): fair determinant; the angle has density (1 - cos) / pi."""
  q = drawn(sample)
  determinant = np.linalg.det(q)
  np.testing.assert_allclose(np.abs(determinant), 1, atol=1e-5)
  positive = np.sum(determinant > 0)
  assert scipy.stats.binomtest(positive, SAMPLES).pvalue > 1e-4
  trace = np.trace(q, axis1=1, axis2=2)
  # E tr = 0 and E tr^2 = 1 on O(m); tr^2 is at most 9.
  assert abs(trace.mean()) < 5 / math.sqrt(SAMPLES)
  assert abs((trace**2).mean() - 1) < 5 * math.sqrt(2 / SAMPLES)
  angle = np.arccos(np.clip((np.sign(determinant) * trace - 1) / 2, -1, 1))
  assert scipy.stats.kstest(
      angle, lambda x: (x - np.sin(x)) / np.pi).pvalue > 1e-4


@jax.jit
def rotate_each(*xs):
  """Applies one and the same rotation to all."""
  return [linalg.haar_rotate(KEY, x) for x in xs]


@pytest.mark.parametrize('shape', [
    (1, 1), (1, 5), (6, 20), (40, 12), (3, 0), (0, 3), (0, 0)])
def test_haar_rotate_applies_an_orthogonal_matrix(shape):
  x = np.random.default_rng(0).normal(size=shape)
  q, rotated = (np.asarray(y, np.float64) for y in rotate_each(
      jnp.eye(shape[0]), jnp.asarray(x, jnp.float32)))
  assert gram_error(q) <= 1e-6 * math.sqrt(shape[0])
  assert rotated.shape == shape
  scale = np.linalg.norm(x)
  np.testing.assert_allclose(rotated, q @ x, rtol=0, atol=1e-6 * scale)
  np.testing.assert_allclose(
      rotated.T @ rotated, x.T @ x, rtol=0, atol=2e-6 * scale**2)


def test_haar_rotate_in_float64():
  with jax.enable_x64(True):
    x = haar(KEY, (20, 6), jnp.float64)
    rotated, q = rotate_each(x, jnp.eye(20))
    assert rotated.dtype == jnp.float64
    assert gram_error(rotated) < 1e-13
  np.testing.assert_allclose(
      rotated, np.asarray(q) @ np.asarray(x), rtol=0, atol=1e-14)


def test_matmul_is_exact_to_the_dtype():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 3, 50)), rng.normal(size=(2, 50, 4))
  got = linalg.matmul(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
  np.testing.assert_allclose(got, a @ b, atol=1e-5)


def with_singular_values(values, shape, seed=0):
  rng = np.random.default_rng(seed)
  k = len(values)
  left = np.linalg.qr(rng.normal(size=(shape[0], k)))[0]
  right = np.linalg.qr(rng.normal(size=(k, k)))[0]
  return left * np.asarray(values) @ right.T


@pytest.mark.parametrize('values', [
    [1., 1., 1.], [0.5, 1., 1.5], [0.9, 1.1, 1.3], [0.2, 0.8, 1.7]])
def test_newton_schulz_maps_singular_values_and_keeps_vectors(values):
  x = with_singular_values(values, (7, 3))
  once = np.asarray(
      linalg.newton_schulz(jnp.asarray(x, jnp.float32)), np.float64)
  want = np.asarray(values) * (3 - np.asarray(values)**2) / 2
  np.testing.assert_allclose(
      np.linalg.svd(once, compute_uv=False), np.sort(want)[::-1], atol=1e-6)
  polar = scipy.linalg.polar(x)[0]
  many = linalg.newton_schulz(jnp.asarray(x, jnp.float32), 20)
  np.testing.assert_allclose(many, polar, atol=2e-6)


@pytest.mark.parametrize('error', [1e-2, 1e-1])
def test_newton_schulz_squares_the_error(error):
  with jax.enable_x64(True):
    for sign in (-1, 1):
      x = with_singular_values([math.sqrt(1 + sign * error), 1.], (5, 2))
      y = np.asarray(linalg.newton_schulz(jnp.asarray(x)))
      left = y.T @ y - np.eye(2)
      # e becomes -3/4 e^2 + 1/4 e^3.
      np.testing.assert_allclose(
          np.linalg.norm(left, 2), abs(-3 * error**2 + sign * error**3) / 4,
          rtol=1e-6)


def test_newton_schulz_of_a_batch_and_of_no_steps():
  x = np.stack([with_singular_values([0.9, 1.1], (4, 2), s) for s in range(3)])
  x = jnp.asarray(x, jnp.float32)
  np.testing.assert_array_equal(linalg.newton_schulz(x, 0), x)
  for got, one in zip(linalg.newton_schulz(x, 6), x, strict=True):
    np.testing.assert_allclose(got, scipy.linalg.polar(one)[0], atol=1e-6)


def pair_with_angles(angles, dim, seed):
  """Returns float64 frames whose principal angles are the given ones."""
  rng = np.random.default_rng(seed)
  k = len(angles)
  q = np.linalg.qr(rng.normal(size=(dim, 2 * k)))[0]
  s, t = q[:, :k], q[:, :k] * np.cos(angles) + q[:, k:] * np.sin(angles)
  bases = [np.linalg.qr(rng.normal(size=(k, k)))[0] for _ in range(2)]
  return s @ bases[0], t @ bases[1]


ANGLES = [
    [1e-4], [math.pi / 2 - 1e-4], [1e-4, math.pi / 2 - 1e-4],
    [1e-4, 1e-3, 1e-2], [0.1, 0.7, 1.5], [0.3, 0.3, 0.3],
    [0., 0.5, math.pi / 2], [0., 0.], [math.pi / 2] * 2, [1e-6, 1e-5],
    [math.pi / 2 - 1e-5, math.pi / 2 - 1e-6]]
angles_of = jax.jit(linalg.principal_angles)


@pytest.mark.parametrize('angles', ANGLES, ids=str)
def test_principal_angles_in_float32(angles):
  s, t = pair_with_angles(angles, 8, 0)
  got = angles_of(jnp.asarray(s, jnp.float32), jnp.asarray(t, jnp.float32))
  assert got.shape == (len(angles),)
  # The frames themselves are rounded: a few units of 6e-8 is all one can ask.
  # The formula arccos(svd(S^T T)) is off by 3e-4.
  np.testing.assert_allclose(got, angles, rtol=0, atol=4e-7)


@pytest.mark.parametrize(
    'angles', [*ANGLES, [1e-8, 1e-7], [1e-10, 1., 1.5]], ids=str)
def test_principal_angles_in_float64(angles):
  s, t = pair_with_angles(angles, 8, 1)
  with jax.enable_x64(True):
    got = np.asarray(angles_of(jnp.asarray(s), jnp.asarray(t)))
  # Stricter than `scipy.linalg.subspace_angles`, which is off by 4e-12 here.
  np.testing.assert_allclose(got, angles, rtol=0, atol=4e-15)


@pytest.mark.parametrize('dim, rank', [(1, 1), (5, 1), (5, 4), (4, 4), (9, 3)])
def test_principal_angles_of_random_subspaces(dim, rank):
  """Also where 2 k > m, so that subspaces intersect."""
  rng = np.random.default_rng(dim * rank)
  s, t = (np.linalg.qr(rng.normal(size=(3, dim, rank)))[0] for _ in range(2))
  got = angles_of(jnp.asarray(s, jnp.float32), jnp.asarray(t, jnp.float32))
  want = [np.sort(scipy.linalg.subspace_angles(a, b))
          for a, b in zip(s, t, strict=True)]
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
  assert np.all(np.diff(got) >= 0)
