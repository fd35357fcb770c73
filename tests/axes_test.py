"""The matrix view of a kernel, against numpy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import structinit_jax as si
from structinit_jax import axes
from structinit_jax import base

KEY = jax.random.key(0)


def splits(ndim):
  """Yields every way to give axes in order to reduction and output."""
  for order in itertools.permutations(range(ndim)):
    for reduction in range(1, ndim):
      for used in range(reduction + 1, ndim + 1):
        # The rest are batch axes, whose order is fixed.
        if list(order[used:]) == sorted(order[used:]):
          yield axes.Axes(order[:reduction], order[reduction:used])


@pytest.mark.parametrize('shape', [(2, 3), (4, 2, 3), (2, 1, 3), (0, 2, 3)])
def test_every_layout_round_trips(shape):
  x = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
  for view in splits(len(shape)):
    batch = tuple(a for a in range(len(shape))
                  if a not in view.reduction + view.output)
    order = batch + view.reduction + view.output
    outputs = math.prod(shape[a] for a in view.output)
    want = np.transpose(x, order).reshape(
        *(shape[a] for a in batch + view.reduction), outputs)
    canonical = view.to_canonical(jnp.asarray(x))
    np.testing.assert_array_equal(canonical, want)
    assert view.canonical_shape(shape) == want.shape
    np.testing.assert_array_equal(view.from_canonical(canonical, shape), x)
    np.testing.assert_array_equal(
        view.to_matrix(jnp.asarray(x)), want.reshape(
            *(shape[a] for a in batch),
            math.prod(shape[a] for a in view.reduction), outputs))


@pytest.mark.parametrize('view, shape', [
    (axes.OIHW, (5, 4, 3, 2)), (axes.HWIO, (3, 2, 4, 5)),
    (axes.Axes((3, 0), (2, 1)), (2, 3, 4, 5)),
    (axes.Axes((1,), (3,)), (2, 3, 4, 5)),
    (axes.Axes((4, 1, 2), (0,)), (2, 3, 4, 5, 2))])
def test_more_axes_round_trip(view, shape):
  x = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
  canonical = view.to_canonical(jnp.asarray(x))
  assert canonical.shape == view.canonical_shape(shape)
  np.testing.assert_array_equal(view.from_canonical(canonical, shape), x)


@pytest.mark.parametrize('view, ndim', [
    (axes.OIHW, 4), (axes.HWIO, 4), (axes.OI, 2),
    (axes.Axes((1, 2), (4,)), 5)])
def test_negative_axes_count_from_the_end(view, ndim):
  back = axes.Axes(tuple(a - ndim for a in view.reduction),
                   tuple(a - ndim for a in view.output))
  assert back.split(ndim) == view.split(ndim)


def test_a_convolution_is_its_matrix_times_patches():
  """OIHW rows go (height, width, in), as in the canonical HWIO kernel."""
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(5, 3, 2, 4))  # OIHW
  images = rng.normal(size=(2, 3, 6, 7))  # NCHW
  patches = np.stack([
      images[:, :, y:y + 2, x:x + 4] for y in range(5) for x in range(4)], 1)
  want = np.einsum('bpihw,oihw->bpo', patches, kernel)
  matrix = axes.OIHW.to_matrix(jnp.asarray(kernel, jnp.float32))
  rows = patches.transpose(0, 1, 3, 4, 2).reshape(2, 20, -1)
  np.testing.assert_allclose(rows @ np.asarray(matrix), want, atol=1e-5)
  # And the einsum is what XLA calls a convolution.
  got = jax.lax.conv_general_dilated(
      jnp.asarray(images, jnp.float32), jnp.asarray(kernel, jnp.float32),
      (1, 1), 'VALID', dimension_numbers=('NCHW', 'OIHW', 'NCHW'))
  np.testing.assert_allclose(
      np.asarray(got).transpose(0, 2, 3, 1).reshape(2, 20, 5), want,
      atol=1e-5)
  np.testing.assert_array_equal(
      matrix, axes.HWIO.to_matrix(
          jnp.asarray(kernel.transpose(2, 3, 1, 0), jnp.float32)))


def test_attention_heads_are_outputs_or_inputs():
  rng = np.random.default_rng(1)
  query = rng.normal(size=(6, 2, 4))  # (in, heads, head_dim)
  x = rng.normal(size=(3, 6))
  heads = np.einsum('bi,ihd->bhd', x, query)
  matrix = axes.Axes((0,), (1, 2)).to_matrix(jnp.asarray(query, jnp.float32))
  np.testing.assert_allclose(
      x @ np.asarray(matrix), heads.reshape(3, 8), atol=1e-5)
  out = rng.normal(size=(2, 4, 6))  # (heads, head_dim, out)
  matrix = axes.Axes((0, 1), (2,)).to_matrix(jnp.asarray(out, jnp.float32))
  np.testing.assert_allclose(
      heads.reshape(3, 8) @ np.asarray(matrix),
      np.einsum('bhd,hdo->bo', heads, out), atol=1e-5)


def test_dense_kernels_of_two_layouts():
  x = jnp.arange(6.).reshape(2, 3)
  np.testing.assert_array_equal(axes.IO.to_matrix(x), x)
  np.testing.assert_array_equal(axes.OI.to_matrix(x), x.T)


@pytest.mark.parametrize('view, ndim, message', [
    (axes.Axes((), (0,)), 2, 'needs a reduction and an output'),
    (axes.Axes((0,), ()), 2, 'needs a reduction and an output'),
    (axes.Axes((0,), (2,)), 2, 'does not fit an array of 2 axes'),
    (axes.Axes((-3,), (1,)), 2, 'does not fit'),
    (axes.Axes((0,), (0,)), 2, 'names an axis twice'),
    (axes.Axes((1,), (-1,)), 2, 'names an axis twice'),
    (axes.Axes((0, 0), (1,)), 3, 'names an axis twice'),
    (axes.OIHW, 3, 'does not fit an array of 3 axes')])
def test_axes_that_do_not_fit(view, ndim, message):
  with pytest.raises(ValueError, match=message):
    view.split(ndim)
  with pytest.raises(ValueError, match=message):
    si.with_axes(si.zeros, view)(KEY, (2,) * ndim)


def test_through_a_partition_the_error_names_the_leaf():
  rules = [('.*', si.with_axes(si.zeros, axes.OIHW))]
  shapes = {'conv': {'bias': jax.ShapeDtypeStruct((2,), jnp.float32)}}
  with pytest.raises(ValueError, match=r"'conv/bias' of shape \(2,\)"):
    si.partition(rules)(KEY, shapes)


def test_with_axes_is_a_transposition():
  plain = si.grassmann.packing()(KEY, (3, 2, 1, 8))
  oihw = si.with_axes(si.grassmann.packing(), axes.OIHW)(KEY, (8, 1, 3, 2))
  np.testing.assert_array_equal(
      np.asarray(oihw).transpose(2, 3, 1, 0), plain)


@pytest.mark.parametrize('view, shape', [
    (axes.OI, (3, 5)), (axes.Axes((0,), (1, 2)), (6, 2, 2)),
    (axes.Axes((2, 0), (1,)), (2, 4, 3))])
def test_a_jax_initializer_gets_the_axes_right(view, shape):
  kernel = si.with_axes(jax.nn.initializers.orthogonal(), view)(KEY, shape)
  matrix = np.asarray(view.to_matrix(kernel), np.float64)
  small = min(matrix.shape)
  gram = (matrix.T @ matrix if matrix.shape[1] == small
          else matrix @ matrix.T)
  np.testing.assert_allclose(gram, np.eye(small), atol=1e-6)
  wide = si.with_axes(jax.nn.initializers.he_normal(), view)(KEY, shape)
  assert wide.shape == shape


STACKS = [
    (axes.Axes((1,), (2,)), (3, 4, 2), 0),
    (axes.Axes((0,), (1,)), (4, 2, 3), 2),
    (axes.Axes((0,), (2,)), (4, 3, 2), 1)]


@pytest.mark.parametrize('view, shape, axis', STACKS)
def test_a_batch_axis_stacks_independent_kernels(view, shape, axis):
  uniform = jax.random.uniform
  stack = si.with_axes(uniform, view)(KEY, shape)
  assert stack.shape == shape
  for i, key in enumerate(jax.random.split(KEY, 3)):
    np.testing.assert_array_equal(
        np.take(np.asarray(stack), i, axis), uniform(key, (4, 2)))
  layers = {np.take(np.asarray(stack), i, axis).tobytes() for i in range(3)}
  assert len(layers) == 3


def test_a_deeper_stack_begins_with_the_same_layers():
  """One kernel is made after another, from its own key."""
  stacked = si.with_axes(si.grassmann.packing(), axes.Axes((1, 2), (3,)))
  deep = np.asarray(stacked(KEY, (4, 3, 2, 8)))
  np.testing.assert_array_equal(stacked(KEY, (2, 3, 2, 8)), deep[:2])


def test_two_batch_axes():
  uniform = jax.random.uniform
  stack = np.asarray(
      si.with_axes(uniform, axes.Axes((1,), (3,)))(KEY, (2, 4, 3, 5)))
  keys = jax.random.split(KEY, 6)
  for i, j in itertools.product(range(2), range(3)):
    np.testing.assert_array_equal(
        stack[i, :, j, :], uniform(keys[3 * i + j], (4, 5)))


@pytest.mark.parametrize('view, shape, fan', [
    (axes.OIHW, (4, 2, 3, 3), 3),
    (axes.Axes((0,), (2,)), (4, 3, 5), (4, 4, 4))])
def test_aux_of_other_axes_and_of_a_stack(view, shape, fan):
  """Masks have the shape of the leaf; facts are one a kernel."""
  def structure(key, shape):
    return {'mask': jax.random.uniform(key, shape) < 0.5, 'fan': shape[0]}

  masked = base.LeafInit(
      'masked', lambda key, shape, dtype: structure(key, shape)['mask'].astype(
          dtype), structure)
  init = si.with_axes(masked, view)
  aux = init.aux(KEY, shape)
  np.testing.assert_array_equal(
      init(KEY, shape), aux['mask'].astype(jnp.float32))
  assert 0 < np.mean(aux['mask']) < 1
  assert aux['fan'] == fan


def test_aux_of_an_initializer_without_any():
  init = si.with_axes(jax.nn.initializers.orthogonal(), axes.OI)
  assert init.aux(KEY, (3, 4)) == {}
  assert si.with_axes(si.zeros, axes.Axes((1,), (2,))).aux(
      KEY, (0, 3, 4)) == {}
