"""Jacobians against NumPy: exact spectra, and Lanczos within its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structinit_jax import sao
from structinit_jax.diagnostics import jacobians

KEY = jax.random.key(8)


def matrix_of(shape, seed=0, rank=None):
  rng = np.random.default_rng(seed)
  if rank is None:
    return rng.normal(size=shape)
  return rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))


def linear(matrix, dtype=jnp.float32):
  matrix = jnp.asarray(matrix, dtype)
  return lambda x: jnp.matmul(matrix, x, precision='highest')


def svd(matrix):
  return np.linalg.svd(matrix, compute_uv=False)


@pytest.mark.parametrize('shape', [(5, 5), (3, 7), (7, 3), (1, 4), (4, 1)])
def test_linear_functions(shape):
  matrix = matrix_of(shape)
  got = jacobians.jacobian_singular_values(linear(matrix), jnp.ones(shape[1]))
  assert got.shape == (min(shape),)
  np.testing.assert_allclose(got, svd(matrix), rtol=1e-5, atol=1e-6)


def test_arrays_of_any_shape():
  """An outer product: at x, y -> x y^T + y x^T is linear in y."""
  x = np.array([1., 2., 3.])

  def fn(y):
    return jnp.stack([jnp.outer(y[0], jnp.asarray(x, jnp.float32)), 2 * y.T])

  def flat(y):
    return np.stack([np.outer(y[0], x), 2 * y.T]).ravel()

  dense = np.stack([flat(e.reshape(3, 3)) for e in np.eye(9)], axis=1)
  got = jacobians.jacobian_singular_values(fn, jnp.ones((3, 3)))
  np.testing.assert_allclose(got, svd(dense), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('activation, derivative', [
    (jnp.tanh, lambda h: 1 - np.tanh(h)**2),
    (jax.nn.relu, lambda h: (h > 0).astype(float))])
def test_a_layer_and_a_chain(activation, derivative):
  """J = D W, layer by layer; the product is the network's."""
  weights = [matrix_of((6, 8), 1), matrix_of((5, 6), 2), matrix_of((7, 5), 3)]
  x = np.random.default_rng(4).normal(size=8)
  layers = [lambda h, w=w: activation(linear(w)(h)) for w in weights]
  got = jacobians.chain_singular_values(layers, jnp.asarray(x, jnp.float32))
  total, h = np.eye(8), x
  for w, values in zip(weights, got.layers, strict=True):
    jacobian = derivative(w @ h)[:, None] * w
    np.testing.assert_allclose(values, svd(jacobian), rtol=1e-4, atol=1e-5)
    total = jacobian @ total
    h = np.asarray(activation(jnp.asarray(w @ h)), np.float64)
  np.testing.assert_allclose(
      got.total, svd(total)[:len(got.total)], rtol=1e-4, atol=1e-4)

  def network(y):
    for layer in layers:
      y = layer(y)
    return y

  np.testing.assert_allclose(
      jacobians.jacobian_singular_values(network, jnp.asarray(x, jnp.float32)),
      got.total, rtol=1e-4, atol=1e-4)


def test_a_deep_sparse_network_is_an_isometry():
  """200 layers under a scan, 16 of 64 weights a unit."""
  layer = sao.Topology((64, 64), 4)
  kernels = jax.vmap(
      lambda key: sao.to_dense(sao.orthogonal_values(key, layer), layer)
  )(jax.random.split(KEY, 200))

  def network(x):
    return jax.lax.scan(
        lambda h, k: (jnp.matmul(h, k, precision='highest'), None), x, kernels
    )[0]

  values = jacobians.jacobian_singular_values(network, jnp.ones(64))
  np.testing.assert_allclose(values, 1, atol=2e-5)
  ends = jacobians.extreme_singular_values(
      network, jnp.ones(64), key=KEY, steps=8)
  np.testing.assert_allclose(ends.largest, 1, atol=2e-5)
  np.testing.assert_allclose(ends.smallest, 1, atol=2e-5)
  assert max(ends.largest_error, ends.smallest_error) < 2e-5


def test_dtypes():
  matrix = matrix_of((5, 4))
  got = jacobians.jacobian_singular_values(
      linear(matrix, jnp.bfloat16), jnp.ones(4, jnp.bfloat16))
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, svd(matrix), rtol=0.02)
  with jax.enable_x64(True):
    got = jacobians.jacobian_singular_values(
        linear(matrix, jnp.float64), jnp.ones(4))
    np.testing.assert_allclose(got, svd(matrix), rtol=1e-12)
    ends = jacobians.extreme_singular_values(
        linear(matrix, jnp.float64), jnp.ones(4), key=KEY)
    np.testing.assert_allclose(ends.largest, svd(matrix)[0], rtol=1e-12)
    np.testing.assert_allclose(ends.smallest, svd(matrix)[-1], rtol=1e-11)


def embedded(matrix):
  return np.pad(matrix, [(0, 6 - len(matrix)), (0, 9 - matrix.shape[1])])


SPECTRA = {
    'random': matrix_of((6, 9)), 'deficient': matrix_of((6, 9), rank=3),
    'row': embedded(matrix_of((1, 9))), 'zero': np.zeros((6, 9)),
    'isometry': 2 * np.eye(6, 9), 'blocks': embedded(
        np.kron(np.diag([3., 3., 1.]), np.array([[1., 1.], [1., 2.]]))),
    'reflection': np.diag([1., -1., 1., -1., 1., 1.]) @ np.eye(6, 9),
}
all_steps = jax.jit(lambda matrix: jacobians.extreme_singular_values(
    linear(matrix), jnp.ones(matrix.shape[1]), key=KEY, steps=50))


@pytest.mark.parametrize('name', SPECTRA)
def test_all_steps_are_exact(name):
  """Breakdowns too: equal values, and a kernel that a vector never leaves."""
  for matrix in (SPECTRA[name], SPECTRA[name].T):
    got = all_steps(jnp.asarray(matrix, jnp.float32))
    want = svd(matrix)
    scale = max(want[0], 1)
    np.testing.assert_allclose(got.largest, want[0], atol=3e-6 * scale)
    np.testing.assert_allclose(got.smallest, want[-1], atol=3e-6 * scale)
    assert got.largest_error == got.smallest_error == 0


@pytest.mark.parametrize('shape, steps', [
    ((90, 40), 15), ((40, 90), 1), ((60, 60), 30)])
def test_estimates_are_bounds_with_errors_that_hold(shape, steps):
  matrix = matrix_of(shape, seed=steps)
  want = svd(matrix)
  got = jacobians.extreme_singular_values(
      linear(matrix), jnp.ones(shape[1]), key=KEY, steps=steps)
  rounding = 1e-5 * want[0]
  assert got.largest <= want[0] + rounding
  assert got.smallest >= want[-1] - rounding
  for value, error in [(got.largest, got.largest_error),
                       (got.smallest, got.smallest_error)]:
    assert np.abs(want - value).min() <= error + rounding
  if steps == 30:
    np.testing.assert_allclose(got.largest, want[0], rtol=1e-3)


@pytest.mark.optimized
def test_a_jacobian_that_does_not_fit():
  """A million inputs; memory for tens of vectors, compiled as a whole."""
  size = 1_000_000
  scale = jnp.linspace(0.5, 3, size)
  fn = jax.jit(lambda key: jacobians.extreme_singular_values(
      lambda x: jnp.sin(scale * x), jnp.zeros(size), key=key, steps=24))
  got = fn(KEY)
  np.testing.assert_allclose(got.largest, 3, rtol=5e-3)
  np.testing.assert_allclose(got.smallest, 0.5, rtol=5e-2)
  assert got.largest <= 3 + 1e-5
  assert got.smallest >= 0.5 - 1e-5


@pytest.mark.parametrize('fn, x, message', [
    (lambda x: (x, x), jnp.ones(3), 'one array to one array, and returned'),
    (lambda x: x, jnp.ones(3, int), 'not a real floating-point'),
    (lambda x: x > 0, jnp.ones(3), 'not a real floating-point'),
    (lambda x: x[:0], jnp.ones(3), r'maps shape \(3,\) to \(0,\)'),
    (lambda x: jnp.ones(3), jnp.ones(0), 'at least one input')])
def test_what_has_no_jacobian(fn, x, message):
  with pytest.raises(ValueError, match=message):
    jacobians.jacobian_singular_values(fn, x)
  with pytest.raises(ValueError, match=message):
    jacobians.chain_singular_values([fn], x)
  with pytest.raises(ValueError, match=message):
    jacobians.extreme_singular_values(fn, x, key=KEY)


def test_no_layers_and_no_steps():
  with pytest.raises(ValueError, match='at least one layer'):
    jacobians.chain_singular_values([], jnp.ones(3))
  for steps in (0, -1, 1.5):
    with pytest.raises(ValueError, match='whole number, at least 1'):
      jacobians.extreme_singular_values(
          jnp.sin, jnp.ones(3), key=KEY, steps=steps)
