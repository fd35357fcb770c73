"""Patches against explicit ones; Lloyd's iteration against brute force."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import structinit_jax as si
from structinit_jax.kmeans import objectives
from structinit_jax.kmeans import solver

KEY = jax.random.key(0)


@pytest.mark.parametrize('size, stride, padding, dilation, groups', [
    ((3, 3), (1, 1), 'SAME', (1, 1), 1),
    ((2, 4), (3, 2), 'SAME', (2, 1), 2),
    ((3, 1), (1, 2), 'VALID', (2, 1), 3),
    ((4, 3), (2, 2), 'CIRCULAR', (1, 2), 1),
    ((4,), (2,), 'CAUSAL', (2,), 2),
    ((2, 2), (1, 1), ((0, 2), (3, 1)), (1, 1), 2),
    ((2, 2), (1, 2), ((-1, 2), (3, -2)), (1, 1), 1)])
def test_patches_are_what_the_window_sees(
    size, stride, padding, dilation, groups):
  """Their products with a kernel are its responses, place by place."""
  keys = jax.random.split(KEY)
  x = jax.random.normal(keys[0], (2, *(9, 8)[:len(size)], 2 * groups))
  kernel = jax.random.normal(keys[1], (*size, 2, 3 * groups))
  window = {'strides': stride, 'padding': padding, 'dilation': dilation,
            'groups': groups}
  y = objectives.responses(kernel, x, **window)
  count = solver.window_count(x.shape, kernel.shape, window)
  assert count == y.size // y.shape[-1]
  found = solver.patches(KEY, x, kernel.shape, window, count)
  columns = kernel.reshape(-1, groups, 3)
  np.testing.assert_allclose(
      np.einsum('gnp,pgk->ngk', found, columns).reshape(y.shape), y, atol=1e-4)
  some = solver.patches(KEY, x, kernel.shape, window, count // 2)
  every = {row.tobytes() for row in np.asarray(found[0])}
  assert {row.tobytes() for row in np.asarray(some[0])} <= every
  assert some.shape == (groups, count // 2, found.shape[2])


def objective(x, theta, whiten, ridge):
  """Equation 3 in float64, of whitened patches and filters if asked for."""
  x = np.asarray(x, np.float64)
  theta = np.asarray(theta, np.float64)
  if not whiten:
    return (x @ (theta / np.linalg.norm(theta, axis=0))).max(1).mean()
  x = x - x.mean(0)
  metric = x.T @ x / len(x) + ridge * (x**2).mean() * np.eye(x.shape[1])
  sizes = np.sqrt(np.einsum('ik,ij,jk->k', theta, metric, theta))
  return (x @ (theta / sizes)).max(1).mean()


def hard(x, num, whiten, iterations):
  """Runs Lloyd's iteration at temperature 0 from twenty starts."""
  return jax.jit(jax.vmap(lambda key: solver.cluster(
      key, x, num, whiten=whiten, temperature=0., ridge=0.1, reseed=False,
      iterations=iterations)))(jax.random.split(KEY, 20))


@pytest.mark.parametrize('whiten', [False, True])
@pytest.mark.parametrize('count, size, num', [
    (60, 5, 3), (200, 12, 12), (40, 30, 4), (9, 3, 9), (7, 1, 2)])
def test_no_iteration_decreases_the_score(count, size, num, whiten):
  with jax.enable_x64(True):
    x = jax.random.normal(KEY, (count, size)) @ jnp.diag(
        jnp.arange(1., size + 1))
    long, short = (hard(x, num, whiten, steps) for steps in (15, 1))
    for theta, values, after_one in zip(*long, short[0], strict=True):
      assert (np.diff(values) >= -1e-12).all()
      assert objective(x, theta, whiten, 0.1) >= values[-1] - 1e-12
      # The value before an iteration is the objective there.
      assert objective(x, after_one, whiten, 0.1) == pytest.approx(
          float(values[1]), rel=1e-9)


@pytest.mark.parametrize('whiten', [False, True])
def test_best_of_some_starts_is_the_best_of_all_partitions(whiten):
  """Two clusters of nine points: every partition is tried."""
  with jax.enable_x64(True):
    x = np.asarray(jax.random.normal(jax.random.key(3), (9, 2)))
    x = x + np.array([1., 0.])
    centred = x - x.mean(0) if whiten else x
    metric = np.eye(2)
    if whiten:
      metric = centred.T @ centred / 9 + 0.1 * (centred**2).mean() * np.eye(2)
    best = -math.inf
    for bits in range(2**9):
      mine = np.array([bits >> i & 1 for i in range(9)], bool)
      sums = [centred[mine].sum(0), centred[~mine].sum(0)]
      best = max(best, sum(
          np.sqrt(g @ np.linalg.solve(metric, g)) for g in sums) / 9)
    starts, _ = hard(jnp.asarray(x), 2, whiten, 20)
    found = max(objective(x, theta, whiten, 0.1) for theta in starts)
  assert found == pytest.approx(best, rel=1e-9)


def test_clusters_are_found():
  """Directions that patches are made of, at any length, come back."""
  directions = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 8)))[0]
  keys = jax.random.split(KEY, 3)
  which = jax.random.randint(keys[0], (4000,), 0, 8)
  x = jax.random.uniform(keys[1], (4000, 1), minval=1, maxval=3) * jnp.asarray(
      directions.T, jnp.float32)[which]
  x = x + 0.05 * jax.random.normal(keys[2], x.shape)
  theta, _ = solver.cluster(KEY, x, 8, whiten=False)
  cosines = np.abs(directions.T @ np.asarray(theta))
  assert cosines.max(1).min() > 0.99
  assert sorted(cosines.argmax(0)) == list(range(8))


def test_reseeding_parts_aligned_filters():
  """Patches of one direction mostly: without it, filters share it."""
  keys = jax.random.split(KEY, 3)
  x = jnp.concatenate([
      jnp.ones((990, 1)) * jnp.eye(12)[:1] * 5
      + 0.01 * jax.random.normal(keys[0], (990, 12)),
      jax.random.normal(keys[1], (10, 12))])

  def duplicates(reseed):
    kernels, _ = jax.jit(jax.vmap(lambda key: solver.cluster(
        key, x, 8, whiten=False, reseed=reseed, temperature=0.)))(
            jax.random.split(KEY, 5))
    return [int(si.kmeans.statistics(k, x).duplicates) for k in kernels]

  assert max(duplicates(True)) < min(duplicates(False))


@pytest.mark.parametrize('whiten', [False, True])
@pytest.mark.parametrize('size, num', [(2, 2), (9, 6), (27, 16), (27, 40)])
def test_no_two_filters_end_aligned(size, num, whiten):
  """Images hold a pattern and its negative alike; filters are to differ."""
  keys = jax.random.split(KEY, 3)
  patterns = jax.random.normal(keys[0], (size, max(1, num // 2)))
  x = patterns[:, jax.random.randint(keys[1], (1500,), 0, patterns.shape[1])].T
  x = x + 0.3 * jax.random.normal(keys[2], x.shape)
  x = jnp.concatenate([x, -x])

  def measured(reseed):
    theta, _ = jax.jit(lambda key: solver.cluster(
        key, x, num, whiten=whiten, reseed=reseed))(KEY)
    metric = np.eye(size)
    if whiten:
      metric = np.cov(x.T, bias=True) + np.var(x, axis=0).mean() * metric
    lengths = np.einsum('ik,ij,jk->k', theta, metric, theta)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-3)
    stats = si.kmeans.statistics(theta, x, whiten=whiten)
    return float(stats.coherence), int(stats.dead.sum())

  assert measured(False)[0] > 0.95
  coherence, dead = measured(True)
  assert coherence < 0.9 + 1e-5
  assert dead == 0


def test_filters_that_are_the_same_to_the_bit_are_turned():
  theta = jnp.eye(4)[:, :1] * jnp.array([[1., -1., 1.]])
  turned, moved = solver._turned(theta, jax.random.normal(KEY, (4, 3)))
  assert moved.tolist() == [False, True, True]
  cosines = np.asarray(turned.T @ turned)
  np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-6)
  assert np.abs(np.triu(cosines, 1)).max() < 0.9 + 1e-5


@pytest.mark.parametrize('iterations', [1, 2, 3])
def test_filters_are_turned_however_few_iterations_there_are(iterations):
  x = jax.random.normal(KEY, (40, 2))
  theta, _ = solver.cluster(KEY, x, 2, iterations=iterations)
  stats = si.kmeans.statistics(theta, x, whiten=True)
  assert float(stats.coherence) < 0.9 + 1e-5


def test_more_filters_than_lines_fit_end_as_they_can():
  x = jax.random.normal(KEY, (200, 1)) + 1
  theta, _ = solver.cluster(KEY, x, 3)
  assert np.isfinite(theta).all()
  assert (np.abs(theta) > 0.1).all()


@pytest.mark.parametrize('scale', [1e-9, 1e9])
@pytest.mark.parametrize('whiten', [False, True])
def test_the_scale_of_patches_is_no_matter(scale, whiten):
  x = jax.random.normal(KEY, (60, 6)) + 1
  want, values = solver.cluster(KEY, x, 4, whiten=whiten, iterations=8)
  got, scaled = solver.cluster(KEY, scale * x, 4, whiten=whiten, iterations=8)
  np.testing.assert_allclose(got, want, atol=1e-3)
  np.testing.assert_allclose(
      scaled, values if whiten else scale * values, rtol=1e-3)


def test_constant_patches_give_no_filters():
  for whiten in (False, True):
    x = jnp.zeros((20, 4)) + (3. if whiten else 0.)
    theta, values = solver.cluster(KEY, x, 3, whiten=whiten)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(theta, 0, atol=1e-3)


def test_a_few_constant_patches_do_no_harm():
  x = jax.random.normal(KEY, (50, 4)).at[:20].set(0)
  for whiten in (False, True):
    theta, _ = solver.cluster(KEY, x, 6, whiten=whiten)
    assert np.isfinite(theta).all()
    assert (np.linalg.norm(theta, axis=0) > 0.1).all()


@pytest.mark.parametrize('whiten', [False, True])
@pytest.mark.parametrize('seed', range(3))
def test_patches_that_are_mostly_zeros_give_filters_that_differ(seed, whiten):
  """Fewer patches that are none than filters: mixtures begin in their place."""
  rng = np.random.default_rng(seed)
  x = rng.random((300, 6)) * (rng.random((300, 6)) < 0.02)
  x[:6] = np.eye(6)  # their span is everything
  assert (x.any(1)).sum() < 60
  theta, _ = solver.cluster(KEY, jnp.asarray(x, jnp.float32), 60, whiten=whiten)
  assert (np.linalg.norm(theta, axis=0) > 0.1).all()
  assert float(si.kmeans.statistics(theta, x).coherence) < 0.95
