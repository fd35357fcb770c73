"""One contract for every public initializer: `ROWS` is the list of them."""

import functools
import hashlib
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import pytest

import structinit_jax as si

pytestmark = pytest.mark.optimized

# A short search: the contract does not depend on how good a packing is.
packing = functools.partial(si.grassmann.packing, restarts=1, steps=10)
dictionary = functools.partial(si.grassmann.dictionary, restarts=1, steps=10)

# Four squares of two channels, for what learns from data.
PIXELS = jnp.asarray(
    np.random.default_rng(0).normal(size=(4, 6, 6, 2)), jnp.float32)

# Name: initializer, a good shape, its output axis (8 long, so that it divides
# over the devices), and further shapes that have to work.
ROWS = {
    'zeros': (si.zeros, (3, 8), 1, [(), (0,), (1,), (2, 0, 3), (1, 1)]),
    # N k <= m: mutually orthogonal subspaces, no search.
    'taps_closed': (
        si.grassmann.packing(), (2, 2, 2, 8), 3,
        [(1, 1, 1, 1), (1, 1, 1, 8), (8, 1, 8), (1, 2, 2, 2, 8), (3, 3, 0, 8),
         (3, 3, 2, 0), (0, 3, 2, 8), (3, 0, 9, 8)]),
    'filters_closed_float': (
        si.grassmann.packing(layout='filters', scale=0.5), (4, 2, 1, 8), 3,
        [(1, 1, 1, 1), (3, 3, 2, 0), (0, 3, 2, 8)]),
    # N k > m: searched, here always 8 planes of R^8.
    'taps': (packing(), (4, 2, 2, 8), 3, [(8, 2, 8)]),
    'filters_kaiming': (
        packing(layout='filters', scale='kaiming'), (4, 2, 2, 8), 3,
        [(1, 1, 1, 8)]),
    'fubini_study_kaiming': (
        packing(distance='fubini_study', scale='kaiming'), (4, 2, 2, 8), 3,
        [(2, 2, 2, 8)]),
    'grouped': (
        packing(groups=2), (2, 2, 1, 8), 3, [(3, 0, 8), (1, 1, 8)]),
    'depthwise': (
        si.grassmann.packing(layout='filters', groups=8, scale='kaiming'),
        (3, 3, 1, 8), 3, [(3, 1, 16), (0, 1, 8)]),
    'tight_frame': (
        si.grassmann.tight_frame(scale='kaiming'), (3, 3, 2, 8), 3,
        [(1, 1, 1, 1), (1, 1, 8, 8), (3, 2, 8), (0, 3, 2, 8), (3, 3, 0, 8)]),
    'tight_frame_filters': (
        si.grassmann.tight_frame(layout='filters'), (2, 2, 2, 8), 3,
        [(1, 1, 1, 8)]),
    # Dense kernels.
    'simplex_head': (
        si.grassmann.simplex_head(), (16, 8), 1,
        [(7, 8), (1, 2), (0, 8), (8, 0), (0, 0)]),
    'dictionary_lines': (
        dictionary(), (3, 8), 1, [(8, 3), (1, 1), (1, 3), (0, 8), (8, 0)]),
    'dictionary_sphere': (
        dictionary(kind='sphere', scale=0.5), (3, 8), 1,
        [(8, 8), (8, 16), (1, 2), (1, 1), (2, 5), (0, 8), (8, 0)]),
    # Sparse, with a mask.
    'sao': (
        si.sao.orthogonal(degree=2), (6, 8), 1,
        [(2, 1), (5, 4), (4, 2), (0, 8), (8, 0)]),
    'sao_random': (
        si.sao.orthogonal(density=0.5, kind='random', gain=2.0), (4, 8), 1,
        [(2, 2), (0, 8), (8, 0)]),
    'sao_delta': (
        si.sao.delta_orthogonal(degree=2), (3, 3, 4, 8), 3,
        [(3, 2, 1), (2, 2, 4, 2), (3, 0, 4, 8), (3, 3, 0, 8)]),
    'sao_eco': (
        si.sao.eco(degree=2), (2, 2, 4, 8), 3,
        [(3, 4, 2), (3, 0, 4, 8), (3, 3, 0, 8)]),
    # Products of factors.
    'low_rank': (
        si.lowrank.low_rank(rank_scale=0.5, method='rescaled'), (6, 8), 1,
        [(1, 1), (2, 1), (3, 3, 2, 8), (0, 8), (8, 0)]),
    # Kernels of few coordinates.
    'subspace': (
        si.subspace.drawn(fraction=0.5), (6, 8), 1,
        [(1, 1), (3, 3, 2, 8), (7,), (0, 8), (8, 0)]),
    # Clusters of what a layer sees.
    'clusters': (
        si.kmeans.clusters(PIXELS, iterations=4), (2, 2, 2, 8), 3,
        [(1, 1, 2, 2), (3, 3, 2, 12), (2, 2, 2, 0), (0, 3, 2, 8)]),
    # The baselines, with full masks and with sparse ones.
    'givens': (si.pruning.givens(density=0.5), (4, 8), 1, [(2, 4), (0, 8)]),
    'ramanujan_normal': (
        si.pruning.normal(si.sao.orthogonal(degree=2)), (6, 8), 1, [(2, 1)]),
    'ramanujan_uniform': (
        si.pruning.uniform(si.sao.orthogonal(degree=2), scale='fan_in'),
        (6, 8), 1, [(2, 1)]),
    # Other axis orders, and layers stacked by a scan.
    'oihw': (
        si.with_axes(packing(), si.axes.OIHW), (8, 2, 4, 2), 0,
        [(0, 2, 3, 3), (1, 1, 1, 1)]),
    'stacked': (
        si.with_axes(si.grassmann.packing(), si.Axes((1, 2, 3), (4,))),
        (3, 2, 2, 2, 8), 4, [(0, 2, 2, 2, 8)]),
    'stacked_zeros': (
        si.with_axes(si.zeros, si.Axes((1,), (2,))), (3, 4, 8), 2,
        [(0, 4, 8), (3, 0, 8), (1, 1, 1)]),
}
KEY = jax.random.key(7)

every_row = pytest.mark.parametrize('name', ROWS)
# A stack of layers is compiled anew at every eager call; tests that make many
# leaves leave it to `test_a_tree`.
every_leaf = pytest.mark.parametrize(
    'name', [name for name in ROWS if name != 'stacked'])


def is_random(name):
  return 'zeros' not in name


def struct(shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


def mesh_of(axis_type):
  return jax.make_mesh((8,), ('d',), axis_types=(axis_type,))


def spec_of(shape, axis):
  return PartitionSpec(*('d' if a == axis else None for a in range(len(shape))))


@functools.cache
def eager(name, seed=7, dtype=None):
  init, shape, _, _ = ROWS[name]
  return init(jax.random.key(seed), shape, dtype)


def make_all(key, sharding_of=None):
  """Makes every row: one function to trace, so that tests compile once."""
  return {
      name: init(key, shape, None,
                 sharding_of and sharding_of(spec_of(shape, axis)))
      for name, (init, shape, axis, _) in ROWS.items()}


@pytest.fixture(scope='module')
def jitted():
  return jax.jit(make_all)(KEY)


@pytest.fixture(scope='module')
def auto_mesh():
  """Over an Auto mesh: by `out_shardings` of jit, and by `out_sharding`."""
  mesh = mesh_of(AxisType.Auto)
  shardings = {name: NamedSharding(mesh, spec_of(shape, axis))
               for name, (_, shape, axis, _) in ROWS.items()}
  key = jax.device_put(KEY, NamedSharding(mesh, PartitionSpec()))
  return jax.jit(
      lambda key: (
          make_all(key), make_all(key, functools.partial(NamedSharding, mesh))),
      out_shardings=(shardings, None))(key)


@pytest.fixture(scope='module')
def explicit_mesh():
  """The result of `out_sharding=PartitionSpec(...)` in an explicit mesh."""
  with jax.set_mesh(mesh_of(AxisType.Explicit)):
    return jax.jit(lambda key: (make_all(key, lambda spec: spec),))(KEY)


@pytest.fixture(scope='module')
def vmapped():
  keys = jnp.stack([jax.random.key(7), jax.random.key(8)])
  return jax.jit(jax.vmap(make_all))(keys)


@every_row
def test_shape_and_dtype(name):
  init, shape, _, further = ROWS[name]
  assert eager(name).shape == shape
  assert eager(name).dtype == jnp.float32  # the default while x64 is off
  for one in further:
    x = init(KEY, one)
    assert x.shape == one
    assert x.dtype == jnp.float32
    assert np.isfinite(x).all()
  for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
    made = jax.eval_shape(lambda k, dtype=dtype: init(k, shape, dtype), KEY)
    assert made == struct(shape, dtype)
  assert jax.eval_shape(lambda k: init(k, list(shape)), KEY) == struct(shape)


@every_row
def test_float64(name):
  init, shape, _, _ = ROWS[name]
  with jax.enable_x64(True):
    default = jax.eval_shape(lambda k: init(k, shape), KEY)
    assert default == struct(shape, jnp.float64)
    double = init(KEY, shape, jnp.float64)
    assert double.dtype == jnp.float64
    single = np.asarray(double).astype(np.float32).astype(np.float64)
    # It is computed in float64, not merely cast to it.
    assert np.any(np.asarray(double) != single) == is_random(name)


@pytest.mark.parametrize(
    'name', ['zeros', 'taps_closed', 'filters_kaiming', 'tight_frame',
             'simplex_head', 'dictionary_sphere', 'oihw'])
def test_float32_is_the_same_with_x64_enabled(name):
  init, shape, _, _ = ROWS[name]
  with jax.enable_x64(True):
    single = init(KEY, shape, jnp.float32)
  assert single.dtype == jnp.float32
  np.testing.assert_array_equal(single, eager(name))


@every_leaf
def test_bfloat16_is_the_rounded_float32(name):
  x = eager(name, dtype=jnp.bfloat16)
  assert x.dtype == jnp.bfloat16
  np.testing.assert_array_equal(x, eager(name).astype(jnp.bfloat16))


@every_row
def test_jit_changes_no_bit(name, jitted):
  np.testing.assert_array_equal(jitted[name], eager(name))


@every_row
@pytest.mark.parametrize(
    'mesh, how', [
        ('auto_mesh', 0), ('auto_mesh', 1), ('explicit_mesh', 0)],
    ids=['out_shardings', 'auto', 'explicit'])
def test_eight_devices_change_no_bit(name, mesh, how, request):
  _, shape, axis, _ = ROWS[name]
  x = request.getfixturevalue(mesh)[how][name]
  assert len(x.sharding.device_set) == 8
  assert len(x.addressable_shards) == 8
  for shard in x.addressable_shards:
    assert shard.data.shape[axis] == 1
  assert x.shape == shape
  if name in ('low_rank', 'clusters'):  # products, summed in another order
    np.testing.assert_allclose(x, eager(name), atol=1e-6)
  else:
    np.testing.assert_array_equal(x, eager(name))


@every_leaf
def test_eager_out_sharding(name):
  init, shape, axis, _ = ROWS[name]
  sharding = NamedSharding(mesh_of(AxisType.Auto), spec_of(shape, axis))
  x = init(KEY, shape, None, sharding)
  assert x.sharding.is_equivalent_to(sharding, x.ndim)
  np.testing.assert_array_equal(x, eager(name))


@pytest.mark.parametrize('name', ['zeros', 'taps_closed'])
@pytest.mark.parametrize('axis_type', [AxisType.Auto, AxisType.Explicit])
def test_eager_out_sharding_in_a_set_mesh(name, axis_type):
  init, shape, axis, _ = ROWS[name]
  mesh = mesh_of(axis_type)
  with jax.set_mesh(mesh):
    x = init(KEY, shape, None, spec_of(shape, axis))
  assert x.sharding.is_equivalent_to(
      NamedSharding(mesh, spec_of(shape, axis)), x.ndim)
  np.testing.assert_array_equal(x, eager(name))


def test_out_sharding_on_one_device():
  device = jax.devices()[3]
  x = si.zeros(KEY, (8,), None, jax.sharding.SingleDeviceSharding(device))
  assert x.devices() == {device}


def test_out_sharding_without_a_mesh_is_refused():
  with pytest.raises(ValueError, match='no mesh is set'):
    si.zeros(KEY, (8,), None, PartitionSpec('d'))


def digests(names):
  return {
      name: hashlib.sha256(np.asarray(eager(name)).tobytes()).hexdigest()
      for name in names}


def print_digests(names):
  print(json.dumps({'devices': jax.device_count(), **digests(names)}))


def test_a_process_with_one_device_makes_the_same():
  names = ['taps', 'tight_frame', 'dictionary_sphere', 'oihw']
  code = '\n'.join([
      'import importlib.util',
      f'spec = importlib.util.spec_from_file_location("it", {__file__!r})',
      'it = importlib.util.module_from_spec(spec)',
      'spec.loader.exec_module(it)',
      f'it.print_digests({names!r})'])
  flags = [flag for flag in os.environ['XLA_FLAGS'].split()
           if 'device_count' not in flag]
  there = json.loads(subprocess.run(
      [sys.executable, '-c', code], check=True, capture_output=True, text=True,
      env={**os.environ, 'XLA_FLAGS': ' '.join(flags)}).stdout)
  assert (jax.device_count(), there.pop('devices')) == (8, 1)
  assert there == digests(names)


@every_row
def test_the_key_decides(name):
  first, other = np.asarray(eager(name)), np.asarray(eager(name, seed=8))
  if is_random(name):
    kept = (first != 0) | (other != 0)
    assert np.mean(first[kept] != other[kept]) > 0.9


@every_leaf
def test_legacy_keys(name):
  init, shape, _, _ = ROWS[name]
  np.testing.assert_array_equal(
      init(jax.random.PRNGKey(7), shape), eager(name))


@every_row
def test_vmap_over_keys(name, vmapped):
  # Close, not equal: a batched product of small matrices adds in another
  # order. Entries are at most 1 in size, and a few roundings apart.
  for x, seed in zip(vmapped[name], (7, 8), strict=True):
    np.testing.assert_allclose(x, eager(name, seed=seed), rtol=0, atol=1e-6)


@every_row
@pytest.mark.parametrize('dtype', [jnp.int32, jnp.complex64, jnp.bool_])
def test_other_dtypes_are_refused(name, dtype):
  init, shape, _, _ = ROWS[name]
  with pytest.raises(ValueError, match='not a real floating-point dtype'):
    init(KEY, shape, dtype)


@every_row
def test_it_prints_as_a_call(name):
  init = ROWS[name][0]
  assert str(init) == repr(init)
  assert ' at 0x' not in repr(init)
  assert repr(init).startswith(
      ('zeros', 'grassmann.', 'sao.', 'pruning.', 'lowrank.', 'subspace.',
       'kmeans.', 'with_axes('))


@every_row
def test_it_is_a_jax_initializer(name):
  assert isinstance(ROWS[name][0], si.Initializer)


@every_leaf
def test_in_a_partition(name):
  """A leaf is a function of key, name and shape, whatever is beside it."""
  init, shape, _, _ = ROWS[name]
  init_fn = si.partition([('.*', init)])
  shapes = {'b': struct(shape), 'a': {'w': struct(shape, jnp.bfloat16)}}
  assert jax.eval_shape(init_fn, KEY, shapes) == shapes
  params, aux = init_fn.init_with_aux(KEY, shapes)
  for leaf_name, leaf, mask in [
      ('b', params['b'], aux['masks']['b']),
      ('a/w', params['a']['w'], aux['masks']['a']['w'])]:
    leaf_key = si.tree.leaf_key(KEY, leaf_name)
    alone = init(leaf_key, shape, leaf.dtype)
    assert leaf.dtype == alone.dtype
    np.testing.assert_array_equal(leaf, alone)
    facts = init.aux(leaf_key, shape) if hasattr(init, 'aux') else {}
    np.testing.assert_array_equal(mask, facts.get('mask', True))
    assert not np.any(np.where(mask, 0, leaf))
  more = init_fn(KEY, {
      '0': struct(shape), 'b': shapes['b'],
      'a': {'v': struct(shape), **shapes['a'], 'z': struct(shape)}})
  np.testing.assert_array_equal(more['b'], params['b'])
  np.testing.assert_array_equal(more['a']['w'], params['a']['w'])
  if is_random(name):
    leaves = [np.asarray(more['b']), np.asarray(more['0']),
              np.asarray(more['a']['v']), np.asarray(more['a']['z'])]
    assert len({leaf.tobytes() for leaf in leaves}) == 4


def equal_trees(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_tree():
  """Every kind of rule at once: eager, jitted over devices, reordered."""
  init_fn = si.partition([
      (r'stem/kernel', packing(scale='kaiming')),
      (r'blocks/\d+/kernel', si.partition([
          (r'blocks/0/.*', jax.nn.initializers.orthogonal()),
          (r'.*', jax.random.uniform)])),
      (r'scan', ROWS['stacked'][0]),
      (r'.*', si.zeros)])
  shapes = {
      'stem': {'kernel': struct((4, 2, 2, 8)), 'bias': struct((8,))},
      'blocks': [
          {'kernel': struct((3, 8)), 'bias': struct((8,))},
          {'kernel': struct((3, 8), jnp.bfloat16), 'bias': struct((0, 8))}],
      'scan': struct((3, 2, 2, 2, 8)),
      'none': None,
      'nothing': (),
  }
  assert jax.eval_shape(init_fn, KEY, shapes) == shapes
  params = init_fn(KEY, shapes)
  assert jax.tree.map(lambda x: struct(x.shape, x.dtype), params) == shapes

  mesh = mesh_of(AxisType.Auto)
  shardings = jax.tree.map(
      lambda s: NamedSharding(mesh, spec_of(s.shape, len(s.shape) - 1)), shapes)
  fn = functools.partial(init_fn, shapes=shapes)
  sharded = jax.jit(fn, out_shardings=shardings)(KEY)
  equal_trees(sharded, params)
  assert jax.tree.map(lambda x: x.sharding, sharded) == shardings

  # The layers in another order, with others between them.
  again = si.partition([*init_fn.rules[:2], ('.*', si.zeros)])(KEY, {
      'added': struct((3,)), 'stem': shapes['stem'],
      'blocks': [*shapes['blocks'], shapes['blocks'][0]], 'a': struct((3,))})
  equal_trees(again['stem'], params['stem'])
  equal_trees(again['blocks'][:2], params['blocks'])
