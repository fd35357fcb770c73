"""What the activations keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structinit_jax import layers

X = np.random.default_rng(0).standard_normal((5, 6, 8)).astype(np.float32)


@pytest.mark.parametrize('axis', [-1, 0, 1, 2])
def test_maxmin_permutes_the_features_of_a_sample(axis):
  x = np.concatenate([X, X[::-1]]) if axis == 0 else X
  y = np.asarray(layers.maxmin(jnp.asarray(x), axis))
  np.testing.assert_array_equal(np.sort(y, axis), np.sort(x, axis))
  a, b = np.split(y, 2, axis)
  assert (a >= b).all()
  np.testing.assert_array_equal(layers.maxmin(jnp.asarray(y), axis), y)


def test_the_jacobian_of_maxmin_is_a_permutation():
  jacobian = np.asarray(jax.jacobian(layers.maxmin)(X[0, 0]))
  assert set(jacobian.ravel()) == {0, 1}
  np.testing.assert_array_equal(jacobian.T @ jacobian, np.eye(8))


def test_maxmin_of_an_odd_number_is_refused():
  with pytest.raises(ValueError, match=r'\(2, 5\).* got 5 on axis 1.* 4 and 6'):
    layers.maxmin(jnp.zeros((2, 5)), 1)


@pytest.mark.parametrize('shape, axis', [((), -1), ((4,), 1), ((4,), -2)])
def test_maxmin_of_an_axis_that_is_none_is_refused(shape, axis):
  with pytest.raises(ValueError, match=f'has no axis {axis}'):
    layers.maxmin(jnp.zeros(shape), axis)


@pytest.mark.parametrize('axis', [-1, 0, 1])
def test_crelu_loses_nothing(axis):
  y = np.asarray(layers.crelu(jnp.asarray(X), axis))
  plus, minus = np.split(y, 2, axis)
  assert (y >= 0).all()
  np.testing.assert_array_equal(plus - minus, X)
  np.testing.assert_array_equal(plus * minus, 0)
  np.testing.assert_allclose(
      np.linalg.norm(y, axis=axis), np.linalg.norm(X, axis=axis), rtol=1e-6)


def test_the_jacobian_of_crelu_is_an_isometry():
  jacobian = np.asarray(jax.jacobian(layers.crelu)(X[0, 0]))
  np.testing.assert_array_equal(jacobian.T @ jacobian, np.eye(8))
