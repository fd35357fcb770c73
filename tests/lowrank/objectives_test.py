"""The objective, against quadrature, sampling and the paper's identities."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate
from scipy import special

from structinit_jax import lowrank
from structinit_jax.lowrank import duals

KEY = jax.random.key(0)
lecun_normal = jax.nn.initializers.lecun_normal()


def gelu(x):
  return x * special.ndtr(x)


def swish(x):
  return x * special.expit(x)


def relu_product(a, b, rho):
  """In polar coordinates, over the angles where both are positive."""
  angle = math.acos(rho)
  found, _ = integrate.quad(
      lambda t: math.cos(t) * math.cos(t - angle), angle - math.pi / 2,
      math.pi / 2, epsabs=1e-13)
  return a * b * found / math.pi


def smooth_product(fn, a, b, rho, nodes=200):
  x, weights = np.polynomial.hermite_e.hermegauss(nodes)
  weights = weights / weights.sum()
  other = rho * x[:, None] + math.sqrt(1 - rho**2) * x
  return np.einsum('i,j,i,ij', weights, weights, fn(a * x), fn(b * other))


@pytest.mark.parametrize('name, oracle, bound', [
    ('relu', relu_product, 1e-12),
    ('gelu', lambda *args: smooth_product(gelu, *args), 1e-12),
    ('swish', lambda *args: smooth_product(swish, *args), 1e-8),
    ('tanh', lambda *args: smooth_product(np.tanh, *args), 1e-6),
    ('linear', lambda a, b, rho: a * b * rho, 1e-15),
])
def test_dual_kernels_are_expectations(name, oracle, bound):
  rng = np.random.default_rng(0)
  a, b = rng.uniform(0.05, 1.5, (2, 40))
  rho = np.concatenate([rng.uniform(-1, 1, 36), [-1, 0, 1, 1 - 1e-9]])
  with jax.enable_x64(True):
    got = duals.dual(name).product(
        jnp.asarray(a), jnp.asarray(b), jnp.asarray(rho))
    assert got.dtype == jnp.float64
  want = [oracle(*args) for args in zip(a, b, rho, strict=True)]
  np.testing.assert_allclose(got, want, rtol=0, atol=bound)


@pytest.mark.parametrize('name, fn, norm, bound', [
    ('swish', swish, 2, 1e-9), ('swish', swish, 4, 1e-4),
    ('tanh', np.tanh, 2, 1e-5), ('tanh', np.tanh, 4, 1e-3)])
def test_series_of_large_norms(name, fn, norm, bound):
  rho = np.linspace(-1, 1, 9)
  with jax.enable_x64(True):
    a = jnp.full(9, float(norm))
    got = duals.dual(name).product(a, a, jnp.asarray(rho))
  x = np.linspace(-9, 9, 721)  # so fine and wide that sums are integrals
  weights = np.exp(-x**2 / 2)
  weights = weights / weights.sum()
  want = [np.einsum('i,j,i,ij', weights, weights, fn(norm * x), fn(
      norm * (r * x[:, None] + math.sqrt(1 - r**2) * x))) for r in rho]
  np.testing.assert_allclose(got, want, rtol=0, atol=bound)


@pytest.mark.parametrize('name', ['relu', 'gelu', 'swish'])
def test_slopes_are_derivatives(name):
  dual = duals.dual(name)
  rho = np.linspace(-0.95, 0.95, 9)
  with jax.enable_x64(True):
    a, b, rho, step = (jnp.asarray(x) for x in (
        np.full(9, 0.7), np.full(9, 1.2), rho, 1e-6))
    want = (dual.product(a, b, rho + step)
            - dual.product(a, b, rho - step)) / (2 * step)
    np.testing.assert_allclose(dual.slope(a, b, rho), want, atol=1e-9)
    if name == 'relu':
      one = jnp.ones(2)
      np.testing.assert_allclose(
          dual.slope(one, one, jnp.array([1., -1.])), [0.5, 0], atol=1e-15)


@pytest.mark.parametrize('name', ['relu', 'linear', 'gelu', 'swish', 'tanh'])
def test_best_norms_are_maxima(name):
  dual = duals.dual(name)
  rho = np.repeat([0.05, 0.3, 0.7, 1.0], 3)
  a = np.tile([0.2, 0.8, 1.4], 4)
  with jax.enable_x64(True):
    rho, a = jnp.asarray(rho), jnp.asarray(a)
    b = dual.best_norm(a, rho, a * rho)

    def value(b):
      return (2 * dual.product(a, b, rho)
              - dual.product(b, b, jnp.ones_like(b)))

    for factor in (0.5, 0.9, 0.99, 0.999, 1.001, 1.01, 1.1, 2.):
      assert (value(b) >= value(factor * b) - 1e-12).all()


@pytest.mark.parametrize('activation', ['relu', 'gelu', 'swish', 'linear'])
def test_the_objective_is_the_mean_of_samples(activation):
  fn = duals.function(activation)
  rng = np.random.default_rng(1)
  for _ in range(13):
    d, n, r = rng.integers(1, 9), rng.integers(1, 9), rng.integers(1, 4)
    kernel, u, v = (rng.standard_normal(shape) / 2 for shape in (
        (d, n), (d, r), (r, n)))
    root = np.eye(d) if rng.random() < 0.5 else rng.standard_normal((d, d)) / 2
    x = rng.standard_normal((40000, d)) @ root
    with jax.enable_x64(True):
      exact = lowrank.objective(
          kernel, u, v, activation=activation, covariance=root.T @ root)
      losses = ((fn(jnp.asarray(x @ kernel))
                 - fn(jnp.asarray(x @ u @ v)))**2).sum(1)
      exact, error = float(exact), float(losses.std()) / math.sqrt(len(losses))
      found = float(losses.mean())
    # 52 cases; P(|z| > 4) of one is 6e-5.
    assert abs(found - exact) < 4 * error + 1e-12


def test_the_sampled_objective_has_the_exact_mean():
  kernel = lecun_normal(KEY, (6, 9))
  u, v = lowrank.factorize(KEY, kernel, 2, method='spectral')
  covariance = jnp.diag(jnp.arange(1., 7))
  for given in (None, covariance):
    exact = lowrank.objective(kernel, u, v, covariance=given)
    found = lowrank.sampled_objective(
        KEY, kernel, u, v, covariance=given, samples=400_000)
    assert abs(found / exact - 1) < 0.02


def test_gradients_are_finite_differences_and_finite_at_the_optimum():
  with jax.enable_x64(True):
    kernel, u, v = (jax.random.normal(jax.random.key(i), shape, jnp.float64)
                    for i, shape in enumerate([(5, 7), (5, 2), (2, 7)]))
    kernel, v = kernel.at[:, 2].set(0), v.at[:, 3].set(0)

    def loss(factors):
      return lowrank.objective(kernel, *factors)

    grads = jax.grad(loss)((u, v))
    direction = jax.tree.map(jnp.ones_like, (u, v))
    # Not along the zero columns, where the objective has a corner.
    direction = (direction[0], direction[1].at[:, 2:4].set(0))
    ends = [loss(jax.tree.map(lambda x, t, s=s: x + s * t, (u, v), direction))
            for s in (1e-5, -1e-5)]
    want = (ends[0] - ends[1]) / 2e-5
    got = sum((g * t).sum() for g, t in zip(grads, direction, strict=True))
    np.testing.assert_allclose(got, want, rtol=1e-8)
    exact = jax.grad(loss)((kernel, jnp.eye(7)))
    for grad in exact:
      np.testing.assert_allclose(grad, 0, atol=1e-12)


@pytest.mark.parametrize(
    'activation', ['relu', 'gelu', 'swish', 'tanh', 'linear'])
@pytest.mark.parametrize('which', ['kernel', 'u'])
def test_gradients_at_zero_columns_are_finite_differences(activation, which):
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    kernel, u, v = (jnp.asarray(rng.standard_normal(shape)) for shape in (
        (3, 4), (3, 2), (2, 4)))

    def loss(moved):
      given = (moved, u, v) if which == 'kernel' else (kernel, moved, v)
      return lowrank.objective(*given, activation=activation)

    zero = jnp.zeros_like({'kernel': kernel, 'u': u}[which])
    t = jnp.asarray(rng.standard_normal(zero.shape))
    want = (loss(1e-6 * t) - loss(-1e-6 * t)) / 2e-6
    for scale in (0, 1e-170):
      slope = (jax.grad(loss)(zero + scale) * t).sum()
      np.testing.assert_allclose(slope, want, rtol=1e-6)


def test_the_gap_of_the_truncation():
  """Theorem 3.5, without its division by d."""
  for i, (d, n, r) in enumerate([(8, 8, 1), (16, 40, 3), (40, 16, 5)]):
    kernel = lecun_normal(jax.random.key(i), (d, n))
    losses = [
        lowrank.objective(kernel, *lowrank.factorize(
            KEY, kernel, r, method=method))
        for method in ('spectral', 'rescaled')]
    np.testing.assert_allclose(
        losses[0] - losses[1], lowrank.svd_gap(kernel, r), rtol=2e-4)


def test_requests_that_are_refused():
  kernel = jnp.ones((3, 4))
  u, v = jnp.ones((3, 2)), jnp.ones((2, 4))
  with pytest.raises(ValueError, match=r'u of shape \(3, 2\).*\(4, 4\)'):
    lowrank.objective(jnp.ones((4, 4)), u, v)
  with pytest.raises(ValueError, match='must be a matrix'):
    lowrank.objective(jnp.ones((3, 4), int), u, v)
  with pytest.raises(ValueError, match="activation 'elu' is unknown"):
    lowrank.objective(kernel, u, v, activation='elu')
  with pytest.raises(ValueError, match='name or an elementwise'):
    lowrank.objective(kernel, u, v, activation=3)
  with pytest.raises(ValueError, match='is not that of 3 inputs'):
    lowrank.sampled_objective(KEY, kernel, u, v, covariance=jnp.eye(4))
