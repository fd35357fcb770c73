"""Factors of one kernel: exact, monotone, never above Algorithm 3."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg
from scipy import optimize
from sklearn import datasets

from structinit_jax import lowrank
from structinit_jax.lowrank import duals
from structinit_jax.lowrank import factors
from structinit_jax.lowrank import solvers

KEY = jax.random.key(0)
lecun_normal = jax.nn.initializers.lecun_normal()
RELU = duals.dual('relu')


def h(rho):
  return (np.sqrt(1 - rho**2) + (np.pi - np.arccos(rho)) * rho) / np.pi


def relu_loss(kernel, basis):
  """Of the best columns in a subspace, in float64."""
  norms = np.linalg.norm(kernel, axis=0)
  rho = np.linalg.norm(basis.T @ kernel, axis=0) / norms
  return 0.5 * (norms**2 * (1 - h(np.minimum(rho, 1))**2)).sum()


def algorithm_3(kernel, rank):
  left = np.linalg.svd(kernel, full_matrices=False)[0]
  return min(relu_loss(kernel, left[:, list(chosen)]) for chosen in
             itertools.combinations(range(left.shape[1]), rank))


def test_the_counterexample_to_theorem_3_3():
  kernel = np.diag([1, 0.99])
  np.testing.assert_allclose(algorithm_3(kernel, 1), 0.44040, atol=1e-5)
  np.testing.assert_allclose(
      relu_loss(kernel, np.ones((2, 1)) / math.sqrt(2)), 0.42508, atol=1e-5)
  best = optimize.minimize_scalar(
      lambda t: relu_loss(kernel, np.array([[math.cos(t)], [math.sin(t)]])),
      bounds=(0, math.pi / 4), method='bounded', options={'xatol': 1e-10})
  np.testing.assert_allclose(best.fun, 0.41781, atol=1e-5)
  with jax.enable_x64(True):
    found = lowrank.objective(kernel, *lowrank.factorize(KEY, kernel, 1))
    theirs = lowrank.objective(
        kernel, *lowrank.factorize(KEY, kernel, 1, method='relu_svd'))
  np.testing.assert_allclose(found, best.fun, atol=1e-10)
  np.testing.assert_allclose(theirs, algorithm_3(kernel, 1), atol=1e-12)


def test_never_above_algorithm_3():
  """1,000 small kernels, all subsets of their singular vectors."""
  rng = np.random.default_rng(0)
  worst = -np.inf
  with jax.enable_x64(True):
    for d, n, r in [(2, 2, 1), (3, 5, 1), (4, 3, 2), (6, 8, 3), (8, 8, 2)]:
      kernels = rng.standard_normal((200, d, n))
      kernels[::4] *= rng.uniform(0, 1, (50, d, 1))
      kernels[1::4, :min(d, n), :min(d, n)] = 0
      kernels[1::4, range(min(d, n)), range(min(d, n))] = 1 + 0.01 * (
          rng.uniform(size=(50, min(d, n))))
      keys = jax.random.split(KEY, len(kernels))
      found = jax.jit(jax.vmap(lambda key, w, r=r: solvers.solve(
          key, w[:, None], r, RELU, restarts=8, steps=500, tolerance=1e-13)))(
              keys, jnp.asarray(kernels))
      ours = (kernels**2).sum((1, 2)) / 2 - np.asarray(found.value)
      theirs = [algorithm_3(kernel, r) for kernel in kernels]
      # The objective is what is left of |W|^2 / 2, rounded.
      rounding = 1e-14 * (kernels**2).sum((1, 2))
      worst = max(worst, ((ours - rounding) / theirs - 1).max())
  assert worst <= 1e-9


@pytest.mark.parametrize('seed', range(3))
def test_nearly_equal_singular_values_leave_six_percent(seed):
  rng = np.random.default_rng(seed)
  kernel = np.diag(1 + 0.01 * rng.uniform(size=32))
  with jax.enable_x64(True):
    ours, theirs = (
        float(lowrank.objective(kernel, *lowrank.factorize(
            KEY, kernel, 3, method=method)))
        for method in ('exact', 'relu_svd'))
  np.testing.assert_allclose(theirs, algorithm_3(kernel, 3), rtol=1e-12)
  assert ours < 0.94 * theirs


@pytest.mark.parametrize('activation', ['relu', 'gelu', 'swish', 'linear'])
@pytest.mark.parametrize('windows', [1, 3])
def test_no_step_goes_up(activation, windows):
  dual = duals.dual(activation)
  with jax.enable_x64(True):
    w = jax.random.normal(KEY, (12, windows, 20), jnp.float64) / 3
    basis = solvers.top(w, 3)
    values = []
    improve = jax.jit(lambda steps: solvers.improve(
        basis, w, dual, steps=steps, tolerance=0.))
    for steps in range(0, 40, 3):
      found = improve(steps)
      values.append(float(found.value))
      np.testing.assert_allclose(
          found.basis.T @ found.basis, np.eye(3), atol=1e-13)
  assert (np.diff(values) >= -1e-10).all()
  if activation != 'linear':
    assert values[-1] > values[0]


def test_the_iteration_is_a_local_optimum_of_the_factors():
  """Against a quasi-Newton search over U and V from where it ended."""
  with jax.enable_x64(True):
    kernel = lecun_normal(KEY, (10, 14), jnp.float64)
    for activation in ('relu', 'gelu'):
      u, v = lowrank.factorize(
          KEY, kernel, 3, activation=activation, steps=3000, tolerance=0.)
      start = np.concatenate([u.ravel(), v.ravel()])

      @jax.jit
      def loss(flat, activation=activation):
        return jax.value_and_grad(lambda x: lowrank.objective(
            kernel, x[:30].reshape(10, 3), x[30:].reshape(3, 14),
            activation=activation))(flat)

      found = optimize.minimize(
          lambda x, loss=loss: tuple(map(np.asarray, loss(x))), start,
          jac=True, method='L-BFGS-B')
      assert found.fun > loss(start)[0] * (1 - 1e-8)


def test_linear_is_the_truncated_svd():
  kernel = lecun_normal(KEY, (9, 13))
  u, v = lowrank.factorize(KEY, kernel, 4, activation='linear')
  left, values, right = linalg.svd(np.asarray(kernel, np.float64))
  np.testing.assert_allclose(
      u @ v, left[:, :4] * values[:4] @ right[:4], atol=2e-6)


@pytest.mark.parametrize('method', factors.METHODS)
def test_full_rank_is_the_kernel_and_factors_are_balanced(method):
  kernel = lecun_normal(KEY, (6, 9))
  options = {'steps': 5, 'batch': 8} if 'adam' in method else {}
  u, v = lowrank.factorize(KEY, kernel, 6, method=method, **options)
  assert (u.shape, v.shape) == ((6, 6), (6, 9))
  if method in ('baseline', 'adam', 'adam_warm'):
    return
  np.testing.assert_allclose(u @ v, kernel, atol=2e-6)
  np.testing.assert_allclose(u.T @ u, v @ v.T, atol=2e-6)


@pytest.mark.parametrize('shape, options', [
    ((128, 96), {'method': 'spectral'}), ((128, 96), {'method': 'rescaled'}),
    ((128, 96), {}), *(((8, 6), {'activation': activation}) for activation in (
        'gelu', 'swish', 'tanh'))])
def test_a_kernel_comes_back_at_full_rank(shape, options):
  kernel = jax.random.normal(KEY, shape)
  found = lowrank.factorize(KEY, kernel, min(shape), **options)
  u, v, kernel = (np.asarray(x, np.float64) for x in (*found, kernel))
  assert np.linalg.norm(u @ v - kernel) < 1e-6 * np.linalg.norm(kernel)


@pytest.mark.parametrize('rank', [1, 3])
def test_methods_are_ordered(rank):
  kernel = lecun_normal(KEY, (24, 40))
  losses = {method: lowrank.objective(kernel, *lowrank.factorize(
      KEY, kernel, rank, method=method)) for method in factors.METHODS}
  assert losses['exact'] <= losses['relu_svd'] <= losses['rescaled'] + 1e-4
  assert losses['rescaled'] < losses['spectral'] < losses['baseline']
  assert losses['exact'] < losses['adam'] < losses['baseline']
  assert losses['exact'] < losses['adam_warm'] < losses['spectral']


@pytest.mark.parametrize('method', ['spectral', 'rescaled', 'exact'])
@pytest.mark.parametrize('most', [20, 48])
def test_inputs_that_hardly_vary_are_not_lost(most, method):
  """At its rank a kernel is kept whole, for pixels that are rare or black."""
  images = jnp.asarray(datasets.load_digits().data / 16, jnp.float32)
  covariance = images.T @ images / len(images)
  assert (jnp.diag(covariance) == 0).sum() == 3
  one, other = jax.random.split(KEY)
  kernel = jax.random.normal(one, (64, most)) / 8 @ (
      jax.random.orthogonal(other, 48)[:most])
  u, v = lowrank.factorize(
      KEY, kernel, most, method=method, covariance=covariance)
  error = images @ u @ v - images @ kernel
  assert jnp.linalg.norm(error) < 32 * 2**-23 * (
      jnp.linalg.norm(images @ kernel))
  np.testing.assert_allclose(u @ v, kernel, atol=1e-6 if most == 48 else 1e-3)


def test_the_covariance_of_the_inputs():
  rng = np.random.default_rng(0)
  kernel = rng.standard_normal((8, 12)).astype(np.float32)
  root = rng.standard_normal((8, 8)).astype(np.float32)
  covariance = root @ root.T
  losses = {}
  for given in (None, covariance):
    u, v = lowrank.factorize(KEY, kernel, 2, covariance=given)
    losses[given is None] = lowrank.objective(
        kernel, u, v, covariance=covariance)
  assert losses[False] < losses[True]
  # Of inputs that never occur is kept what the rows of v can express.
  for covariance in (np.diag([1., 2, 3, 0, 0, 1, 1, 1]), np.zeros((8, 8))):
    u, v = lowrank.factorize(
        KEY, kernel, 2, method='spectral', covariance=covariance)
    np.testing.assert_allclose(
        (u @ v)[3:5], kernel[3:5] @ np.linalg.pinv(v) @ v, atol=1e-3)


def test_a_column_outside_the_subspace_is_not_zero():
  """Both outputs have a mean, so a vector that is orthogonal is closer."""
  kernel = jnp.eye(2)
  u, v = lowrank.factorize(KEY, kernel, 1, method='relu_svd')
  np.testing.assert_allclose(
      sorted(np.linalg.norm(u @ v, axis=0)), [1 / math.pi, 1], atol=1e-6)
  np.testing.assert_allclose(
      lowrank.objective(kernel, u, v), 0.5 * (1 - 1 / math.pi**2), atol=1e-6)


def test_zero_columns_and_kernels():
  kernel = lecun_normal(KEY, (6, 8)).at[:, 2].set(0)
  for method in ('spectral', 'rescaled', 'exact', 'relu_svd'):
    u, v = lowrank.factorize(KEY, kernel, 2, method=method)
    np.testing.assert_allclose((u @ v)[:, 2], 0, atol=1e-6)
    u, v = lowrank.factorize(KEY, jnp.zeros((4, 5)), 2, method=method)
    assert np.isfinite(u).all()
    assert np.isfinite(v).all()
    np.testing.assert_allclose(u @ v, 0, atol=1e-6)


@pytest.mark.optimized
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtypes_jit_and_vmap(dtype):
  kernels = lecun_normal(KEY, (3, 8, 10)).astype(dtype)
  one = [lowrank.factorize(KEY, kernel, 2) for kernel in kernels]
  assert all(x.dtype == dtype for pair in one for x in pair)
  many = jax.jit(jax.vmap(lambda w: lowrank.factorize(KEY, w, 2)))(kernels)
  # The solver stops at a gain of ten roundings. Where the objective is flat,
  # which a minimum is, the factors are then known to the root of that.
  rounding = float(jnp.finfo(dtype).eps)
  for i, (u, v) in enumerate(one):
    products = [a.astype(jnp.float32) @ b.astype(jnp.float32)
                for a, b in ((many.u[i], many.v[i]), (u, v))]
    np.testing.assert_allclose(*products, atol=(10 * rounding)**0.5)
    losses = [lowrank.objective(kernels[i], *pair)
              for pair in ((many.u[i], many.v[i]), (u, v))]
    np.testing.assert_allclose(*losses, rtol=50 * rounding)


@pytest.mark.parametrize('kernel, rank, options, message', [
    (jnp.ones((3, 4)), 0, {}, r'shape \(3, 4\).*nearest that works is 1'),
    (jnp.ones((3, 4)), 9, {}, r'nearest that works is 3'),
    (jnp.ones((3, 4)), 1.5, {}, 'rank=1.5 must be an integer'),
    (jnp.ones((3, 0)), 1, {}, 'has no entries'),
    (jnp.ones(3), 1, {}, 'must be a matrix'),
    (jnp.ones((3, 4), int), 1, {}, 'floating-point'),
    (jnp.full((3, 4), jnp.nan), 1, {}, 'NaN or infinite'),
    (jnp.ones((3, 4)), 1, {'method': 'svd'}, 'unknown; use baseline'),
    (jnp.ones((3, 4)), 1, {'method': 'relu_svd', 'activation': 'gelu'},
     'is of the ReLU'),
    (jnp.ones((3, 4)), 1, {'restarts': -1}, 'restarts=-1 must be at least 0'),
    (jnp.ones((3, 4)), 1, {'learning_rate': math.nan}, 'learning_rate=nan'),
    (jnp.ones((3, 4)), 1, {'covariance': jnp.eye(4)}, 'not that of 3 inputs'),
    (jnp.ones((3, 4)), 1, {'covariance': -jnp.eye(3)}, 'eigenvalue is -1'),
    (jnp.ones((3, 4)), 1, {'covariance': jnp.full((3, 3), jnp.nan)},
     'must be finite, symmetric'),
    (jnp.ones((3, 4)), 1, {'covariance': jnp.triu(jnp.ones((3, 3)))},
     'differs by 1 from its transpose'),
    (None, 1, {}, 'kernel None is no array'),
    (jnp.ones((3, 4)), 1, {'method': 3}, 'method 3 is unknown'),
    (jnp.ones((3, 4)), 1, {'tolerance': 'x'}, "tolerance='x' must be a finite"),
    (1e25 * jnp.ones((3, 4)), 1, {'activation': 'gelu'}, 'too large'),
])
def test_requests_that_are_refused(kernel, rank, options, message):
  with pytest.raises(ValueError, match=message):
    lowrank.factorize(KEY, kernel, rank, **options)


@pytest.mark.parametrize('method', [
    'spectral', 'randomized', 'rescaled', 'exact', 'relu_svd'])
@pytest.mark.parametrize('scale', [2.**-84, 2.**-9, 2.**62, 2.**124])
def test_the_scale_of_a_kernel_is_that_of_its_factors(method, scale):
  """Also where the squares of its entries are no floats."""
  kernel = lecun_normal(KEY, (8, 6))
  for rank in (2, 6):
    one = lowrank.factorize(KEY, kernel, rank, method=method)
    u, v = lowrank.factorize(KEY, scale * kernel, rank, method=method)
    found = np.asarray(u, np.float64) @ np.asarray(v, np.float64) / scale
    np.testing.assert_allclose(found, one.u @ one.v, atol=1e-6)


def test_random_requests():
  rng = np.random.default_rng(0)
  methods = [*factors.METHODS, 'other']
  made = 0
  for i in range(150):
    shape = tuple(rng.choice([0, 1, 2, 3, 7], rng.choice([1, 2, 2, 2, 2, 3]),
                             p=[0.04, 0.06, 0.3, 0.3, 0.3]))
    dtype = [jnp.float32, jnp.bfloat16, jnp.int32][rng.choice(
        3, p=[0.6, 0.3, 0.1])]
    kernel = np.asarray(rng.standard_normal(shape)).astype(dtype)
    if rng.random() < 0.1 and kernel.size:
      kernel.flat[0] = np.nan if dtype != jnp.int32 else 0
    try:
      u, v = lowrank.factorize(
          jax.random.key(i), kernel, int(rng.integers(0, 4)),
          method=str(rng.choice(methods)), steps=2, batch=4)
    except ValueError:
      continue
    made += 1
    assert (u.shape[0], v.shape[1]) == shape
    assert u.dtype == v.dtype == dtype
    assert np.isfinite(u.astype(np.float32)).all()
    assert np.isfinite(v.astype(np.float32)).all()
  assert 30 < made < 120


@pytest.mark.parametrize('activation', ['relu', 'gelu'])
def test_kept_norms_are_those_of_the_kernel_in_the_best_subspace(activation):
  """Against a search over bases, on the sphere of those norms."""
  kernel = lecun_normal(KEY, (5, 7))
  lengths = jnp.linalg.norm(kernel, axis=0)
  u, v = lowrank.factorize(
      KEY, kernel, 2, activation=activation, norms='kept')
  np.testing.assert_allclose(
      jnp.linalg.norm(u @ v, axis=0), lengths, rtol=1e-5)

  def loss(basis):
    found = basis @ (basis.T @ kernel)
    found = found * (lengths / jnp.linalg.norm(found, axis=0))[None]
    return lowrank.objective(
        kernel, found, jnp.eye(7), activation=activation)

  bases = jnp.linalg.qr(jax.random.normal(KEY, (4000, 5, 2)))[0]
  got = lowrank.objective(kernel, u, v, activation=activation)
  assert got <= jax.lax.map(loss, bases, batch_size=500).min() + 1e-6
  best = lowrank.factorize(KEY, kernel, 2, activation=activation)
  assert lowrank.objective(kernel, *best, activation=activation) < got
  for method in ('spectral', 'adam', 'baseline'):
    with pytest.raises(ValueError, match="norms='kept' are of rescaled"):
      lowrank.factorize(KEY, kernel, 2, method=method, norms='kept')
  with pytest.raises(ValueError, match='are unknown; use best, kept'):
    lowrank.factorize(KEY, kernel, 2, norms='unit')


@pytest.mark.parametrize('shape', [(60, 90), (90, 60), (300, 200)])
def test_a_sketch_is_the_truncation_where_singular_values_fall(shape):
  """Within 1 % of the best error, as Halko et al. find of a power or two."""
  rank = 6
  one, other = (np.linalg.qr(np.random.default_rng(i).standard_normal(
      (n, min(shape))))[0] for i, n in enumerate(shape))
  values = 1 / (1 + np.arange(min(shape)))
  kernel = ((one * values) @ other.T).astype(np.float32)
  u, v = lowrank.factorize(KEY, kernel, rank, method='randomized')
  error = np.linalg.norm(kernel - np.asarray(u @ v))
  assert error < 1.01 * np.sqrt((values[rank:]**2).sum())
  # At full rank, and where all singular values are alike, it is some subspace.
  u, v = lowrank.factorize(KEY, kernel[:20, :8], 8, method='randomized')
  np.testing.assert_allclose(u @ v, kernel[:20, :8], atol=1e-5)
  u, v = lowrank.factorize(KEY, jnp.eye(40), 5, method='randomized')
  np.testing.assert_allclose(
      jnp.linalg.norm(jnp.eye(40) - u @ v)**2, 35, rtol=1e-4)
