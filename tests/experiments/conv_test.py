"""Patches times matrix does what `lax.conv_general_dilated` does."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.models import conv

NHWC = lax.conv_dimension_numbers(
    (1, 1, 1, 1), (1, 1, 1, 1), ('NHWC', 'HWIO', 'NHWC'))
PAIRS = ((2, 1), (0, 3))


def _draw(*shapes):
  rng = np.random.default_rng(0)
  return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def _ours(x, kernel, strides, padding, dilation=None):
  return conv.conv_general_dilated(
      x, kernel, strides, padding, rhs_dilation=dilation,
      dimension_numbers=NHWC)


def _theirs(x, kernel, strides, padding, dilation=None):
  return lax.conv_general_dilated(
      x, kernel, strides, padding, rhs_dilation=dilation,
      dimension_numbers=NHWC)


def _check(x, kernel, strides, paddings, dilation=None):
  """Compares values and both gradients, in one program."""

  @jax.jit
  def both(x, kernel):
    out = []
    for padding in paddings:
      for function in (_ours, _theirs):
        y, pull = jax.vjp(
            lambda x, k, f=function, p=padding: f(x, k, strides, p, dilation),
            x, kernel)
        out.append((y, *pull(jnp.cos(3 * y))))
    return out

  out = both(x, kernel)
  for ours, theirs in zip(out[::2], out[1::2], strict=True):
    for a, b in zip(ours, theirs, strict=True):
      assert a.shape == b.shape
      np.testing.assert_allclose(a, b, atol=3e-4, rtol=1e-4)


@pytest.mark.parametrize('window', [(3, 3), (8, 9)])
@pytest.mark.parametrize('strides, size', [
    ((1, 1), (8, 10)), ((2, 2), (8, 9)), ((2, 2), (9, 11)), ((3, 1), (9, 10))])
def test_strides_paddings_and_odd_sizes(window, strides, size):
  x, kernel = _draw((2, *size, 3), (*window, 3, 4))
  _check(x, kernel, strides, ['SAME', 'VALID', 'SAME_LOWER', PAIRS])


@pytest.mark.parametrize('dilation', [(2, 2), (3, 1), [1, 1]])
@pytest.mark.parametrize('strides, size, window', [
    ((1, 1), (9, 8), (3, 2)), ((2, 1), (9, 8), (3, 2)),
    ((2, 1), (26, 16), (9, 8))])
def test_dilated_kernels(dilation, strides, size, window):
  x, kernel = _draw((2, *size, 3), (*window, 3, 4))
  _check(x, kernel, strides, ['SAME', 'VALID', 'SAME_LOWER', PAIRS], dilation)


@pytest.mark.parametrize('window', [(1, 1), (2, 3), (5, 2)])
def test_kernel_sizes(window):
  x, kernel = _draw((2, 7, 8, 2), (*window, 2, 3))
  _check(x, kernel, (2, 1), ['SAME', 'VALID', PAIRS])


def test_a_single_row_of_a_single_image():
  x, kernel = _draw((1, 1, 6, 1), (3, 3, 1, 1))
  _check(x, kernel, (1, 1), ['SAME'])


@pytest.mark.parametrize('batch, size, window', [
    (2, 4, (3, 5)), (2, 4, (5, 3)), (2, 7, (8, 8)), (0, 9, (3, 3)),
    (0, 9, (8, 8))])
def test_no_outputs(batch, size, window):
  x, kernel = _draw((batch, size, size, 2), (*window, 2, 3))
  _check(x, kernel, (2, 1), ['VALID'])


@pytest.mark.parametrize('strides', [(1, 1), (2, 3), (13, 1)])
@pytest.mark.parametrize('size', [(5, 6), (13, 21)])
def test_large_windows_on_small_images_and_in_parts_of_tiles(size, strides):
  x, kernel = _draw((2, *size, 2), (9, 8, 2, 3))
  _check(x, kernel, strides, ['SAME', ((4, 9), (8, 3))])


@pytest.mark.parametrize('axes', [(None, 0), (0, 0)])
def test_vmap_over_kernels(axes):
  x, kernel = _draw((4, 2, 7, 7, 3), (4, 3, 3, 3, 5))
  x = x if axes[0] == 0 else x[0]

  @jax.jit
  def both(x, kernel):
    def one(function, x, kernel):
      out = function(x, kernel, (2, 2), 'SAME')
      return jnp.sin(out).sum(), out
    return [
        jax.vmap(jax.grad(
            lambda x, k, f=f: one(f, x, k), (0, 1), has_aux=True), axes)(
                x, kernel) for f in (_ours, _theirs)]

  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b, atol=1e-4, rtol=1e-4), *both(x, kernel))


@pytest.fixture
def to_lax(monkeypatch):
  """Counts the calls that go to XLA."""
  calls = []
  original = lax.conv_general_dilated

  def spy(*args, **kwargs):
    calls.append(args)
    return original(*args, **kwargs)

  monkeypatch.setattr(conv.lax, 'conv_general_dilated', spy)
  return calls


def _shape(shapes, padding='SAME', **kwargs):
  """Traces a convolution of these shapes; returns what comes out."""
  strides = (1,) * (len(shapes[0]) - 2)
  return jax.eval_shape(
      lambda x, k: conv.conv_general_dilated(x, k, strides, padding, **kwargs),
      *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))


@pytest.mark.parametrize('dilation', [None, (1, 1), [1, 1], (1, 2)])
def test_plain_convolutions_do_not_go_to_xla(to_lax, dilation):
  _shape([(2, 6, 6, 3), (3, 3, 3, 4)], rhs_dilation=dilation,
         dimension_numbers=NHWC)
  assert not to_lax


@pytest.mark.parametrize('model', [
    models.ShallowCNN(10, (4, 4, 4, 4)), models.resnet18(10)])
def test_the_models_do_not_go_to_xla(to_lax, model):
  jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 3), 'f4'))
  assert not to_lax


@pytest.mark.parametrize('shapes, kwargs', [
    ([(2, 6, 6, 4), (3, 3, 4, 4)],
     {'lhs_dilation': (2, 1), 'dimension_numbers': NHWC, 'padding': PAIRS}),
    ([(2, 6, 6, 4), (3, 3, 2, 4)],
     {'feature_group_count': 2, 'dimension_numbers': NHWC}),
    ([(2, 6, 6, 4), (3, 3, 4, 4)],
     {'batch_group_count': 2, 'dimension_numbers': NHWC}),
    ([(2, 4, 6, 6), (4, 4, 3, 3)], {}),
    ([(2, 4, 6, 6), (3, 3, 4, 4)],
     {'dimension_numbers': ('NCHW', 'HWIO', 'NCHW')}),
    ([(2, 4, 6, 6), (3, 3, 4, 4)],
     {'dimension_numbers': lax.conv_dimension_numbers(
         (2, 4, 6, 6), (3, 3, 4, 4), ('NCHW', 'HWIO', 'NCHW'))}),
    ([(2, 5, 3), (3, 3, 4)], {'dimension_numbers': ('NHC', 'HIO', 'NHC')}),
    ([(2, 5, 5, 5, 3), (3, 3, 3, 3, 4)],
     {'dimension_numbers': ('NDHWC', 'DHWIO', 'NDHWC')}),
])
def test_anything_else_goes_to_xla(to_lax, shapes, kwargs):
  _shape(shapes, **kwargs)
  assert len(to_lax) == 1


def test_another_backend_goes_to_xla(to_lax, monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  _shape([(2, 6, 6, 3), (3, 3, 3, 4)], dimension_numbers=NHWC)
  assert len(to_lax) == 1


def test_groups_give_what_lax_gives():
  x, kernel = _draw((2, 6, 6, 4), (3, 3, 2, 4))
  np.testing.assert_array_equal(*(
      function(x, kernel, (1, 1), 'SAME', dimension_numbers=NHWC,
               feature_group_count=2)
      for function in (conv.conv_general_dilated, lax.conv_general_dilated)))


def test_bfloat16_gives_bfloat16():
  x, kernel = (jnp.asarray(a, jnp.bfloat16)
               for a in _draw((2, 6, 6, 3), (3, 3, 3, 4)))
  ours, theirs = (f(x, kernel, (1, 1), 'SAME') for f in (_ours, _theirs))
  assert ours.dtype == theirs.dtype == jnp.bfloat16
  np.testing.assert_allclose(
      np.asarray(ours, np.float32), np.asarray(theirs, np.float32),
      atol=0.1, rtol=0.02)


def test_the_dtype_that_is_asked_for_is_given():
  out = jax.eval_shape(
      lambda x, k: conv.conv_general_dilated(
          x, k, (1, 1), 'SAME', dimension_numbers=NHWC,
          preferred_element_type=jnp.float32),
      *(jax.ShapeDtypeStruct(shape, jnp.bfloat16)
        for shape in ((2, 6, 6, 3), (3, 3, 3, 4))))
  assert out.dtype == jnp.float32
