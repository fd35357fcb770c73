"""Distances of subspaces, against float64 and the axioms of a metric."""

import math

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import structinit_jax as si

METRICS = ['chordal', 'fubini_study']
FUNCTIONS = {
    'chordal': jax.jit(si.grassmann.chordal_distance),
    'fubini_study': jax.jit(si.grassmann.fubini_study_distance)}
pairwise = jax.jit(
    si.grassmann.pairwise_distances, static_argnames='distance')
every_metric = pytest.mark.parametrize('metric', METRICS)
few = settings(max_examples=15, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)


def random_frames(seed, shape):
  q = np.linalg.qr(np.random.default_rng(seed).normal(size=shape))[0]
  return q.astype(np.float32)


def pair_with_angles(angles, dim, seed=0, dtype=np.float32):
  rng = np.random.default_rng(seed)
  k = len(angles)
  q = np.linalg.qr(rng.normal(size=(dim, 2 * k)))[0]
  basis = np.linalg.qr(rng.normal(size=(k, k)))[0]
  s, t = q[:, :k], q[:, :k] * np.cos(angles) + q[:, k:] * np.sin(angles)
  return s.astype(dtype), (t @ basis).astype(dtype)


def exact(angles, metric):
  """The distance in float64, with no cancellation."""
  sines2 = np.sin(angles)**2
  if metric == 'chordal':
    return math.sqrt(np.sum(sines2))
  if np.any(sines2 > 0.9):
    return math.acos(np.prod(np.cos(angles)))
  # By half the angle: 2 sin^2(d / 2) = 1 - cos(d).
  one_minus_cosine = -np.expm1(np.sum(np.log1p(-sines2)) / 2)
  return 2 * math.asin(math.sqrt(one_minus_cosine / 2))


@every_metric
@pytest.mark.parametrize('dim, rank', [(5, 1), (7, 3), (5, 4), (4, 4)])
def test_distances_of_random_subspaces(metric, dim, rank, oracle):
  s, t = random_frames(rank, (2, 6, dim, rank))
  got = FUNCTIONS[metric](s, t)
  assert got.shape == (6,)
  assert got.dtype == jnp.float32
  want = [oracle[metric](a, b) for a, b in zip(s, t, strict=True)]
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


NEAR = [[1e-5], [1e-5] * 3, [1e-5, 2e-5, 3e-5], [1e-6, 1e-4, 1e-2], [0., 1e-5]]
FAR = [[math.pi / 2 - e] for e in (0, 1e-7, 1e-5, 1e-3)] + [
    [math.pi / 2 - 1e-5] * 3, [0.2, 1., math.pi / 2 - 1e-5],
    [math.pi / 2] * 2, [0., math.pi / 2]]


@every_metric
@pytest.mark.parametrize('angles', NEAR + FAR, ids=str)
def test_subspaces_nearly_equal_or_nearly_orthogonal(metric, angles):
  s, t = pair_with_angles(angles, 8)
  got = FUNCTIONS[metric](s, t)
  # Frames are rounded to 6e-8, and so are the subspaces. The formulas of the
  # definitions are off by 3e-4 here.
  np.testing.assert_allclose(got, exact(angles, metric), rtol=0, atol=5e-7)


@every_metric
@pytest.mark.parametrize('angles', [
    *NEAR, *FAR, [1e-9], [1e-8, 1e-9], [1e-9, 1e-5], [0.2, 0.3]], ids=str)
def test_in_float64(metric, angles):
  s, t = pair_with_angles(angles, 8, seed=1, dtype=np.float64)
  with jax.enable_x64(True):
    got = FUNCTIONS[metric](jnp.asarray(s), jnp.asarray(t))
    assert got.dtype == jnp.float64
  np.testing.assert_allclose(got, exact(angles, metric), rtol=0, atol=5e-15)


@every_metric
@given(seed=seeds)
@few
def test_metric_axioms_and_invariances(metric, seed):
  distance = FUNCTIONS[metric]
  s, t, u = random_frames(seed, (3, 6, 2))
  st_, tu, su = (float(distance(*p)) for p in [(s, t), (t, u), (s, u)])
  assert su <= st_ + tu + 1e-6
  assert 0 <= st_ <= (math.sqrt(2) if metric == 'chordal' else math.pi / 2)
  np.testing.assert_allclose(distance(t, s), st_, rtol=0, atol=1e-6)
  np.testing.assert_allclose(distance(s, s), 0, atol=1e-6)
  rotation = random_frames(seed + 1, (6, 6))
  bases = random_frames(seed + 2, (2, 2, 2))
  np.testing.assert_allclose(
      distance(rotation @ s, rotation @ t), st_, rtol=0, atol=2e-6)
  np.testing.assert_allclose(
      distance(s @ bases[0], t @ bases[1]), st_, rtol=0, atol=2e-6)


def test_the_triangle_inequality_of_nearby_subspaces():
  """Three subspaces on a geodesic: the Fubini-Study distance adds up."""
  s, t = pair_with_angles([2e-3], 5)
  middle = s + t * np.sign(np.sum(s * t))
  middle /= np.linalg.norm(middle)
  for metric in METRICS:
    parts = [float(FUNCTIONS[metric](a, b))
             for a, b in [(s, middle), (middle, t), (s, t)]]
    np.testing.assert_allclose(parts, [1e-3, 1e-3, 2e-3], atol=3e-7)


@every_metric
def test_complements_are_as_far_apart(metric):
  full = np.linalg.qr(np.random.default_rng(3).normal(size=(2, 5, 5)))[0]
  full = full.astype(np.float32)
  np.testing.assert_allclose(
      FUNCTIONS[metric](full[0, :, :2], full[1, :, :2]),
      FUNCTIONS[metric](full[0, :, 2:], full[1, :, 2:]), rtol=0, atol=1e-6)


def test_fubini_study_is_the_angle_of_pluecker_vectors():
  s, t = random_frames(5, (2, 4, 2))
  def pluecker(x):
    return np.array([np.linalg.det(x[[i, j]].astype(np.float64))
                     for i in range(4) for j in range(i)])
  cosine = abs(pluecker(s) @ pluecker(t))
  np.testing.assert_allclose(
      FUNCTIONS['fubini_study'](s, t), math.acos(cosine), atol=1e-6)


@every_metric
def test_pairwise_distances(metric, oracle, smallest):
  frames = random_frames(0, (6, 7, 2))
  frames[4] = pair_with_angles([1e-5, 2e-5], 7)[0]
  got = np.asarray(pairwise(frames, distance=metric))
  assert got.shape == (6, 6)
  np.testing.assert_array_equal(got, got.T)
  np.testing.assert_array_equal(np.diag(got), 0)
  want = [[oracle[metric](a, b) for b in frames] for a in frames]
  np.testing.assert_allclose(
      got, want * (1 - np.eye(6)), rtol=0, atol=1e-6)
  least = si.grassmann.min_distance(frames, metric)
  np.testing.assert_allclose(least, smallest(frames, metric), atol=1e-6)


@every_metric
def test_min_distance_sees_two_equal_subspaces(metric):
  frames = random_frames(1, (3, 6, 2))
  frames = np.concatenate([frames, frames[:1] @ random_frames(2, (1, 2, 2))])
  np.testing.assert_allclose(
      si.grassmann.min_distance(frames, metric), 0, atol=1e-6)


@every_metric
@pytest.mark.parametrize('num', [0, 1])
def test_min_distance_without_a_pair(metric, num):
  frames = jnp.zeros((num, 4, 2))
  assert si.grassmann.min_distance(frames, metric) == math.inf
  assert pairwise(frames, distance=metric).shape == (num, num)


def test_an_unknown_distance():
  frames = jnp.zeros((2, 3, 1))
  for fn in (si.grassmann.min_distance, si.grassmann.pairwise_distances):
    with pytest.raises(ValueError, match='chordal or fubini_study'):
      fn(frames, 'geodesic')


def test_subspaces_that_share_a_plane():
  """49 subspaces of R^64: d_FS is the largest there is, d_c^2 is but 1."""
  frames = np.zeros((49, 64, 3), np.float32)
  frames[:, 0, 0] = frames[:, 1, 1] = 1
  frames[np.arange(49), np.arange(2, 51), 2] = 1
  rotation = random_frames(0, (64, 64))
  frames = rotation @ frames
  np.testing.assert_allclose(
      si.grassmann.min_distance(frames, 'fubini_study'), math.pi / 2,
      atol=1e-6)
  np.testing.assert_allclose(
      si.grassmann.min_distance(frames, 'chordal') ** 2, 1, atol=1e-5)
  assert si.grassmann.upper_bound(64, 3, 49, 'fubini_study') == math.pi / 2
