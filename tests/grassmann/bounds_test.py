"""Bounds, against attained packings and the errata of the paper."""

import itertools
import math

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

import structinit_jax as si

bound = si.grassmann.upper_bound
METRICS = ['chordal', 'fubini_study']
many = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def lines(vectors):
  """Returns lines `(num, dim, 1)` through the vectors, without repetition."""
  unit = np.asarray(vectors, np.float64)
  unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
  kept = []
  for x in unit:
    if all(abs(x @ y) < 1 - 1e-9 for y in kept):
      kept.append(x)
  return np.array(kept)[:, :, None]


def e8_roots():
  units = [np.eye(8)[i] * a + np.eye(8)[j] * b
           for i, j in itertools.combinations(range(8), 2)
           for a, b in itertools.product((1, -1), repeat=2)]
  halves = [np.array(signs) / 2 for signs in itertools.product(
      (1, -1), repeat=8) if math.prod(signs) > 0]
  return units + halves


def unbiased():
  """Three mutually unbiased bases of R^4."""
  return [*np.eye(4), *itertools.product((1, -1), repeat=4)]


def icosahedron():
  phi = (1 + math.sqrt(5)) / 2
  return [np.roll([0, 1, s * phi], i) for i in range(3) for s in (1, -1)]


def twenty_eight():
  """Permutations of (3, 3, -1, ..., -1): 28 equiangular lines of R^7."""
  vectors = []
  for i, j in itertools.combinations(range(8), 2):
    x = -np.ones(8)
    x[[i, j]] = 3
    vectors.append(x)
  basis = np.linalg.svd(np.ones((1, 8)))[2][1:]
  return np.array(vectors) @ basis.T


def simplex(dim):
  centred = np.eye(dim + 1) - 1 / (dim + 1)
  return centred @ np.linalg.svd(np.ones((1, dim + 1)))[2][1:].T


def polygon(num):
  angles = np.arange(num) * math.pi / num
  return np.stack([np.cos(angles), np.sin(angles)], 1)


ATTAINED = [
    ('simplex', simplex(5), 6, 1 - 1 / 25),
    ('icosahedron', icosahedron(), 6, .8),
    ('28 lines', twenty_eight(), 28, 8 / 9), ('unbiased', unbiased(), 12, .75),
    ('e8', e8_roots(), 120, .75), ('triangle', polygon(3), 3, .75),
    ('square', polygon(4), 4, .5), ('basis', np.eye(4), 4, 1.)]


@pytest.mark.parametrize(
    'vectors, num, squared', [row[1:] for row in ATTAINED],
    ids=[row[0] for row in ATTAINED])
def test_bounds_that_lines_attain(vectors, num, squared, smallest):
  """The packing and the bound prove each other."""
  frames = lines(vectors)
  dim = frames.shape[1]
  assert len(frames) == num
  np.testing.assert_allclose(
      max(abs(float(a[:, 0] @ b[:, 0]))
          for a, b in itertools.combinations(frames, 2)),
      math.sqrt(1 - squared), atol=1e-12)
  np.testing.assert_allclose(bound(dim, 1, num)**2, squared, atol=1e-12)
  np.testing.assert_allclose(
      bound(dim, 1, num, 'fubini_study'), math.asin(math.sqrt(squared)),
      atol=1e-7)
  if num < 30:
    np.testing.assert_allclose(smallest(frames)**2, squared, atol=1e-7)


@pytest.mark.parametrize('dim, rank, num, squared', [
    (3, 1, 6, 0.8), (4, 2, 10, 10 / 9), (4, 2, 18, 1.), (7, 1, 28, 8 / 9),
    (64, 3, 49, 2.9189453125), (8, 1, 120, 0.75), (8, 4, 70, 2.),
    (4, 1, 6, 8 / 9), (32, 3, 9, 3.), (32, 1, 9, 1.)])
def test_published_optima(dim, rank, num, squared):
  np.testing.assert_allclose(bound(dim, rank, num)**2, squared, rtol=1e-9)


@pytest.mark.parametrize('dim, rank, num, squared', [
    (6, 2, 15, 1.4285668598), (16, 1, 32, 0.96568), (16, 1, 32, 0.96325)])
def test_best_known_packings_are_within_the_bound(dim, rank, num, squared):
  assert squared <= bound(dim, rank, num)**2 < squared * 1.01


@pytest.mark.parametrize('num', range(2, 30))
def test_lines_of_the_plane(num):
  """The optimum is known: num lines at equal angles."""
  np.testing.assert_allclose(
      bound(2, 1, num), math.sin(math.pi / num), rtol=1e-12)
  np.testing.assert_allclose(
      bound(2, 1, num, 'fubini_study'), math.pi / num, rtol=1e-7)


def test_levenshtein_and_bukh_cox_by_hand():
  # 9 lines of R^3: (27 - 9 - 6) / (5 * 6) = 2/5.
  np.testing.assert_allclose(bound(3, 1, 9)**2, 3 / 5, rtol=1e-12)
  # 5 lines of R^3: K = 3, q = 2, mu = 3 / (5 * 2 - 3).
  np.testing.assert_allclose(bound(3, 1, 5)**2, 1 - 9 / 49, rtol=1e-12)
  # Both are below the bounds for subspaces of any rank.
  assert 3 / 5 < 2 / 3
  assert 1 - 9 / 49 < 2 / 3 * 5 / 4


def test_equation_5_of_the_paper_is_exceeded(smallest):
  """It bounds d / sqrt(k): 9 orthogonal subspaces of R^32 are sqrt(3) apart."""
  dim, rank, num = 32, 3, 9
  printed = math.sqrt((dim - rank) / dim * num / (num - 1))
  assert round(printed, 4) == 1.0097
  frames = np.eye(dim)[:, :num * rank].reshape(dim, num, rank)
  frames = frames.transpose(1, 0, 2)
  np.testing.assert_allclose(smallest(frames), math.sqrt(3), rtol=1e-12)
  assert printed < math.sqrt(3)
  # Times sqrt(k) it is the simplex bound, here above the trivial one.
  assert printed * math.sqrt(rank) > bound(dim, rank, num) == math.sqrt(3)


@pytest.mark.parametrize('dim, rank, num', [
    (6, 2, 3), (6, 3, 2), (5, 1, 5), (7, 2, 3), (64, 3, 21)])
def test_the_trivial_bound_holds_with_equality_iff_they_fit(dim, rank, num):
  assert bound(dim, rank, num) == math.sqrt(rank)
  more = dim // rank + 1
  assert bound(dim, rank, more) < math.sqrt(rank)


def test_fubini_study_is_nearly_vacuous():
  """pi/2 up to C(m, k) subspaces, and below it from there on."""
  for dim, rank in [(4, 2), (5, 2), (6, 3), (9, 3)]:
    size = math.comb(dim, rank)
    assert bound(dim, rank, size, 'fubini_study') == math.pi / 2
    assert bound(dim, rank, size + 1, 'fubini_study') < math.pi / 2
    np.testing.assert_allclose(  # N - D = 1
        math.cos(bound(dim, rank, size + 1, 'fubini_study'))**2,
        1 / size**2, rtol=1e-9)
    np.testing.assert_allclose(
        math.cos(bound(dim, rank, size * size, 'fubini_study'))**2,
        1 / size, rtol=1e-9)


def test_coordinate_subspaces_attain_fubini_study(smallest):
  choices = itertools.combinations(range(4), 2)
  frames = np.stack([np.eye(4)[:, list(c)] for c in choices])
  assert len(frames) == 6
  np.testing.assert_allclose(smallest(frames, 'fubini_study'), math.pi / 2)
  assert bound(4, 2, 6, 'fubini_study') == math.pi / 2


sizes = st.integers(2, 8).flatmap(lambda dim: st.tuples(
    st.just(dim), st.integers(1, dim - 1), st.integers(2, 24)))


@given(sizes, st.integers(0, 2**32 - 1))
@many
def test_no_packing_exceeds_the_bounds(size, seed):
  dim, rank, num = size
  x = np.random.default_rng(seed).normal(size=(num, dim, rank))
  frames = np.linalg.qr(x)[0]
  overlap = np.einsum('imk,jml->ijkl', frames, frames)
  pairs = np.triu_indices(num, 1)
  squared = rank - np.sum(overlap**2, axis=(2, 3))[pairs].max()
  assert -1e-9 <= squared <= bound(dim, rank, num)**2 + 1e-9
  cosine = np.abs(np.linalg.det(overlap))[pairs].max()
  assert cosine >= math.cos(bound(dim, rank, num, 'fubini_study')) - 1e-9


@given(sizes)
@many
def test_bounds_do_not_grow_with_num_and_know_complements(size):
  dim, rank, num = size
  for metric in METRICS:
    assert bound(dim, rank, num + 1, metric) <= bound(dim, rank, num, metric)
    np.testing.assert_allclose(
        bound(dim, dim - rank, num, metric), bound(dim, rank, num, metric),
        rtol=1e-12)


@pytest.mark.parametrize('metric', METRICS)
def test_degenerate_sizes(metric):
  assert bound(4, 2, 1, metric) == math.inf
  assert bound(4, 2, 0, metric) == math.inf
  assert bound(4, 4, 3, metric) == 0
  assert bound(4, 0, 3, metric) == 0
  assert bound(1, 1, 2, metric) == 0


@pytest.mark.parametrize('dim, rank', [(3, 4), (3, -1), (0, 0), (-1, 0)])
def test_impossible_sizes(dim, rank):
  with pytest.raises(ValueError, match=f'rank {rank} must lie between'):
    bound(dim, rank, 5)


def test_an_unknown_distance():
  with pytest.raises(ValueError, match="'geodesic' is unknown"):
    bound(4, 2, 5, 'geodesic')
