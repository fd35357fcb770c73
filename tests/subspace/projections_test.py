"""Projections: norms, Gram matrices, adjoints, supports, bits, memory."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from structinit_jax.subspace import hadamard
from structinit_jax.subspace import projections

KEY = jax.random.key(5)
KINDS = list(projections._KINDS)
ORTHONORMAL = ['hadamard', 'orthonormal', 'identity']
NESTED = [kind for kind in KINDS if kind.endswith('_nested')]
SPARSE = [kind for kind in KINDS if 'sparse' in kind]
# Other sparse kinds differ in norm and count alone.
MADE = [kind for kind in KINDS if not kind.startswith(
    ('sparse2full', 'sparse_original'))]


def make(kind, size, dim, key=KEY, **options):
  return projections.projection(kind, key, size, dim, **options)


def random_sizes(count, most, seed):
  rng = np.random.default_rng(seed)
  sizes = np.exp(rng.uniform(0, math.log(most), count)).astype(int)
  return [(int(size), int(rng.integers(1, size + 1))) for size in sizes]


def dense(p):
  return np.asarray(p.to_dense(), np.float64)


def check(kind, sizes):
  """Against the matrix in float64, which `apply` makes column by column."""
  for i, (size, dim) in enumerate(sizes):
    p = make(kind, size, dim, jax.random.key(i), column_norm=2.0)
    matrix = dense(p)
    rng = np.random.default_rng(i)
    w = rng.normal(size=dim).astype(np.float32)
    g = rng.normal(size=size).astype(np.float32)
    theta, back = (np.asarray(x) for x in (p.apply(w), p.transpose(g)))
    scale = 1e-6 * np.linalg.norm(matrix)
    np.testing.assert_allclose(theta, matrix @ w, atol=scale * max(abs(w)))
    np.testing.assert_allclose(back, matrix.T @ g, atol=scale * max(abs(g)))
    assert abs(theta.astype(float) @ g - w.astype(float) @ back) <= (
        1e-5 * np.linalg.norm(w) * np.linalg.norm(g))
    if kind != 'fastfood':  # the last block's norms are those of its average
      np.testing.assert_allclose(
          np.linalg.norm(matrix, axis=0), 2, rtol=1e-6)
    if kind in ORTHONORMAL:
      np.testing.assert_allclose(
          matrix.T @ matrix, 4 * np.eye(dim), atol=4e-6)
    if kind not in ('achlioptas', 'hadamard'):
      assert (matrix != 0).sum() == p.nonzeros


@pytest.mark.parametrize('kind', MADE)
def test_it_is_a_matrix_and_its_transpose(kind):
  check(kind, [(250, 161)])  # more coordinates than a block's 128 rows hold


def test_hadamard_is_orthonormal_for_any_size():
  check('hadamard', [(1, 1), (1000, 1), *random_sizes(2, 600, 0)])


def test_fastfood_has_columns_of_one_norm():
  matrix = dense(make('fastfood', 4096, 40))
  np.testing.assert_allclose(np.linalg.norm(matrix, axis=0), 1, rtol=1e-6)
  # Truncated: the norm on average over the rows.
  norms = np.linalg.norm(dense(make('fastfood', 4000, 40)), axis=0)
  np.testing.assert_allclose(norms, 1, rtol=0.03)


def test_hadamard_blocks_are_powers_of_2_and_fill_the_rows():
  for size, dim in itertools.product((64, 100, 1000, 4096), (1, 63, 64, 65)):
    if dim <= size:
      counts = [count * n for count, n in projections._blocks(size, dim)]
      assert sum(counts) == size
      assert all(n & (n - 1) == 0
                 for _, n in projections._blocks(size, dim))


@pytest.mark.parametrize('n', [1, 2, 4, 8, 32, 128])
def test_the_transform_is_a_hadamard_matrix(n):
  """Sylvester's, but for the order of its rows."""
  matrix = np.asarray(hadamard.transform(jnp.eye(n))).T
  np.testing.assert_array_equal(
      sorted(matrix.tolist()), sorted(scipy.linalg.hadamard(n).tolist()))


def test_signs_are_fair_and_independent():
  words = hadamard.random_bits(KEY, [3, 77_000])[1]
  found = np.asarray(hadamard.signs(words, (1000, 77), jnp.float32))
  assert set(np.unique(found)) == {-1, 1}
  assert abs(found.mean()) < 4 / math.sqrt(found.size)
  gram = found.T @ found / 1000
  assert abs(gram - np.eye(77)).max() < 5.5 / math.sqrt(1000)


@pytest.mark.parametrize('kind, size, dim, density', [
    ('very_sparse', 900, 50, 1 / 30), ('sparse_original', 900, 50, 1 / 30),
    ('sparse', 900, 81, 1 / 9), ('sparse2full', 900, 81, 1 / 9),
    ('sparse2', 900, 81, 1 / 18), ('achlioptas', 2000, 90, 1 / 3)])
def test_densities(kind, size, dim, density):
  matrix = dense(make(kind, size, dim))
  sigma = math.sqrt(density * (1 - density) / matrix.size)
  assert abs((matrix != 0).mean() - density) < 3 * sigma
  assert (matrix[matrix != 0] > 0).all() == (kind == 'sparse2')
  if kind != 'sparse2':
    assert abs(np.sign(matrix).sum()) < 4 * math.sqrt((matrix != 0).sum())
  # Rows, too, are hit about equally often.
  rows = (matrix != 0).sum(axis=1)
  assert rows.max() < dim * density + 6 * math.sqrt(dim * density)


@pytest.mark.parametrize('kind', SPARSE)
def test_supports_are_distinct_but_for_the_defect(kind):
  """The report's sampler gave all columns one support."""
  matrix = dense(make(kind, 900, 64))
  supports = {tuple(column) for column in (matrix != 0).T}
  touched = (matrix != 0).any(axis=1).sum()
  nonzeros = make(kind, 900, 64).nonzeros // 64
  if kind == 'sparse2_nested':  # its entries are positive or 0, at random
    assert len(supports) == 64
    assert touched == 2 * nonzeros
    assert set((matrix > 0).sum(axis=0)) == {nonzeros}
  elif kind in NESTED:
    assert len(supports) == 1
    assert touched == nonzeros
  else:
    assert len(supports) == 64
    assert touched > 0.8 * 900
  assert np.linalg.matrix_rank(matrix) > 25


@pytest.mark.parametrize('kind', ['very_sparse', 'sparse2', 'sparse_nested'])
def test_the_nonzeros_alone(kind):
  p = make(kind, 300, 40, column_norm=2.5)
  stored = p.to_bcoo()
  assert stored.nse == p.nonzeros
  np.testing.assert_allclose(stored.todense(), p.to_dense(), rtol=1e-6)
  with pytest.raises(ValueError, match='as a BCOO needs'):
    p.to_bcoo(max_bytes=100)
  with pytest.raises(ValueError, match="kind='srht' has hardly a zero"):
    make('srht', 30, 4).to_bcoo()


@pytest.mark.parametrize('kind, norm', [
    ('gaussian', 10.0), ('sparse', 1.0), ('sparse2full', 10.0),
    ('sparse2', math.sqrt(50)), ('sparse_original', 10.0)])
def test_the_report_s_norms(kind, norm):
  """sqrt(N/d), 1 or sqrt(N/2d); N = 470,600 and d = 4,000 print as there."""
  assert make(kind, 400, 4, column_norm=None).column_norm == (
      pytest.approx(norm))
  printed = {'gaussian': 10.85, 'sparse': 1, 'sparse2full': 10.85,
             'sparse2': 7.67, 'sparse_original': 10.85}[kind]
  got = make(kind, 470_600, 4000, column_norm=None).column_norm
  assert round(got, 2) == printed


def test_values_of_the_report():
  """Its densities and values give these norms."""
  size, dim = 900, 81
  for kind, value in (('sparse', dim**0.25 / size**0.5),
                      ('sparse2full', dim**-0.25), ('sparse2', dim**-0.25),
                      ('sparse_original', size**0.25 / dim**0.5)):
    matrix = dense(make(kind, size, dim, column_norm=None))
    np.testing.assert_allclose(abs(matrix[matrix != 0]), value, rtol=1e-5)


def test_the_identity_is_on_a_random_subset():
  p = make('identity', 100, 30)
  matrix = dense(p)
  assert set(np.unique(matrix)) == {0, 1}
  other = dense(make('identity', 100, 30, jax.random.key(6)))
  assert (matrix != other).any()
  np.testing.assert_array_equal(dense(make('identity', 9, 9)), np.eye(9))


@pytest.mark.parametrize('kind', ['hadamard', 'srht', 'fastfood'])
def test_columns_look_gaussian_to_a_fixed_vector(kind):
  """P^T g of a fixed g, over keys: mean 0, variance |g|^2 / D, no outliers."""
  g = jnp.where(jnp.arange(1000) < 100, 1.0, 0.0)  # the hard case: aligned
  keys = jax.random.split(KEY, 200)
  found = np.asarray(jax.vmap(
      lambda key: make(kind, 1000, 16, key).transpose(g))(keys))
  assert abs(found.mean()) < 4 * math.sqrt(0.1 / found.size)
  assert found.var() == pytest.approx(0.1, rel=0.12)
  assert abs(found).max() < 6 * math.sqrt(0.1)


@pytest.mark.parametrize('kind', ['hadamard', 'very_sparse', 'gaussian'])
def test_jit_vmap_and_other_norms(kind):
  p = make(kind, 200, 70)
  w = jax.random.normal(KEY, (70,))
  want = p.apply(w)
  np.testing.assert_array_equal(
      jax.jit(lambda p, w: 2 * p.apply(3 * w / 3))(p, w), 2 * want)
  np.testing.assert_allclose(
      make(kind, 200, 70, column_norm=3.5).apply(w), 3.5 * want,
      rtol=1e-5, atol=1e-5)
  keys = jnp.stack([KEY, jax.random.key(6)])
  many = jax.vmap(lambda key: make(kind, 200, 70, key).apply(w))(keys)
  np.testing.assert_allclose(many[0], want, atol=1e-5)
  assert (many[0] != many[1]).any()


def test_derivatives_of_any_order():
  p = make('very_sparse', 60, 9)
  matrix = dense(p)

  def f(w):
    return jnp.sum(p.apply(w)**4) / 12

  w = jax.random.normal(KEY, (9,))
  theta = matrix @ np.asarray(w)
  np.testing.assert_allclose(
      jax.hessian(f)(w), matrix.T @ (theta[:, None]**2 * matrix), atol=1e-4)


def test_float64():
  with jax.enable_x64(True):
    p = make('hadamard', 700, 100)
    matrix = np.asarray(jax.vmap(p.apply)(jnp.eye(100))).T
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(100), atol=1e-14)
    assert p.transpose(jnp.ones(700)).dtype == jnp.float64


def test_memory_grows_with_the_sum_of_the_sizes():
  """At D = 25 million, as of ResNet-50, and d = 10,000: no D d anywhere."""
  size, dim = 25_557_032, 10_000
  for kind in ('hadamard', 'very_sparse', 'identity'):
    p = make(kind, size, dim)
    for fn, n in ((projections.Projection.apply, dim),
                  (projections.Projection.transpose, size)):
      memory = jax.jit(fn).lower(
          p, jax.ShapeDtypeStruct((n,), jnp.float32)).compile(
              ).memory_analysis()
      assert memory.temp_size_in_bytes < 24 * (size + dim)


@pytest.mark.parametrize('kwargs, message', [
    ({'kind': 'hadamar'}, "kind 'hadamar' is unknown; use hadamard, gaussian"),
    ({'dim': 0}, 'dim=0 must lie between 1 and the 100 .*works is 1'),
    ({'dim': 101}, 'dim=101 must lie between .*works is 100'),
    ({'dim': 2.5}, 'dim=2.5 must be an integer'),
    ({'size': 0}, 'size=0 must be at least 1'),
    ({'size': 2**31}, 'must be below 2.31; .*per_layer'),
    ({'column_norm': -1}, 'column_norm=-1 must be a positive'),
    ({'column_norm': None}, "the kinds of the report, not for 'hadamard'"),
    ({'key': 3}, 'no JAX PRNG key'),
    ({'kind': 'orthonormal', 'size': 10**6, 'dim': 10**4},
     "kind='orthonormal' of size=1000000 and dim=10000 needs .*112 GiB.*"
     "kind='hadamard'")])
def test_bad_requests(kwargs, message):
  kwargs = {'kind': 'hadamard', 'key': KEY, 'size': 100, 'dim': 5} | kwargs
  with pytest.raises(ValueError, match=message):
    projections.projection(**kwargs)


@pytest.mark.parametrize(
    'kind', [k for k in projections._KINDS if k != 'orthonormal'])
def test_the_memory_that_is_counted_suffices(kind):
  """What is compared with `max_bytes` is no less than what XLA allocates."""
  for size, dim in ((100_000, 300), (40_000, 39_000)):
    p = projections.projection(kind, KEY, size, dim)
    needed = projections._KINDS[kind].bytes(size, dim)
    for function, n in ((projections.Projection.apply, dim),
                        (projections.Projection.transpose, size)):
      compiled = jax.jit(function).lower(
          p, jax.ShapeDtypeStruct((n,), jnp.float32)).compile()
      used = compiled.memory_analysis().temp_size_in_bytes
      assert used <= needed + 4096


def test_bad_operands():
  p = make('hadamard', 100, 5)
  with pytest.raises(ValueError, match=r'w of shape \(6,\) must have'):
    p.apply(jnp.ones(6))
  with pytest.raises(ValueError, match=r'g of shape \(5,\)'):
    p.transpose(jnp.ones(5))
  with pytest.raises(ValueError, match=r'needs .* GiB'):
    p.to_dense(max_bytes=100)
  with pytest.raises(ValueError, match='not a real floating-point'):
    p.apply(jnp.ones(5, jnp.complex64))
