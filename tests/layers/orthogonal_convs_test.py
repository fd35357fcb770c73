"""Convolutions that are orthogonal, whatever their parameters."""

import jax
from jax import test_util
import jax.numpy as jnp
import numpy as np
import pytest

from structinit_jax import layers
from structinit_jax import sao
from structinit_jax.layers import orthogonal_convs

KEY = jax.random.key(3)


def jacobians(fn, variables, shape):
  """Yields the Jacobian by the image of `fn(variables, x)`, in float64."""
  found = jax.jit(jax.jacobian(lambda x, v: fn(v, x).ravel()))
  for v in variables:
    matrix = np.asarray(found(jnp.zeros(shape), v), np.float64)
    yield matrix.reshape(len(matrix), -1)


def assert_orthogonal(matrix, atol):
  np.testing.assert_allclose(
      np.linalg.svd(matrix, compute_uv=False), 1, rtol=0, atol=atol)


def moved(variables):
  """After an update that is no small one."""
  return jax.tree.map(
      lambda p: p + 0.5 * jax.random.normal(KEY, p.shape, p.dtype), variables)


@pytest.mark.parametrize('features, kernel, stride, image, options', [
    (6, (3, 3), 1, (6, 3, 6), {'degree': 3}),
    (9, (2, 3), 1, (4, 3, 4), {'degree': 2}),
    (7, (2, 2), 2, (4, 4, 3), {}),
    (8, (3, 3), 1, (3, 3, 14), {'topology': sao.topology(
        KEY, (14, 8), degree=4, kind='random')})])
def test_eco_stays_orthogonal(features, kernel, stride, image, options):
  layer = layers.ECOConv(features, kernel, stride, use_bias=False, **options)
  shape = (1, *image)
  variables = jax.jit(layer.init)(KEY, jnp.zeros(shape))
  both = variables, moved(variables)
  for matrix in jacobians(layer.apply, both, shape):
    assert_orthogonal(matrix, 5e-6)
  with jax.enable_x64(True):
    both = jax.tree.map(lambda p: np.asarray(p, np.float64), both[1:])
    for matrix in jacobians(layer.apply, both, shape):
      assert_orthogonal(matrix, 1e-12)


@pytest.mark.parametrize('frequencies, shape', [
    ('real', (12, 8)), ('complex', (8, 14))])
def test_orthogonal_kernels_are_left_as_they_are(frequencies, shape):
  topology = sao.topology(KEY, shape, degree=shape[0] // 2)
  for spatial in ((2, 3),):
    for x in sao.eco_values(KEY, topology, spatial, frequencies=frequencies):
      y = orthogonal_convs.orthogonalize(x)
      assert (y.shape, y.dtype) == (x.shape, x.dtype)
      np.testing.assert_allclose(y, x, atol=1e-6)
      z = orthogonal_convs.orthogonalize(
          x + jax.random.normal(KEY, x.shape))
      p = np.fft.fftn(np.asarray(z, np.float64), axes=range(len(spatial)))
      np.testing.assert_allclose(
          np.linalg.svd(p, compute_uv=False), 1, atol=3e-6)


def test_gradients_of_eco_are_finite_differences():
  layer = layers.ECOConv(4, (3, 3), degree=2)
  with jax.enable_x64(True):
    layer = layer.clone(param_dtype=jnp.float64)
    x = jax.random.normal(KEY, (2, 3, 3, 4))
    variables = moved(jax.jit(layer.init)(KEY, x))
    test_util.check_grads(
        jax.jit(lambda v: jnp.sin(layer.apply(v, x))), (variables,), 1,
        ['rev'], eps=1e-5)


@pytest.mark.parametrize('features, kernel, stride, image', [
    (6, (3, 1), 1, (4, 4, 3)), (3, (3, 3), 1, (4, 4, 5)),
    (5, (5, 3), 2, (6, 4, 2))])
def test_soc_is_orthogonal_to_the_error_of_its_series(
    features, kernel, stride, image):
  layer = layers.SOCConv(features, kernel, stride, use_bias=False)
  shape = (1, *image)
  variables = jax.jit(layer.init)(KEY, jnp.zeros(shape))
  both = variables, moved(variables)
  for train, atol in ((True, 1.4e-4), (False, 2e-6)):
    for matrix in jacobians(
        lambda v, x, train=train: layer.apply(v, x, train=train), both, shape):
      assert_orthogonal(matrix, atol)
  with jax.enable_x64(True):
    both = jax.tree.map(lambda p: np.asarray(p, np.float64), both[1:])
    for matrix in jacobians(layer.apply, both, shape):
      assert_orthogonal(matrix, 1e-12)


def convolve(kernel, x):
  return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


@pytest.mark.parametrize('shape', [
    (3, 3, 4, 4), (1, 1, 6, 6), (5, 1, 2, 2), (3, 3, 1, 1), (1, 3, 3, 3)])
def test_skew_kernels(shape):
  with jax.enable_x64(True):
    kernel = jax.random.normal(KEY, shape, jnp.float64)
    kernels = [orthogonal_convs.skew(s * kernel) for s in (1e-3, 1., 1e3)]
    for a in jacobians(convolve, kernels, (1, 5, 4, shape[-1])):
      np.testing.assert_allclose(a, -a.T, atol=1e-14)
      norm = np.linalg.norm(a, 2)
      # The bound of the unfolded kernel is the norm itself for one tap.
      assert norm <= 0.7
      assert norm >= 0.7 * shape[-1]**(-1 / 128) - 1e-12 or shape[:2] != (1, 1)


def test_the_norm_bound_is_one():
  with jax.enable_x64(True):
    for shape in [(3, 3, 4, 4), (1, 1, 8, 8), (3, 5, 2, 2)]:
      kernel = jax.random.normal(KEY, shape, jnp.float64)
      bound = orthogonal_convs._norm_bound(kernel)
      (matrix,) = jacobians(convolve, [kernel], (1, 6, 6, shape[-1]))
      norm = np.linalg.norm(matrix, 2)
      unfolded = np.linalg.norm(np.reshape(kernel, (-1, shape[-1])), 2)
      assert norm <= bound
      ratio = bound / (unfolded * np.sqrt(shape[0] * shape[1]))
      assert 1 <= ratio <= shape[-1]**(1 / 128)


def test_what_cannot_be_skew_is_the_identity():
  layer = layers.SOCConv(1, (1, 1))
  x = jax.random.normal(KEY, (1, 3, 3, 1))
  y, variables = layer.init_with_output(KEY, x)
  np.testing.assert_array_equal(y, x)
  grads = jax.grad(lambda v: layer.apply(v, x).sum())(variables)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_gradients_of_soc_are_finite_differences():
  with jax.enable_x64(True):
    layer = layers.SOCConv(3, (3, 3), param_dtype=jnp.float64)
    x = jax.random.normal(KEY, (2, 4, 4, 2))
    variables = moved(jax.jit(layer.init)(KEY, x))
    test_util.check_grads(
        jax.jit(lambda v: jnp.sin(layer.apply(v, x, train=True))),
        (variables,), 1, ['rev'], eps=1e-5)


def test_requests_that_are_refused():
  x = jnp.zeros((1, 7, 6, 4))
  with pytest.raises(ValueError, match='nearest that works is 6x6'):
    layers.ECOConv(4, (3, 3)).init(KEY, x)
  with pytest.raises(ValueError, match='nearest that works is 8x6'):
    layers.ECOConv(4, (1, 1), stride=2).init(KEY, x)
  with pytest.raises(ValueError, match='no disjoint blocks'):
    layers.ECOConv(7, (1, 1), topology=sao.Topology(
        (7, 7), 7, 'weighing')).init(KEY, jnp.zeros((1, 2, 2, 7)))
  with pytest.raises(ValueError, match=r'nearest that works is \(3, 5\)'):
    layers.SOCConv(4, (2, 5)).init(KEY, x)


@pytest.mark.parametrize('layer', [layers.ECOConv, layers.SOCConv])
@pytest.mark.parametrize('options, message', [
    *[({'kernel_size': wrong}, 'kernel_size=.* 2 positive ints, .* such as')
      for wrong in (3, (3,), (3, 3, 3), (0, 3), (-1, 3), (1.5, 3), None, '33')],
    *[({'stride': wrong}, 'stride=.* must be') for wrong in (0, -1, 1.)],
    ({'features': None}, 'features=None must be an integer')])
def test_other_sizes_are_refused(layer, options, message):
  layer = layer(**{'features': 4, 'kernel_size': (3, 3), **options})
  with pytest.raises(ValueError, match=message):
    layer.init(KEY, jnp.zeros((1, 6, 6, 4)))


@pytest.mark.parametrize('layer', [layers.ECOConv, layers.SOCConv])
@pytest.mark.parametrize('shape', [(), (4,), (6, 4)])
def test_images_of_other_axes_are_refused(layer, shape):
  with pytest.raises(ValueError, match=r'no image .* at least 3 axes'):
    layer(4, (3, 3)).init(KEY, jnp.zeros(shape))
