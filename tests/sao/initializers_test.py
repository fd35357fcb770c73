"""Kernels, the masks beside them, and looks-linear networks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import structinit_jax as si
from structinit_jax import sao

KEY = jax.random.key(6)
KINDS = ['debruijn', 'random', 'thesis', 'weighing']


def singular_values(kernel):
  kernel = np.asarray(kernel, np.float64)
  axes = tuple(range(kernel.ndim - 2))
  if axes:
    kernel = np.fft.fftn(kernel, axes=axes)
  return np.linalg.svd(kernel, compute_uv=False)


def make(name, **options):
  return getattr(sao, name)(**options)


CALLS = [('orthogonal', ()), ('delta_orthogonal', (3, 3)), ('eco', (3, 2))]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name, spatial', CALLS)
def test_a_kernel_and_its_aux(name, spatial, kind):
  shape = (*spatial, 14, 7)
  init = make(name, degree=8 if kind == 'weighing' else 2, kind=kind, gain=2.)
  kernel = np.asarray(init(KEY, shape))
  np.testing.assert_allclose(singular_values(kernel), 2, rtol=2e-6)
  aux = init.aux(KEY, shape)
  assert set(aux) == {'mask', 'topology'}
  mask = np.asarray(aux['mask'])
  assert (mask.shape, mask.dtype) == (shape, bool)
  assert mask.any(axis=-1).all()
  assert mask.any(axis=-2).all()
  # Whole kernels, one mask at every tap.
  np.testing.assert_array_equal(
      mask, np.broadcast_to(aux['topology'].mask, shape))
  assert mask.sum() == aux['topology'].nnz * math.prod(spatial)
  centre = tuple((k - 1) // 2 for k in spatial)
  if name == 'eco':
    np.testing.assert_array_equal(kernel != 0, mask)
  else:
    np.testing.assert_array_equal(kernel[centre] != 0, mask[centre])
    assert np.count_nonzero(kernel) == aux['topology'].nnz


@pytest.mark.parametrize('kind', KINDS[1:])
def test_the_structure_and_the_values_are_drawn_apart(kind):
  """As one would by hand, with one half of the key each."""
  structure_key, values_key = jax.random.split(KEY)
  degree = {'weighing': 4}.get(kind, 3)
  shape = (21, 14) if kind != 'weighing' else (7, 14)
  topology = sao.topology(structure_key, shape, degree=degree, kind=kind)
  init = sao.orthogonal(degree=degree, kind=kind)
  assert init.aux(KEY, shape)['topology'] == topology
  np.testing.assert_array_equal(
      init(KEY, shape),
      sao.to_dense(sao.orthogonal_values(values_key, topology), topology))
  assert init(KEY, shape).shape == shape


@pytest.mark.parametrize('kind', ['debruijn', 'random', 'thesis'])
def test_under_jit_and_vmap_and_x64(kind):
  init = sao.orthogonal(degree=3, kind=kind)
  shape = (14, 10)
  kernel, aux = init(KEY, shape), init.aux(KEY, shape)
  inside, mask = jax.jit(
      lambda key: (init(key, shape), init.aux(key, shape)['mask']))(KEY)
  np.testing.assert_array_equal(inside, kernel)
  np.testing.assert_array_equal(mask, aux['mask'])
  keys = jax.random.split(KEY, 3)
  kernels, masks = jax.vmap(
      lambda key: (init(key, shape), init.aux(key, shape)['mask']))(keys)
  for key, one, mask in zip(keys, kernels, masks, strict=True):
    np.testing.assert_allclose(one, init(key, shape), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(one != 0, mask)
  with jax.enable_x64(True):
    np.testing.assert_array_equal(init(KEY, shape, jnp.float32), kernel)
    np.testing.assert_array_equal(init.aux(KEY, shape)['mask'], aux['mask'])
    assert np.abs(singular_values(init(KEY, shape)) - 1).max() <= 1e-12
  assert ('topology' in jax.eval_shape(
      lambda key: dict.fromkeys(init.aux(key, shape), 0), KEY)) == (
          kind == 'debruijn')


def test_in_a_partition():
  init_fn = si.partition([
      ('.*/kernel', sao.orthogonal(degree=2, kind='random')),
      ('conv', sao.eco(density=0.5)), ('.*', si.zeros)])
  struct = jax.ShapeDtypeStruct
  shapes = {'a': {'kernel': struct((8, 6), jnp.float32)},
            'b': {'kernel': struct((6, 9), jnp.bfloat16)},
            'conv': struct((3, 3, 4, 4), jnp.float32),
            'bias': struct((9,), jnp.float32)}
  params, aux = init_fn.init_with_aux(KEY, shapes)
  assert aux['masks']['bias'] is True
  assert set(aux['topology']) == {'a/kernel', 'b/kernel', 'conv'}
  np.testing.assert_array_equal(
      params['a']['kernel'] != 0, aux['masks']['a']['kernel'])
  assert jax.eval_shape(init_fn, KEY, shapes) == shapes
  jitted = jax.jit(lambda key: init_fn(key, shapes))(KEY)
  jax.tree.map(np.testing.assert_array_equal, jitted, params)
  assert si.masks.sparsity(aux['masks'])['conv'] == 0.5


def test_the_variants_of_the_thesis():
  shape = (12, 12)
  shared = sao.topology(KEY, shape, degree=3, kind='thesis')
  one, two, three = (
      sao.orthogonal(topology=shared), sao.orthogonal(
          topology=shared, tied=True), sao.orthogonal(degree=3, kind='thesis'))
  keys = jax.random.split(KEY)
  for init, structures in ((one, 1), (two, 1), (three, 2)):
    masks = [np.asarray(init.aux(key, shape)['mask']) for key in keys]
    assert len({mask.tobytes() for mask in masks}) == structures
    kernels = [np.asarray(init(key, shape)) for key in keys]
    assert not np.array_equal(*kernels)
    for kernel, mask in zip(kernels, masks, strict=True):
      np.testing.assert_array_equal(kernel != 0, mask)
      np.testing.assert_allclose(singular_values(kernel), 1, rtol=5e-7)
  (blocks,) = sao.from_dense(two(KEY, shape), shared)
  np.testing.assert_array_equal(blocks, np.broadcast_to(blocks[:1], (4, 3, 3)))


@pytest.mark.parametrize('name, spatial', CALLS)
def test_looks_linear_kernels(name, spatial):
  plain = make(name, degree=2)(KEY, (*spatial, 8, 6))
  mask = make(name, degree=2).aux(KEY, (*spatial, 8, 6))['mask']
  for mode, flips in [('in', [[1], [-1]]), ('out', [[1, -1]]),
                      ('both', [[1, -1], [-1, 1]])]:
    init = make(name, degree=2, looks_linear=mode)
    shape = (*spatial, 8 * len(flips), 6 * len(flips[0]))
    kernel = np.asarray(init(KEY, shape))
    np.testing.assert_array_equal(kernel, np.block(
        [[s * np.asarray(plain) for s in row] for row in flips]))
    aux = init.aux(KEY, shape)
    np.testing.assert_array_equal(aux['mask'], np.block(
        [[np.asarray(mask) for _ in row] for row in flips]))
    assert aux['topology'].shape == (8, 6)
  # The middle one alone is no isometry: half of its values are 0.
  np.testing.assert_allclose(
      np.sort(singular_values(kernel)).ravel()[-6:], 2, rtol=2e-6)
  rank = np.linalg.matrix_rank(kernel.reshape(-1, *kernel.shape[-2:])[0])
  assert rank <= 6


def test_a_looks_linear_network_is_an_isometry():
  """100 ReLU layers; all singular values of the Jacobian are 1."""
  width = 32
  hidden = sao.orthogonal(degree=4, looks_linear='both')
  first = sao.orthogonal(degree=4, looks_linear='out')
  last = sao.orthogonal(degree=4, looks_linear='in')
  keys = jax.random.split(KEY, 100)
  hidden_kernels = jax.vmap(
      lambda key: hidden(key, (2 * width, 2 * width)))(keys[1:-1])

  def network(x):
    x = jax.nn.relu(x @ first(keys[0], (width, 2 * width)))
    x, _ = jax.lax.scan(
        lambda x, kernel: (jax.nn.relu(x @ kernel), None), x, hidden_kernels)
    return x @ last(keys[-1], (2 * width, width))

  x = jax.random.normal(KEY, (width,))
  jacobian = np.asarray(jax.jit(jax.jacobian(network))(x), np.float64)
  np.testing.assert_allclose(
      np.linalg.svd(jacobian, compute_uv=False), 1, rtol=1e-5)


def test_out_sharding():
  mesh = jax.make_mesh(
      (8,), ('d',), axis_types=(jax.sharding.AxisType.Explicit,))
  spec = jax.sharding.PartitionSpec(None, 'd')
  for kind in ('debruijn', 'thesis'):
    init = sao.orthogonal(degree=4, kind=kind)
    want = init(KEY, (16, 8))
    with jax.set_mesh(mesh):
      x = jax.jit(lambda key, init=init: init(key, (16, 8), None, spec))(KEY)
    assert len(x.addressable_shards) == 8
    np.testing.assert_array_equal(x, want)


def test_random_requests_of_shape_degree_and_dtype():
  """A kernel of that shape and dtype, or an error that says what works."""
  rng = np.random.default_rng(3)
  made = refused = 0
  dtypes = [jnp.float32, jnp.bfloat16, jnp.float16, jnp.int32, np.longdouble]
  for _ in range(300):
    name, spatial = CALLS[rng.integers(3)]
    shape = (*spatial, *(int(2**x) for x in rng.uniform(0, 7, size=2)))
    dtype = dtypes[min(int(rng.integers(8)), 4)]
    init = make(name, kind=KINDS[rng.integers(3)], **(
        {'degree': max(1, shape[-2] // int(rng.integers(1, 9)))}
        if rng.random() < 0.7 else {'density': 1 / int(rng.integers(1, 9))}))
    try:
      struct = jax.eval_shape(lambda k, a=(init, shape, dtype): a[0](
          k, a[1], a[2]), KEY)
    except ValueError as error:
      refused += 1
      message = str(error)
    else:
      made += 1
      assert struct == jax.ShapeDtypeStruct(shape, dtype)
      message = 'nearest'
    assert 'nearest' in message or 'not a real floating-point' in message
  assert min(made, refused) > 50


@pytest.mark.parametrize('name, spatial', CALLS)
def test_empty_and_other_shapes(name, spatial):
  init = make(name, degree=2)
  for sizes in [(0, 8), (8, 0), (0, 0)]:
    shape = (*spatial, *sizes)
    assert init(KEY, shape).shape == shape
    assert init.aux(KEY, shape) == {}
  for shape in [(), (8,), (8, 8, 8) if name == 'orthogonal' else (8, 8)]:
    for call in (init, init.aux):
      with pytest.raises(ValueError, match='axes') as error:
        call(KEY, shape)
      assert str(shape) in str(error.value)


def test_other_axis_orders():
  init = sao.orthogonal(degree=2)
  np.testing.assert_array_equal(
      si.with_axes(init, si.axes.OI)(KEY, (6, 8)), init(KEY, (8, 6)).T)
  stacked = si.with_axes(
      sao.orthogonal(degree=2, kind='random'), si.Axes((1,), (2,)))
  kernel, aux = stacked(KEY, (3, 8, 6)), stacked.aux(KEY, (3, 8, 6))
  np.testing.assert_array_equal(kernel != 0, aux['mask'])
  assert len(set(aux['topology'])) == 3


@pytest.mark.parametrize('name', [name for name, _ in CALLS])
@pytest.mark.parametrize('options, message', [
    ({}, 'give one of the two'),
    ({'degree': 0}, 'nearest that works for some shape is 1'),
    ({'degree': 2.5}, 'nearest that works for some shape is 2'),
    ({'density': 0.}, 'above 0; the least that works is 1 / min'),
    ({'density': 1.5}, 'the nearest that works for every shape is 1'),
    ({'degree': 2, 'kind': 'x'}, "kind 'x' is unknown"),
    ({'degree': 2, 'gain': 0.}, 'positive, finite float'),
    ({'degree': 2, 'gain': math.inf}, 'positive, finite float'),
    ({'degree': 2, 'gain': None}, 'gain=None must be a positive, finite'),
    ({'topology': 'x'}, "topology='x' is no Topology"),
    ({'degree': 2, 'looks_linear': 'up'}, 'use none, in, out, both'),
    ({'degree': 2, 'topology': sao.Topology((8, 8), 2)}, 'give it alone')])
def test_options_that_are_refused_at_once(name, options, message):
  with pytest.raises(ValueError, match=message):
    make(name, **options)


def test_calls_that_are_refused():
  with pytest.raises(ValueError, match="'odd' are unknown; use real or comple"):
    sao.eco(degree=2, frequencies='odd')
  with pytest.raises(ValueError, match=r'shape that works is \(8, 6\)'):
    sao.orthogonal(degree=2, looks_linear='in')(KEY, (7, 6))
  with pytest.raises(ValueError, match=r'shape that works is \(3, 8, 6\)'):
    sao.eco(degree=2, looks_linear='out')(KEY, (3, 8, 5))
  with pytest.raises(ValueError, match=r'asks for a topology of shape \(4, 6'):
    sao.orthogonal(
        topology=sao.Topology((8, 6), 2), looks_linear='in')(KEY, (8, 6))
  with pytest.raises(ValueError, match=r'degree=2 .* and degree=4'):
    sao.orthogonal(degree=3)(KEY, (8, 8))


def test_it_prints_as_a_call():
  assert repr(sao.orthogonal(degree=4)) == 'sao.orthogonal(degree=4)'
  assert repr(sao.eco(density=.5, frequencies='complex', gain=2)) == (
      "sao.eco(density=0.5, gain=2.0, frequencies='complex')")
  assert repr(sao.delta_orthogonal(topology=sao.Topology((8, 8), 2))) == (
      "sao.delta_orthogonal(topology=Topology(shape=(8, 8), blocks=2, "
      "kind='debruijn'))")


# ---- Blocks, as layers store them.


@pytest.mark.parametrize('kernel, shape', [
    ('dense', (5, 4, 3)), ('dense', (3, 5, 3, 4)), ('dense', (2, 3, 1, 6, 6)),
    ('delta', (3, 2, 4, 3, 5)), ('eco', (3, 3, 4, 5, 3)),
    ('delta', (7, 1, 3, 2, 2, 2))])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float64])
def test_blocks_are_orthogonal_at_every_frequency(kernel, shape, dtype):
  with jax.enable_x64(dtype == jnp.float64):
    init = sao.blocks(kernel, gain=1.5)
    x = np.float64(init(KEY, shape, dtype))
  assert x.shape == shape
  axes = () if kernel == 'dense' else (-5, -4)
  values = np.linalg.svd(
      np.fft.fft2(x, axes=axes) if axes else x, compute_uv=False)
  np.testing.assert_allclose(
      values, 1.5, rtol=3e-6 if dtype == jnp.float32 else 1e-12)
  if len(shape) > 3 + len(axes):  # layers differ
    assert abs(x[0] - x[1]).max() > 0.1


def test_mirrored_blocks_are_a_matrix_and_its_negative():
  x = sao.blocks(looks_linear=True)(KEY, (7, 2, 4, 3, 3))
  np.testing.assert_array_equal(x[:, 0], -x[:, 1])
  tied = sao.blocks(tied=True)(KEY, (4, 3, 3))
  assert tied.std(0).max() == 0


@pytest.mark.parametrize('options, shape, message', [
    ({'looks_linear': True}, (3, 4, 5, 5), r'\(\*batch, 2, count, d, c\)'),
    ({'kernel': 'eco'}, (4, 5, 5), '2 spatial sizes, count, d, c'),
    ({}, (5, 5), r'\(\*batch, count, d, c\)')])
def test_blocks_of_other_shapes_are_refused(options, shape, message):
  with pytest.raises(ValueError, match=message):
    sao.blocks(**options)(KEY, shape)


@pytest.mark.parametrize('options, message', [
    ({'kernel': 'conv'}, 'dense, delta, eco'), ({'gain': 0.0}, 'positive'),
    ({'frequencies': 'all'}, 'real or complex'),
    ({'spatial': 0}, 'spatial=0 must be at least 1'),
    ({'spatial': (3, 3)}, 'must be an integer'),
    ({'spatial': None}, 'spatial=None must be an integer')])
def test_unknown_blocks_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    sao.blocks(**options)
