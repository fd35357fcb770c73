"""One init function for Linen, NNX and Equinox models."""

import json
import subprocess
import sys

import equinox as eqx
from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import AxisType
import numpy as np
import pytest

import structinit_jax as si

KEY = jax.random.key(0)
IMAGES = jnp.linspace(-1, 1, 2 * 6 * 6 * 2).reshape(2, 6, 6, 2)
INIT_FN = si.partition([
    ('stem/kernel', si.grassmann.packing()),
    (r'blocks/\d+/kernel', jax.random.uniform),
    ('head/kernel', jax.nn.initializers.orthogonal()),
    ('.*bias', si.zeros),
])
NAMES = {'stem/kernel', 'stem/bias', 'blocks/0/kernel', 'blocks/0/bias',
         'head/kernel', 'head/bias'}


class LinenBlocks(nn.Module):
  """A list of layers, as NNX names it."""

  @nn.compact
  def __call__(self, x):
    return nn.relu(nn.Dense(4, name='0')(x))


class LinenNet(nn.Module):
  """The model in Linen."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(8, (2, 2), name='stem')(x)).mean((1, 2))
    return nn.Dense(3, name='head')(LinenBlocks(name='blocks')(x))


class NnxNet(nnx.Module):
  """The model in NNX."""

  def __init__(self, rngs):
    self.stem = nnx.Conv(2, 8, (2, 2), rngs=rngs)
    self.blocks = nnx.List([nnx.Linear(8, 4, rngs=rngs)])
    self.head = nnx.Linear(4, 3, rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.stem(x)).mean((1, 2))
    for block in self.blocks:
      x = nnx.relu(block(x))
    return self.head(x)


class EquinoxNet(eqx.Module):
  """The model in Equinox, whose kernels are (out, in) and OIHW."""

  stem: eqx.nn.Conv2d
  blocks: list
  head: eqx.nn.Linear

  def __init__(self, key):
    keys = jax.random.split(key, 3)
    self.stem = eqx.nn.Conv2d(2, 8, 2, padding='SAME', key=keys[0])
    self.blocks = [eqx.nn.Linear(8, 4, key=keys[1])]
    self.head = eqx.nn.Linear(4, 3, key=keys[2])

  def __call__(self, x):
    x = jax.nn.relu(self.stem(x)).mean((1, 2))
    for block in self.blocks:
      x = jax.nn.relu(block(x))
    return self.head(x)


class Layer(eqx.Module):
  """A layer of Equinox that has the names of Flax, and its own axes."""

  kernel: jax.Array
  bias: jax.Array


def frames_of(kernel):
  """Returns the float64 frames of an HWIO kernel, layout 'taps'."""
  x = np.asarray(kernel, np.float64)
  return x.reshape(-1, *x.shape[-2:]).mT


def check_packing(kernel):
  """4 planes of R^8, mutually orthogonal."""
  frames = frames_of(kernel)
  stacked = frames.transpose(1, 0, 2).reshape(8, 8)
  np.testing.assert_allclose(
      stacked.T @ stacked, np.eye(8), rtol=0, atol=1e-5)


@pytest.fixture(scope='module')
def linen():
  shapes = jax.eval_shape(LinenNet().init, KEY, IMAGES)['params']
  return INIT_FN(KEY, shapes)


def test_linen(linen):
  assert set(si.leaf_names(linen)) == NAMES
  check_packing(linen['stem']['kernel'])
  assert not np.any(linen['head']['bias'])
  out = LinenNet().apply({'params': linen}, IMAGES)
  assert np.isfinite(out).all()


def equal_leaves(a, b):
  names, leaves, _ = si.tree.flatten_with_names(a)
  want = dict(zip(*si.tree.flatten_with_names(b)[:2], strict=True))
  assert set(names) == set(want) == NAMES
  for name, leaf in zip(names, leaves, strict=True):
    np.testing.assert_array_equal(leaf, want[name], err_msg=name)


def test_nnx_by_a_pure_dict(linen):
  """The recipe of the README; equal names, so equal parameters."""
  model = nnx.eval_shape(lambda: NnxNet(nnx.Rngs(0)))
  state = nnx.state(model, nnx.Param)
  params = INIT_FN(KEY, nnx.to_pure_dict(state))
  equal_leaves(params, linen)
  nnx.replace_by_pure_dict(state, params)
  nnx.update(model, state)
  equal_leaves(nnx.to_pure_dict(nnx.state(model, nnx.Param)), linen)
  np.testing.assert_allclose(
      model(IMAGES), LinenNet().apply({'params': linen}, IMAGES), rtol=1e-5)


def test_nnx_by_its_state(linen):
  """The name of a variable drops the '/value' of its box."""
  model = nnx.eval_shape(lambda: NnxNet(nnx.Rngs(0)))
  state = nnx.state(model, nnx.Param)
  assert set(si.leaf_names(state)) == NAMES
  params = INIT_FN(KEY, state)
  assert isinstance(params, nnx.State)
  equal_leaves(params, linen)
  nnx.update(model, params)
  np.testing.assert_allclose(
      model(IMAGES), LinenNet().apply({'params': linen}, IMAGES), rtol=1e-5)


def is_struct(x):
  return isinstance(x, jax.ShapeDtypeStruct)


def test_equinox():
  init_fn = si.partition([
      ('stem/weight', si.with_axes(si.grassmann.packing(), si.axes.OIHW)),
      (r'(blocks/\d+|head)/weight', si.with_axes(
          jax.nn.initializers.orthogonal(), si.axes.OI)),
      ('.*bias', si.zeros)])
  shapes, static = eqx.partition(
      eqx.filter_eval_shape(EquinoxNet, KEY), is_struct)
  assert set(si.leaf_names(shapes)) == {
      name.replace('kernel', 'weight') for name in NAMES}
  params = init_fn(KEY, shapes)
  model = eqx.combine(params, static)
  assert model.stem.weight.shape == (8, 2, 2, 2)
  check_packing(np.asarray(model.stem.weight).transpose(2, 3, 1, 0))
  for weight in (model.blocks[0].weight, model.head.weight):
    np.testing.assert_allclose(
        weight @ weight.T, np.eye(len(weight)), rtol=0, atol=1e-6)
  out = jax.vmap(model)(IMAGES.transpose(0, 3, 1, 2))
  assert out.shape == (2, 3)
  assert np.isfinite(out).all()


def test_equal_names_make_equal_kernels_whatever_the_axes(linen):
  shapes = {
      'stem': Layer(jax.ShapeDtypeStruct((8, 2, 2, 2), jnp.float32),
                    jax.ShapeDtypeStruct((8, 1, 1), jnp.float32)),
      'blocks': [Layer(jax.ShapeDtypeStruct((4, 8), jnp.float32),
                       jax.ShapeDtypeStruct((4,), jnp.float32))]}
  assert set(si.leaf_names(shapes)) == NAMES - {'head/kernel', 'head/bias'}
  params = si.partition([
      ('stem/kernel', si.with_axes(si.grassmann.packing(), si.axes.OIHW)),
      ('.*kernel', si.with_axes(jax.random.uniform, si.axes.OI)),
      ('.*bias', si.zeros)])(KEY, shapes)
  np.testing.assert_array_equal(
      np.asarray(params['stem'].kernel).transpose(2, 3, 1, 0),
      linen['stem']['kernel'])
  np.testing.assert_array_equal(
      params['blocks'][0].kernel.T, linen['blocks']['0']['kernel'])


def test_linen_metadata_keeps_its_box(linen):
  class Boxed(nn.Module):
    """The stem alone, with sharding annotations."""

    @nn.compact
    def __call__(self, x):
      kernel_init = nn.with_partitioning(
          nn.initializers.he_normal(), (None, None, None, 'd'))
      return nn.Conv(8, (2, 2), kernel_init=kernel_init, name='stem')(x)

  shapes = jax.eval_shape(Boxed().init, KEY, IMAGES)['params']
  assert si.leaf_names(shapes) == ['stem/bias', 'stem/kernel']
  init_fn = si.partition(
      [('.*kernel', si.grassmann.packing()), ('.*', si.zeros)])
  params, aux = init_fn.init_with_aux(KEY, shapes)
  box = params['stem']['kernel']
  assert isinstance(box, nn.Partitioned)
  assert box.names == (None, None, None, 'd')
  np.testing.assert_array_equal(box.value, linen['stem']['kernel'])
  assert isinstance(aux['masks']['stem']['kernel'], nn.Partitioned)
  assert aux['packing'].keys() == {'stem/kernel'}
  assert nn.get_partition_spec(params)['stem']['kernel'] == (
      jax.sharding.PartitionSpec(None, None, None, 'd'))
  mesh = jax.make_mesh((8,), ('d',), axis_types=(AxisType.Auto,))
  shardings = nn.get_sharding(shapes, mesh)
  sharded = jax.jit(
      lambda key: init_fn(key, shapes), out_shardings=shardings)(KEY)
  kernel = sharded['stem']['kernel'].value
  assert len(kernel.sharding.device_set) == 8
  np.testing.assert_array_equal(kernel, box.value)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_as_the_kernel_init_of_a_layer(dtype):
  packing = si.grassmann.packing()
  conv = nn.Conv(
      8, (2, 2), kernel_init=packing, bias_init=si.zeros, param_dtype=dtype)
  params = conv.init(KEY, IMAGES.astype(dtype))['params']
  assert params['kernel'].dtype == dtype
  if dtype == jnp.float32:
    check_packing(params['kernel'])
    layer = nnx.Conv(
        2, 8, (2, 2), kernel_init=packing, bias_init=si.zeros,
        rngs=nnx.Rngs(0))
    check_packing(layer.kernel[...])


def test_importing_the_library_imports_no_framework():
  banned = [
      'flax', 'tensorflow_datasets', 'tensorflow', 'equinox', 'matplotlib',
      'orbax', 'haiku', 'ml_collections', 'torch', 'experiments']
  code = ('import json, sys, structinit_jax\n'
          f'print(json.dumps([m for m in {banned!r} if m in sys.modules]))')
  # Outside the repository, as a user has it.
  out = subprocess.run(
      [sys.executable, '-c', code], check=True, capture_output=True,
      text=True, cwd='/').stdout
  assert json.loads(out) == []
