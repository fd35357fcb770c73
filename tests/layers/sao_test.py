"""Layers with values are the dense layers with the masked kernel."""

import functools
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from structinit_jax import layers
from structinit_jax import masks
from structinit_jax import sao

KEY = jax.random.key(5)
RANDOM = sao.topology(KEY, (14, 10), degree=4, kind='random')
THESIS = sao.topology(KEY, (9, 14), degree=3, kind='thesis')
CLOSE = {'rtol': 1e-5, 'atol': 1e-5}


def normal(key, topology, spatial=(), dtype=None):
  """No zeros, and nothing to compile: these tests are not of values."""
  return tuple(jax.random.normal(key, (*spatial, *group), dtype)
               for group in topology.groups)


def compare(layer, dense, x):
  """Outputs and gradients, of the inputs and the parameters."""
  layer = layer.clone(
      values_init=normal, bias_init=nn.initializers.normal())
  params = jax.jit(layer.init)(KEY, x)['params']
  dense_params = layer.to_dense(params)

  def loss(module, params, x):
    y = module.apply({'params': params}, x)
    return jnp.sum(jnp.sin(y)), y

  grad = jax.grad(loss, argnums=(1, 2), has_aux=True)
  (params_bar, x_bar), y = jax.jit(functools.partial(grad, layer))(params, x)
  (dense_bar, want_x_bar), want = jax.jit(functools.partial(grad, dense))(
      dense_params, x)
  np.testing.assert_allclose(y, want, **CLOSE)
  np.testing.assert_allclose(x_bar, want_x_bar, **CLOSE)
  # What the mask removes of the dense gradient is dropped.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE),
               params_bar, layer.from_dense(dense_bar))
  jax.tree.map(np.testing.assert_array_equal, params,
               layer.from_dense(dense_params))
  return dense_params


DENSE = [
    (8, {'degree': 3}, 12), (10, {'density': 0.25}, 13),
    (14, {'topology': THESIS}, 9),
    (13, {'topology': sao.Topology((26, 13), 13, 'weighing')}, 26),
    (10, {'topology': RANDOM, 'looks_linear': True, 'use_bias': False}, 28)]


@pytest.mark.parametrize('features, options, size', DENSE)
def test_dense(features, options, size):
  layer = layers.SAODense(features, **options)
  x = jax.random.normal(KEY, (3, 2, size))
  dense = nn.Dense(features, use_bias=options.get('use_bias', True))
  params = compare(layer, dense, x)
  assert params['kernel'].shape == (size, features)


CONV = [
    ((3, 3), {'degree': 3}, 12), ((3,), {'degree': 4, 'strides': 2}, 12),
    ((2, 3), {'topology': RANDOM, 'padding': 'CIRCULAR',
              'kernel_dilation': 2}, 14),
    ((3, 2), {'degree': 3, 'looks_linear': True, 'padding': 'VALID'}, 24)]


@pytest.mark.parametrize('kernel_size, options, size', CONV)
def test_conv(kernel_size, options, size):
  layer = layers.SAOConv(10, kernel_size, **options)
  x = jax.random.normal(KEY, (2, *(6, 5)[:len(kernel_size)], size))
  dense = nn.Conv(10, kernel_size, **{
      name: options[name] for name in ('strides', 'padding', 'kernel_dilation')
      if name in options})
  params = compare(layer, dense, x)
  assert params['kernel'].shape == (*kernel_size, size, 10)


@pytest.mark.parametrize('values_init, dilation, padding', [
    (sao.delta_values, 1, 'SAME'), (sao.eco_values, 2, 'CIRCULAR')])
@pytest.mark.parametrize('features', [4, 8])
def test_orthogonal_at_initialization(features, values_init, dilation, padding):
  layer = layers.SAOConv(
      features, (3, 3), padding=padding, kernel_dilation=dilation, degree=3,
      values_init=values_init)
  x = jax.random.normal(KEY, (1, 6, 6, 6))
  variables = jax.jit(layer.init)(KEY, x)
  jacobian = np.asarray(jax.jit(
      jax.jacobian(lambda x: layer.apply(variables, x).ravel()))(x))
  np.testing.assert_allclose(np.linalg.svd(
      jacobian.reshape(len(jacobian), -1), compute_uv=False), 1, atol=3e-6)


class Composition(nn.Module):
  """A stack, one layer after another."""

  stack: layers.SAOStack

  @nn.compact
  def __call__(self, x):
    s = self.stack
    for i in range(s.depth):
      x = s.activation(layers.SAODense(
          s.features, s.degree, density=s.density, topology=s.topology,
          looks_linear=s.looks_linear, use_bias=s.use_bias,
          name=f'layer_{i}')(x))
    return x


STACKS = [
    {'degree': 3, 'activation': nn.relu},
    {'degree': 5, 'activation': layers.maxmin},
    {'density': 0.25, 'activation': nn.softmax, 'use_bias': False},
    {'degree': 4, 'activation': layers.crelu, 'looks_linear': True},
    {'topology': sao.topology(KEY, (16, 16), degree=3, kind='random')}]


@pytest.mark.parametrize('options', STACKS)
def test_stack_is_the_composition_of_its_layers(options):
  stack = layers.SAOStack(
      3, 16, values_init=normal, bias_init=nn.initializers.normal(), **options)
  x = jax.random.normal(KEY, (2, 4, 32 if stack.looks_linear else 16))
  params = jax.jit(stack.init)(KEY, x)['params']

  def each(params):
    return {f'layer_{i}': jax.tree.map(lambda p, i=i: p[i], params)
            for i in range(stack.depth)}

  def loss(module, split, params, x):
    y = module.apply({'params': split(params)}, x)
    return jnp.sum(jnp.sin(y)), y

  results = [
      jax.jit(jax.grad(functools.partial(loss, module, split), argnums=(0, 1),
                       has_aux=True))(params, x)
      for module, split in ((stack, lambda p: p), (Composition(stack), each))]
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), *results)
  dense = stack.to_dense(params)
  assert dense['kernel'].shape == (3, x.shape[-1], 16)
  one = layers.SAODense(
      16, stack.degree, density=stack.density, topology=stack.topology,
      looks_linear=stack.looks_linear).to_dense(each(params)['layer_1'])
  np.testing.assert_array_equal(dense['kernel'][1], one['kernel'])
  jax.tree.map(np.testing.assert_array_equal, params, stack.from_dense(dense))


@pytest.mark.parametrize('looks_linear', [False, True])
@pytest.mark.parametrize('layer, shape', [
    (layers.SAODense(6, degree=2), (3, 6)),
    (layers.SAOConv(6, (3, 2), degree=2), (4, 5, 6)),
    (layers.SAOStack(2, 6, 2), (3, 6))])
def test_layers_stacked_by_vmap(layer, shape, looks_linear):
  layer = layer.clone(looks_linear=looks_linear, values_init=normal)
  if looks_linear:
    shape = (*shape[:-1], 12)
    if isinstance(layer, layers.SAOStack):
      layer = layer.clone(activation=layers.crelu)
  x = jnp.zeros(shape)
  one = [layer.init(key, x)['params'] for key in jax.random.split(KEY, 5)]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one)
  dense = layer.to_dense(stacked)
  jax.tree.map(
      np.testing.assert_array_equal, dense, jax.tree.map(
          lambda *leaves: jnp.stack(leaves), *map(layer.to_dense, one)))
  jax.tree.map(
      np.testing.assert_array_equal, layer.from_dense(dense), stacked)


@pytest.mark.parametrize('layer, axes', [
    (layers.SAODense(8, degree=4), 'in, out'),
    (layers.SAODense(8, degree=4, looks_linear=True), 'in, out'),
    (layers.SAOConv(8, (3, 2), degree=4), '3, 2, in, out'),
    (layers.SAOStack(3, 8, degree=4), 'in, out')])
def test_parameters_that_are_not_converted(layer, axes):
  for params in ({}, {'params': {'kernel': jnp.zeros((8, 8))}}, None,
                 [jnp.zeros((8, 8))]):
    for convert, name in [(layer.to_dense, 'values'),
                          (layer.from_dense, 'kernel')]:
      with pytest.raises(ValueError, match=f"have no '{name}'; give those"):
        convert(params)
  for kernel in (jnp.zeros(8), jnp.zeros(()), None):
    with pytest.raises(ValueError, match=rf'\(\*batch, {axes}\)'):
      layer.from_dense({'kernel': kernel})
  for values in ((), (jnp.zeros((8, 8)),), (None,), None, jnp.zeros((8, 8))):
    with pytest.raises(ValueError, match=r'values of shapes .*count, d, c\)'):
      layer.to_dense({'values': values})


def test_kernels_and_values_of_another_layer():
  conv = layers.SAOConv(8, (3, 2), degree=4)
  with pytest.raises(ValueError, match=r'\(\*batch, 3, 2, in, out\)'):
    conv.from_dense({'kernel': jnp.zeros((3, 3, 8, 8))})
  linear = layers.SAODense(8, degree=4, looks_linear=True)
  with pytest.raises(ValueError, match=r'\(\*batch, 2, count, d, c\)'):
    linear.to_dense({'values': (jnp.zeros((3, 2, 4, 4)),)})


def test_a_deep_looks_linear_stack_starts_as_a_linear_isometry():
  stack = layers.SAOStack(500, 32, 4, layers.crelu, looks_linear=True)
  h = jax.random.normal(KEY, (32,))
  variables = jax.jit(stack.init)(KEY, layers.crelu(h))

  @jax.jit
  @jax.jacobian
  def jacobian(h):
    plus, minus = jnp.split(stack.apply(variables, layers.crelu(h)), 2)
    return plus - minus

  one, other = jacobian(h), jacobian(-2 * h + 1)
  np.testing.assert_allclose(
      np.linalg.svd(one, compute_uv=False), 1, atol=2e-5)
  np.testing.assert_allclose(one, other, atol=2e-5)


def test_a_layer_of_a_stack_does_not_depend_on_the_depth():
  x = jnp.zeros((1, 16))
  (short,), (long,) = (
      jax.jit(layers.SAOStack(depth, 16, 4).init)(KEY, x)['params']['values']
      for depth in (2, 5))
  np.testing.assert_allclose(short, long[:2], atol=1e-6)
  kernels = layers.SAOStack(5, 16, 4).to_dense({'values': (long,)})['kernel']
  np.testing.assert_allclose(
      kernels @ kernels.mT, np.broadcast_to(np.eye(16), (5, 16, 16)),
      atol=1e-6)
  assert len(np.unique(long)) == long.size


def test_the_program_of_a_stack_does_not_grow_with_the_depth():
  def size(depth):
    stack = layers.SAOStack(depth, 16, 4)
    params = jax.eval_shape(stack.init, KEY, jnp.zeros((1, 16)))
    return len(str(jax.make_jaxpr(jax.grad(
        lambda p, x: stack.apply(p, x).sum()))(params, jnp.zeros((1, 16)))
        ).splitlines())
  assert size(10_000) == size(10)


@pytest.mark.parametrize('optimizer', [
    optax.sgd(0.1, momentum=0.9), optax.adamw(0.01, weight_decay=0.1)])
def test_training_is_that_of_the_masked_dense_layer(optimizer):
  layer, dense = layers.SAODense(10, degree=3), nn.Dense(10)
  x = jax.random.normal(KEY, (8, 13))
  params = jax.jit(layer.init)(KEY, x)['params']
  dense_params = layer.to_dense(params)
  mask = sao.topology(KEY, (13, 10), degree=3).mask
  masked = optax.chain(
      optimizer, masks.keep_masked({'kernel': mask, 'bias': True}))

  def train(module, optimizer, params):
    def step(carry, _):
      params, state = carry
      grads = jax.grad(lambda p: jnp.sum(
          jnp.cos(module.apply({'params': p}, x))))(params)
      updates, state = optimizer.update(grads, state, params)
      return (optax.apply_updates(params, updates), state), None
    return jax.lax.scan(
        step, (params, optimizer.init(params)), length=20)[0][0]

  with jax.numpy_dtype_promotion('standard'):  # adamw takes a power of a count
    trained = jax.jit(functools.partial(train, layer, optimizer))(params)
    want = jax.jit(functools.partial(train, dense, masked))(dense_params)
  trained = layer.to_dense(trained)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b, rtol=1e-4, atol=1e-4), trained, want)
  np.testing.assert_array_equal(trained['kernel'] != 0, mask)


@pytest.mark.parametrize('layer, shape', [
    (layers.SAODense(8, degree=4), (2, 8)),
    (layers.SAOConv(8, (3, 3), degree=4), (2, 4, 4, 8)),
    (layers.SAOStack(3, 8, degree=4), (2, 8)),
    (layers.ECOConv(8, (2, 2)), (2, 4, 4, 8)),
    (layers.SOCConv(8, (3, 3)), (2, 4, 4, 8))])
def test_dtypes(layer, shape):
  """Parameters stay float32; `dtype` is that of the products."""
  x = jax.random.normal(KEY, shape)
  y, variables = jax.jit(layer.init_with_output)(KEY, x)
  z = jax.jit(layer.clone(dtype=jnp.bfloat16).apply)(variables, x)
  assert (y.dtype, z.dtype) == (jnp.float32, jnp.bfloat16)
  np.testing.assert_allclose(z.astype(jnp.float32), y, atol=0.1)
  halves = jax.eval_shape(layer.clone(param_dtype=jnp.bfloat16).init, KEY,
                          x.astype(jnp.bfloat16))
  for a, b in zip(*map(jax.tree.leaves, (halves, variables)), strict=True):
    assert a.dtype == jnp.bfloat16
    assert b.dtype == jnp.float32
  for unknown in ('flaot32', 'int32'):
    with pytest.raises(ValueError, match=f'dtype .*{unknown}'):
      layer.clone(dtype=unknown).init(KEY, x)


def test_requests_that_are_refused():
  def init(layer, *shape):
    jax.eval_shape(layer.init, KEY, jnp.zeros(shape))

  with pytest.raises(ValueError, match='give one of the two'):
    init(layers.SAODense(8), 2, 8)
  with pytest.raises(ValueError, match=r'degree=2 .* and degree=4'):
    init(layers.SAODense(8, degree=3), 2, 8)
  with pytest.raises(ValueError, match='give it alone'):
    init(layers.SAODense(10, degree=4, topology=RANDOM), 2, 14)
  with pytest.raises(ValueError, match=r'maps 15 features to 10; .*\(14, 10\)'):
    init(layers.SAODense(10, topology=RANDOM), 2, 15)
  with pytest.raises(ValueError, match='got 7; the nearest that works is 8'):
    init(layers.SAODense(8, degree=2, looks_linear=True), 2, 7)
  for layer, size in [(layers.SAOStack(2, 8, 4), 9),
                      (layers.SAOStack(2, 8, 4, layers.crelu), 8),
                      (layers.SAOStack(2, 8, 4, looks_linear=True), 16)]:
    with pytest.raises(ValueError, match='a stack of 8 features'):
      init(layer, 2, size)
  with pytest.raises(ValueError, match='2 spatial axes'):
    init(layers.SAOConv(8, (3, 3), degree=2), 2, 8)
  with pytest.raises(ValueError, match=r'x has shape \(\)'):
    init(layers.SAOStack(2, 8, 4))
  for name, wrong in [('depth', 0), ('depth', 1.5), ('features', 8.),
                      ('activation', 'relu'), ('activation', np.tanh),
                      ('activation', lambda h: (h, h)),
                      ('activation', lambda h: h.sum())]:
    options = {'depth': 2, 'features': 8, 'degree': 4, name: wrong}
    with pytest.raises(ValueError, match=name):
      init(layers.SAOStack(**options), 2, 8)


@pytest.mark.parametrize('layer, shape, message', [
    *[(layers.SAOConv(8, wrong, degree=2), (2, 6, 6, 8),
       'kernel_size=.* positive ints, .* such as')
      for wrong in (3, (0, 3), (-1, 3), (1.5, 3), None, '33', ())],
    (layers.SAODense(8, topology='debruijn'), (2, 8), "'debruijn' is no Topol"),
    (layers.SAOStack(2, 8, topology='debruijn'), (2, 8), 'is no Topology'),
    (layers.SAODense(None, degree=2), (2, 8), 'features=None must be an integ'),
    (layers.SAODense(4., degree=2), (2, 8), 'features=4.0 must be an integer'),
    (layers.SAOConv(4., (3, 3), degree=2), (2, 6, 6, 8), 'features=4.0 must'),
    (layers.SAODense(8, degree=2), (), r'x of shape \(\) .*at least 1 axis'),
    (layers.SAOConv(8, (3,), degree=2), (), r'x of shape \(\) .*at least 1')])
def test_layers_that_are_refused(layer, shape, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(layer.init, KEY, jnp.zeros(shape))


def test_a_topology_that_is_none_converts_nothing():
  layer = layers.SAODense(8, topology='debruijn')
  with pytest.raises(ValueError, match="topology='debruijn' is no Topology"):
    layer.to_dense({'values': (jnp.zeros((2, 4, 4)),)})
  with pytest.raises(ValueError, match="topology='debruijn' is no Topology"):
    layer.from_dense({'kernel': jnp.zeros((8, 8))})


def test_the_library_does_not_need_flax():
  code = ('import sys; sys.modules["flax"] = None; import structinit_jax.sao; '
          'assert "structinit_jax.layers" not in sys.modules')
  subprocess.run([sys.executable, '-c', code], check=True)
