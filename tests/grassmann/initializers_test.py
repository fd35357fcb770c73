"""Kernels that are packings."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
import numpy as np
import pytest

import structinit_jax as si
from structinit_jax.grassmann import initializers

KEY = jax.random.key(2)
# Enough to meet the simplex bound on 9 planes of R^7, the one packing that is
# searched here; it is solved once a process.
packing = functools.partial(si.grassmann.packing, restarts=8, steps=400)


def frames_of(kernel, layout):
  """Returns float64 frames `(num, dim, rank)` as the docstring reads them."""
  x = np.asarray(kernel, np.float64)
  *spatial, c_in, c_out = x.shape
  if layout == 'taps':
    return np.stack([x[tap].T for tap in np.ndindex(*spatial)])
  return np.stack([x[..., n].reshape(-1, c_in) for n in range(c_out)])


def distances_of(frames):
  return np.array([
      math.sqrt(max(a.shape[1] - np.sum((a.T @ b)**2), 0))
      for a, b in itertools.combinations(frames, 2)])


def gram_error(frames):
  return np.abs(frames.mT @ frames - np.eye(frames.shape[2])).max()


# Shape, layout, squared distance, method.
KERNELS = [
    ((3, 3, 3, 32), 'taps', 3., 'orthogonal'),
    ((2, 2, 2, 8), 'taps', 2., 'orthogonal'),  # N k = m exactly
    ((4, 2, 2, 4), 'filters', 2., 'orthogonal'),
    ((2, 5, 2, 4), 'taps', 10 / 9, '10 planes of two prisms'),
    ((2, 2, 2, 10), 'filters', 10 / 9, '10 planes of two prisms'),
    ((4, 2, 8), 'taps', 2., 'orthogonal'),  # 1-D
    ((10, 2, 4), 'taps', 10 / 9, '10 planes of two prisms'),
    ((4, 2, 10), 'filters', 10 / 9, '10 planes of two prisms'),
    ((1, 2, 5, 2, 4), 'taps', 10 / 9, '10 planes of two prisms'),  # 3-D
    ((2, 2, 2, 2, 4), 'filters', 2., 'orthogonal'),
    ((3, 3, 2, 7), 'taps', 45 / 28, 'search'),
]


@pytest.mark.parametrize('shape, layout, squared, method', KERNELS)
def test_a_kernel_is_an_optimal_packing(shape, layout, squared, method):
  init = packing(layout=layout)
  frames = frames_of(init(KEY, shape), layout)
  assert gram_error(frames) < 1e-5
  smallest = distances_of(frames).min()
  np.testing.assert_allclose(smallest**2, squared, rtol=0, atol=1e-5)
  num, dim, rank = frames.shape
  facts = init.aux(KEY, shape)['packing']
  np.testing.assert_allclose(facts.pop('distance'), smallest, atol=1e-5)
  assert facts == {
      'dim': dim, 'rank': rank, 'num': num, 'metric': 'chordal',
      'method': method,
      'bound': si.grassmann.upper_bound(dim, rank, num)}
  np.testing.assert_allclose(
      facts['bound']**2, squared, rtol=0, atol=1e-9)
  assert (method == 'orthogonal') == (num * rank <= dim)


@pytest.mark.parametrize('shape', [(1, 1, 3, 8), (1, 3, 8), (1, 1, 1, 1)])
def test_one_tap_is_one_orthonormal_frame(shape):
  init = si.grassmann.packing()
  frames = frames_of(init(KEY, shape), 'taps')
  assert frames.shape == (1, shape[-1], shape[-2])
  assert gram_error(frames) < 1e-6
  assert init.aux(KEY, shape) == {}  # no pair, no distance


def test_a_plain_orthogonal_initializer_is_optimal_where_blocks_fit():
  """An erratum: the shallow networks of the paper need no packing."""
  kernel = jax.nn.initializers.orthogonal()(KEY, (3, 3, 3, 32))
  smallest = distances_of(frames_of(kernel, 'taps')).min()
  np.testing.assert_allclose(smallest, math.sqrt(3), rtol=0, atol=1e-6)
  assert si.grassmann.upper_bound(32, 3, 9) == math.sqrt(3)
  # The 7x7 stem of a ResNet is another matter; see solver_test.
  assert si.grassmann.upper_bound(64, 3, 49) < math.sqrt(3)


@pytest.mark.parametrize('shape, layout', [
    ((2, 2, 2, 8), 'taps'), ((2, 5, 2, 4), 'taps'), ((2, 2, 2, 10), 'filters'),
    ((4, 2, 2, 4), 'filters')])
@pytest.mark.parametrize('scale', ['none', 'kaiming', 0.25, 3])
def test_the_mean_square_is_exact(shape, layout, scale):
  """Not in the mean over keys, but of every kernel."""
  kernel = np.asarray(packing(layout=layout, scale=scale)(KEY, shape))
  dim = shape[-1] if layout == 'taps' else math.prod(shape[:-2])
  fan_in = math.prod(shape[:-1])
  want = {'none': 1 / dim, 'kaiming': 2 / fan_in}.get(
      scale, isinstance(scale, str) or scale**2 / dim)
  np.testing.assert_allclose(
      np.mean(kernel.astype(np.float64)**2), want, rtol=2e-6)
  plain = packing(layout=layout)(KEY, shape)
  factor = math.sqrt(want * dim)
  np.testing.assert_allclose(kernel, factor * plain, rtol=1e-6)


def test_kaiming_and_the_words_of_the_paper():
  """Basis vectors of norm sqrt(2 / fan_in): m times less in mean square."""
  shape, fan_in, dim = (2, 2, 2, 8), 8, 8
  kaiming = si.grassmann.packing(scale='kaiming')(KEY, shape)
  literal = si.grassmann.packing(scale=math.sqrt(2 / fan_in))(KEY, shape)
  np.testing.assert_allclose(
      np.linalg.norm(literal, axis=-1), math.sqrt(2 / fan_in), rtol=1e-6)
  np.testing.assert_allclose(
      np.mean(kaiming**2) / np.mean(literal**2), dim, rtol=1e-5)


@pytest.mark.parametrize('scale', [np.float64(0.5), np.float32(0.5), 1])
def test_a_scale_of_numpy_changes_no_dtype(scale):
  with jax.enable_x64(True):
    kernel = si.grassmann.packing(scale=scale)(
        KEY, (2, 2, 2, 8), jnp.float32)
  assert kernel.dtype == jnp.float32


@pytest.mark.parametrize('shape, layout', [
    ((2, 5, 2, 4), 'taps'), ((2, 2, 2, 10), 'filters')])
def test_keys_rotate_one_packing(shape, layout):
  """Other kernels, the same distances."""
  init = packing(layout=layout)
  kernels = [init(jax.random.key(k), shape) for k in range(3)]
  all_distances = [distances_of(frames_of(k, layout)) for k in kernels]
  for distances in all_distances[1:]:
    np.testing.assert_allclose(
        distances, all_distances[0], rtol=0, atol=1e-5)
  for a, b in itertools.combinations(kernels, 2):
    assert np.mean(np.asarray(a) != np.asarray(b)) > 0.99
  assert init.aux(jax.random.key(0), shape) == init.aux(
      jax.random.key(1), shape)


def solve(seed=77):
  """Solves 5 planes of R^7 as `packing` does, but for the cache."""
  return initializers._base_packing.__wrapped__(
      7, 2, 5, 'chordal', 2, 10, seed)[0]


def test_the_seed_is_of_the_search():
  np.testing.assert_array_equal(solve(), solve())
  assert np.all(solve() != solve(78))


@pytest.mark.optimized
def test_where_a_packing_is_first_traced_does_not_matter():
  """Concrete inside jit, in any mesh, with x64: and the same bits."""
  want = solve()
  frames = []
  mesh = jax.make_mesh((8,), ('d',), axis_types=(AxisType.Explicit,))
  with jax.enable_x64(True), jax.set_mesh(mesh):
    jax.jit(lambda: frames.append(solve()))()
  assert isinstance(frames[0], np.ndarray)
  assert frames[0].dtype == np.float64
  np.testing.assert_array_equal(frames[0], want)


def test_aux_is_a_copy():
  init = si.grassmann.packing()
  init.aux(KEY, (2, 2, 2, 8))['packing'].clear()
  assert init.aux(KEY, (2, 2, 2, 8))['packing']['method'] == 'orthogonal'


def test_aux_through_a_partition():
  shapes = {'stem': {'kernel': jax.ShapeDtypeStruct((2, 2, 2, 8), jnp.float32),
                     'bias': jax.ShapeDtypeStruct((8,), jnp.float32)}}
  _, aux = si.partition([
      ('.*kernel', si.grassmann.packing()), ('.*', si.zeros),
  ]).init_with_aux(KEY, shapes)
  assert aux['masks'] == {'stem': {'kernel': True, 'bias': True}}
  assert aux['packing'].keys() == {'stem/kernel'}
  assert aux['packing']['stem/kernel']['num'] == 4


@pytest.mark.parametrize('layout, shape, remedy', [
    ('taps', (4, 4, 5, 3), "layout='filters' takes this rank"),
    ('filters', (2, 1, 3, 32), "layout='taps' takes this rank"),
    ('taps', (1, 1, 8, 4), 'the largest c_in that works is 4'),
    ('filters', (1, 1, 8, 4), 'the largest c_in that works is 4'),
    ('taps', (3, 3, 16, 4), 'the largest c_in that works is 9')])
def test_too_many_channels_name_the_shape_and_the_layout_that_works(
    layout, shape, remedy):
  init = packing(layout=layout)
  for call in (init, init.aux):
    with pytest.raises(ValueError, match='rank c_in') as error:
      call(KEY, shape)
    assert str(shape) in str(error.value)
    assert remedy in str(error.value)
  with pytest.raises(ValueError, match="leaf 'a/kernel' of shape") as error:
    si.partition([('.*', init)])(
        KEY, {'a': {'kernel': jax.ShapeDtypeStruct(shape, jnp.float32)}})
  assert remedy in str(error.value)
  # What the message recommends does work.
  if 'layout=' in remedy:
    other = 'filters' if layout == 'taps' else 'taps'
    jax.eval_shape(lambda: packing(layout=other)(KEY, shape))


@pytest.mark.parametrize('layout', ['taps', 'filters'])
@pytest.mark.parametrize('shape', [(), (8,), (4, 8)])
def test_dense_kernels_and_biases_are_refused(layout, shape):
  with pytest.raises(ValueError, match='at least 3 axes') as error:
    packing(layout=layout)(KEY, shape)
  assert str(shape) in str(error.value)


@pytest.mark.parametrize('options, message', [
    ({'layout': 'rows'}, "layout 'rows' is unknown; use taps or filters"),
    ({'distance': 'geodesic'}, "distance 'geodesic' is unknown"),
    ({'scale': 'he'}, "scale 'he' is unknown"),
    ({'scale': 0.}, 'positive'), ({'scale': -1.}, 'positive'),
    ({'scale': math.inf}, 'finite'), ({'scale': math.nan}, 'finite')])
def test_unknown_options_are_refused_at_once(options, message):
  with pytest.raises(ValueError, match=message):
    si.grassmann.packing(**options)


@pytest.mark.parametrize('options', [{'restarts': 0}, {'steps': 0}])
def test_a_search_of_no_steps_is_refused(options):
  with pytest.raises(ValueError, match='must be at least 1'):
    si.grassmann.packing(**options)(KEY, (3, 3, 1, 3))


def test_float64_frames_are_orthonormal_to_float64():
  with jax.enable_x64(True):
    kernel = si.grassmann.packing(restarts=1, steps=10)(
        KEY, (4, 2, 2, 8), jnp.float64)
  assert gram_error(frames_of(kernel, 'taps')) < 1e-12


def test_fubini_study_kernels(smallest):
  init = si.grassmann.packing(
      distance='fubini_study', restarts=1, steps=10)
  frames = frames_of(init(KEY, (4, 2, 2, 8)), 'taps')
  facts = init.aux(KEY, (4, 2, 2, 8))['packing']
  assert facts['metric'] == 'fubini_study'
  assert facts['bound'] == math.pi / 2
  attained = smallest(frames, 'fubini_study')
  np.testing.assert_allclose(facts['distance'], attained, atol=1e-5)
  assert 'fubini_study' in repr(init)


# Shape, groups, layout, squared distance within a group.
GROUPED = [
    ((2, 5, 2, 8), 2, 'taps', 10 / 9), ((2, 2, 2, 30), 3, 'filters', 10 / 9),
    ((3, 3, 2, 32), 1, 'taps', 2.), ((3, 1, 2, 24), 4, 'taps', 2.),
    ((3, 3, 1, 32), 4, 'filters', 1.), ((3, 3, 1, 36), 4, 'taps', 1.),
    ((3, 1, 4), 2, 'taps', 0.75)]


@pytest.mark.parametrize('shape, groups, layout, squared', GROUPED)
def test_every_group_is_a_packing_of_its_own(shape, groups, layout, squared):
  init = packing(layout=layout, groups=groups)
  kernel = init(KEY, shape)
  blocks = np.split(np.asarray(kernel), groups, axis=-1)
  for block in blocks:
    frames = frames_of(block, layout)
    assert gram_error(frames) < 1e-5
    np.testing.assert_allclose(
        distances_of(frames).min()**2, squared, rtol=0, atol=1e-5)
  for a, b in itertools.combinations(blocks, 2):
    assert np.mean(a != b) > 0.99
  facts = init.aux(KEY, shape)['packing']
  assert facts == packing(layout=layout).aux(KEY, blocks[0].shape)['packing']
  with jax.enable_x64(True):
    double = init(KEY, shape, jnp.float64)
  for block in np.split(np.asarray(double), groups, axis=-1):
    assert gram_error(frames_of(block, layout)) < 1e-12


def test_a_group_sees_its_own_inputs():
  """Block j of the outputs of a grouped convolution is that of group j."""
  groups, shape = 3, (3, 2, 12)
  kernel = packing(groups=groups)(KEY, shape)
  x = jax.random.normal(KEY, (1, 5, 6))

  def conv(x, kernel, groups):
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), 'VALID', dimension_numbers=('NWC', 'WIO', 'NWC'),
        feature_group_count=groups, precision='highest')

  apart = [conv(a, b, 1) for a, b in zip(
      jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)]
  np.testing.assert_allclose(
      conv(x, kernel, groups), jnp.concatenate(apart, -1), rtol=0, atol=1e-5)
  for block in jnp.split(kernel, groups, -1):
    assert gram_error(frames_of(block, 'taps')) < 1e-5


@pytest.mark.parametrize('shape, layout, dim', [
    ((3, 3, 1, 8), 'filters', 9), ((2, 5, 2, 8), 'taps', 4)])
def test_grouped_kaiming_scale(shape, layout, dim):
  groups = shape[-1] // {'filters': 1, 'taps': 4}[layout]
  kernel = packing(layout=layout, groups=groups, scale='kaiming')(KEY, shape)
  np.testing.assert_allclose(
      np.mean(np.asarray(kernel, np.float64)**2), 2 / math.prod(shape[:-1]),
      rtol=2e-6)
  plain = packing(layout=layout, groups=groups)(KEY, shape)
  np.testing.assert_allclose(
      kernel, math.sqrt(2 * dim / math.prod(shape[:-1])) * plain, rtol=1e-6)


def test_depthwise_filters_of_one_output_are_unit_vectors():
  init = si.grassmann.packing(layout='filters', groups=8)
  kernel = np.asarray(init(KEY, (3, 3, 1, 8)), np.float64)
  np.testing.assert_allclose(
      np.linalg.norm(kernel.reshape(9, 8), axis=0), 1, rtol=1e-6)
  assert np.linalg.matrix_rank(kernel.reshape(9, 8)) == 8
  assert init.aux(KEY, (3, 3, 1, 8)) == {}  # no pair within a group


@pytest.mark.parametrize('shape, groups, layout, remedy', [
    ((3, 3, 1, 8), 3, 'taps', 'the nearest that does is 2'),
    ((3, 3, 1, 8), 7, 'filters', 'the nearest that does is 8'),
    ((3, 3, 1, 8), 8, 'taps', "use layout='filters'"),
    ((3, 3, 4, 8), 4, 'taps', "layout='filters' takes this rank"),
    ((2, 1, 8, 8), 2, 'taps', 'the largest c_in that works is 4')])
def test_groups_that_do_not_fit(shape, groups, layout, remedy):
  init = packing(layout=layout, groups=groups)
  for call in (init, init.aux):
    with pytest.raises(ValueError, match='groups') as error:
      call(KEY, shape)
    assert str(shape) in str(error.value)
    assert remedy in str(error.value)
  if 'layout=' in remedy:
    other = packing(layout='filters', groups=groups, restarts=1, steps=10)
    assert other(KEY, shape).shape == shape


def test_groups_print_and_are_checked_at_once():
  assert 'groups=2' in repr(si.grassmann.packing(groups=2))
  assert 'groups' not in repr(si.grassmann.packing())
  with pytest.raises(ValueError, match='groups=0 must be at least 1'):
    si.grassmann.packing(groups=0)
  for shape in [(3, 3, 0, 8), (3, 3, 2, 0), (0, 3, 2, 8)]:
    assert si.grassmann.packing(groups=2)(KEY, shape).shape == shape


@pytest.mark.parametrize('make, options', [
    (si.grassmann.packing, {'restarts': 10**12}),
    (si.grassmann.packing, {'restarts': [1]}),
    (si.grassmann.packing, {'steps': 0}), (si.grassmann.packing, {'seed': 'a'}),
    (si.grassmann.packing, {'seed': 2**70}),
    (si.grassmann.dictionary, {'seed': 1.5}),
    (si.grassmann.dictionary, {'kind': 'sphere', 'steps': 2**40}),
    (si.grassmann.tight_frame, {'iterations': 1.5}),
    (si.grassmann.tight_frame, {'iterations': 'a'})])
def test_numbers_of_a_search_are_integers_in_range(make, options):
  (name, _), = list(options.items())[-1:]
  with pytest.raises(ValueError, match=f'{name}=.*must be (an integer|at)'):
    make(**options)


@pytest.mark.parametrize('shape', [
    (-1, 3, 3, 8), (3, 3, 2.0, 6), 'abcd', (3, 3, None, 8)])
@pytest.mark.parametrize('make', [
    si.grassmann.packing, si.grassmann.tight_frame, si.sao.delta_orthogonal])
def test_sizes_are_integers_of_at_least_zero(make, shape):
  init = make(density=0.5) if make is si.sao.delta_orthogonal else make()
  with pytest.raises(ValueError, match='sequence of integers of at least 0'):
    init(jax.random.key(0), shape)


@pytest.mark.parametrize('num', [6, 13])  # looked up, and searched
@pytest.mark.parametrize('key', ['a', None, 3])
def test_a_key_is_a_key(num, key):
  with pytest.raises(ValueError, match='no JAX PRNG key'):
    si.grassmann.pack(key, dim=3, rank=1, num=num)
