"""Statistics of kernels, against float64 numpy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import structinit_jax as si

KEY = jax.random.key(0)
statistics = jax.jit(si.diagnostics.kernel_statistics)


def oracle(kernel):
  filters = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]).T
  norm = np.linalg.norm(filters, axis=1)
  sines, cosines = [], []
  for i, j in itertools.combinations(range(len(filters)), 2):
    if norm[i] and norm[j]:
      a, b = filters[i] / norm[i], filters[j] / norm[j]
      cosines.append(abs(a @ b))
      sines.append(np.linalg.norm(b - a * (a @ b)))
    else:
      cosines.append(1.)
      sines.append(0.)
  return {
      'mean': filters.mean(1), 'variance': filters.var(1), 'norm': norm,
      'near_zero': norm <= 1e-2 * math.sqrt(np.mean(norm**2)),
      'chordal_distance': np.mean(sines), 'coherence': max(cosines)}


def check(kernel):
  got = statistics(kernel)._asdict()
  want = oracle(kernel)
  assert got.keys() == want.keys()
  for name, value in want.items():
    assert got[name].shape == np.shape(value)
    if name == 'near_zero':
      np.testing.assert_array_equal(got[name], value)
    else:
      assert got[name].dtype == jnp.float32
      np.testing.assert_allclose(
          got[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize('shape', [(3, 3, 1, 6), (1, 2)])
def test_kernel_statistics(shape):
  check(jax.random.normal(KEY, shape) + 0.3)


def test_statistics_of_filters_of_every_size():
  scale = jnp.array([1e-4, 1e-2, 0.1, 1., 10., 100.])
  kernel = jax.random.normal(KEY, (9, 6)) * scale[None]
  check(kernel)
  assert statistics(kernel).near_zero.tolist() == [
      True, True, True, False, False, False]
  assert statistics(kernel, threshold=1e-4).near_zero.tolist() == [
      True, False, False, False, False, False]


def test_orthogonal_filters():
  kernel = 3 * jax.nn.initializers.orthogonal()(KEY, (9, 6))
  stats = statistics(kernel)
  np.testing.assert_allclose(stats.chordal_distance, 1, atol=1e-6)
  np.testing.assert_allclose(stats.coherence, 0, atol=1e-6)
  np.testing.assert_allclose(stats.norm, 3, rtol=1e-6)


def test_signs_and_scales_do_not_change_the_lines():
  kernel = jax.random.normal(KEY, (9, 6))
  other = kernel * jnp.array([[1., -1., -3., 0.5, 10., 0.1]])
  a, b = statistics(kernel), statistics(other)
  np.testing.assert_allclose(a.coherence, b.coherence, rtol=1e-6)
  np.testing.assert_allclose(a.chordal_distance, b.chordal_distance, rtol=1e-6)


def test_a_zero_filter_adds_no_diversity():
  kernel = jnp.array([[1., 0., 0.], [0., 1., 0.], [0., 0., 0.]])
  check(kernel)
  stats = statistics(kernel)
  assert stats.near_zero.tolist() == [False, False, True]
  np.testing.assert_allclose(stats.chordal_distance, 1 / 3, rtol=1e-6)
  assert stats.coherence == 1


def test_all_filters_zero():
  stats = statistics(jnp.zeros((9, 6)))
  assert stats.near_zero.all()
  assert stats.chordal_distance == 0
  assert stats.coherence == 1


def test_equal_filters_have_no_diversity():
  """Lines are equal whatever the norm and the sign."""
  one = jax.random.normal(KEY, (9, 1))
  stats = statistics(one * jnp.array([[1., 2., -3., 0.3, 7., -0.9]]))
  np.testing.assert_allclose(stats.coherence, 1, atol=1e-6)
  np.testing.assert_allclose(stats.chordal_distance, 0, atol=1e-6)


def test_nearly_equal_filters():
  """A sine of 1e-3 has a cosine that float32 can hardly tell from 1."""
  one, more = jax.random.normal(KEY, (2, 5, 1))
  kernel = jnp.concatenate([one, 2 * one + 1e-3 * more], axis=1)
  want = oracle(kernel)['chordal_distance']
  np.testing.assert_allclose(
      statistics(kernel).chordal_distance, want, rtol=1e-3)


def test_one_filter():
  stats = statistics(jnp.array([[3.], [4.]]))
  assert stats.norm.tolist() == [5.]
  assert stats.mean.tolist() == [3.5]
  assert stats.variance.tolist() == [0.25]
  assert stats.near_zero.tolist() == [False]
  assert np.isnan(stats.chordal_distance)  # there are no pairs
  assert stats.coherence == 0


def test_bfloat16_is_measured_in_float32():
  kernel = jax.random.normal(KEY, (9, 6)).astype(jnp.bfloat16)
  check(kernel)
  for got, want in zip(statistics(kernel),
                       statistics(kernel.astype(jnp.float32)), strict=True):
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize('shape', [(4,), (2, 4), (2, 3, 5, 4)])
def test_dead_units(shape):
  activations = np.zeros(shape, np.float32)
  activations[..., 1] = 1.
  activations[..., 3].flat[-1:] = 0.
  activations.reshape(-1, 4)[-1, 3] = 1e-30  # one example, one position
  activations[..., 2] = -1.
  got = si.diagnostics.dead_units(jnp.asarray(activations))
  assert got.tolist() == [True, False, True, False]


def test_dead_units_of_an_empty_batch():
  assert si.diagnostics.dead_units(jnp.zeros((0, 3))).tolist() == [True] * 3


SHAPES = {
    'stem': {'kernel': jax.ShapeDtypeStruct((2, 2, 2, 8), jnp.float32),
             'bias': jax.ShapeDtypeStruct((8,), jnp.bfloat16)},
    'head': [jax.ShapeDtypeStruct((8, 3), jnp.float32),
             jax.ShapeDtypeStruct((), jnp.float32)],
}


def test_describe_has_every_leaf():
  init_fn = si.partition([
      ('stem/kernel', si.grassmann.packing(scale=2.)),
      ('head/0', jax.nn.initializers.ones), ('.*', si.zeros)])
  maker = "grassmann.packing(layout='taps', scale=2.0)"
  # Unit vectors of R^8, times 2: mean square 4 / 8.
  kernel = init_fn(KEY, SHAPES)['stem']['kernel']
  moments = [f'{np.mean(kernel):.3g}', f'{np.std(kernel):.3g}']
  want = {
      'leaf': ['shape', 'initializer', 'mean', 'std'],
      'stem/kernel': ['float32[2,2,2,8]', *maker.split(), *moments],
      'stem/bias': ['bfloat16[8]', 'zeros', '0', '0'],
      'head/0': ['float32[8,3]', 'ones', '1', '0'],
      'head/1': ['float32[]', 'zeros', '0', '0']}
  for key, cells in [(KEY, None), (None, -2)]:
    table = si.describe(init_fn, SHAPES, key=key)
    lines = [line.split() for line in table.splitlines()]
    assert [line[0] for line in lines] == ['leaf', *si.leaf_names(SHAPES)]
    for line in lines:
      assert line[1:] == want[line[0]][:cells]
    assert all(line == line.rstrip() for line in table.splitlines())


def test_describe_any_init_fn():
  def init_fn(key, shapes):
    del key
    return jax.tree.map(lambda s: jnp.full(s.shape, 3., s.dtype), shapes)

  table = si.describe(init_fn, SHAPES, key=KEY)
  lines = [line.split() for line in table.splitlines()]
  assert [line[0] for line in lines[1:]] == si.leaf_names(SHAPES)
  assert all(line[2:] == ['3', '0'] for line in lines[1:])


@pytest.mark.parametrize('key', [None, KEY])
@pytest.mark.parametrize('rules, message', [
    ([('stem/.*', si.zeros)], 'no rule covers'),
    ([('stem', si.zeros), ('.*', si.zeros)], 'match no leaf'),
    ([('.*', si.grassmann.packing())], "leaf 'head/0' of shape")])
def test_describe_raises_what_the_init_fn_raises(rules, message, key):
  with pytest.raises(ValueError, match=message):
    si.describe(si.partition(rules), SHAPES, key=key)


def test_describe_a_with_axes_and_a_nested_partition():
  init_fn = si.partition([
      ('stem/kernel', si.with_axes(si.zeros, si.axes.OIHW)),
      ('.*', si.partition([('.*', jax.nn.initializers.zeros)]))])
  table = si.describe(init_fn, SHAPES)
  assert 'with_axes(zeros, Axes(reduction=(2, 3, 1), output=(0,)))' in table
  assert len(table.splitlines()) == 5


def test_describe_nothing():
  assert si.describe(si.partition([]), {}).split() == [
      'leaf', 'shape', 'initializer']
