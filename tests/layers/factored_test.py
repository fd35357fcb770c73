"""A model given factors computes what it does with the merged kernels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structinit_jax import layers
from structinit_jax import lowrank

KEY = jax.random.key(0)


class Model(nn.Module):
  """Every layer that factors can stand in for, and one that keeps a kernel."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(12, (3, 3), strides=2, padding=1, name='strided')(x))
    x = nn.Conv(16, (3, 2), padding='CIRCULAR', use_bias=False, name='wrap')(x)
    x = nn.Conv(16, (3, 3), feature_group_count=16, name='depthwise')(x)
    x = x.reshape(*x.shape[:-3], -1, 16)
    x = nn.Conv(20, 3, padding='CAUSAL', kernel_dilation=2, name='causal')(x)
    x = nn.MultiHeadDotProductAttention(4, name='attention')(x)
    x = nn.DenseGeneral((3, 5), axis=(-2, -1), name='general')(x)
    return nn.Dense(7, name='head')(x)


def merged(params):
  if 'u' in params:
    rest = {name: x for name, x in params.items() if name not in ('u', 'v')}
    return {'kernel': lowrank.merge(params['u'], params['v']), **rest}
  return {name: merged(x) if isinstance(x, dict) else x
          for name, x in params.items()}


@pytest.fixture(scope='module')
def full():
  x = jax.random.normal(KEY, (2, 8, 8, 3))
  params = Model().init(KEY, x)['params']
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(KEY, len(leaves))
  return x, treedef.unflatten([  # biases, too
      leaf + 0.1 * jax.random.normal(key, leaf.shape)
      for key, leaf in zip(keys, leaves, strict=True)])


@pytest.mark.parametrize('kind', ['separable', 'pointwise'])
def test_outputs_and_gradients_are_those_of_the_merged_model(full, kind):
  x, params = full
  small = lowrank.compress(params, rank=2, kind=kind, select='(?!general).*')
  assert {name for name, p in small.items() if 'u' in p} == {
      'strided', 'wrap', 'causal', 'head'}
  assert 'u' in small['attention']['query']
  apply = layers.factored(Model().apply)

  def loss(apply, params):
    return (apply({'params': params}, x)**2).sum()

  got = jax.jit(jax.value_and_grad(lambda p: loss(apply, p)))(small)
  want = jax.jit(jax.value_and_grad(
      lambda p: loss(Model().apply, merged(p))))(small)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b, rtol=2e-4, atol=2e-4), got, want)


def test_a_model_without_factors_is_left_alone(full):
  x, params = full
  model = Model()
  np.testing.assert_array_equal(
      layers.factored(model.apply)({'params': params}, x),
      model.apply({'params': params}, x))
  with pytest.raises(Exception, match='kernel'):  # and so is what is outside
    model.apply({'params': lowrank.compress(params, rank=2)}, x)


def test_the_convolution_of_a_layer_is_used(full):
  x, _ = full
  called = []

  def mine(*args, **kwargs):
    called.append(kwargs['dimension_numbers'])
    return jax.lax.conv_general_dilated(*args, **kwargs)

  layer = nn.Conv(8, (3, 3), conv_general_dilated=mine)
  params = lowrank.compress(layer.init(KEY, x)['params'], rank=2)
  called.clear()
  layers.factored(layer.apply)({'params': params}, x)
  assert called == [jax.lax.ConvDimensionNumbers(
      (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))] * 2


def test_layers_that_have_no_factors_are_named(full):
  x, _ = full
  pair = {'u': jnp.ones((1, 3, 3, 2)), 'v': jnp.ones((3, 1, 2, 8))}
  for layer, message in [
      (nn.Conv(8, (3, 3), use_bias=False, mask=jnp.ones((3, 3, 3, 8))),
       "factors of '': a masked"),
      (nn.Conv(6, (3, 3), use_bias=False), r"the layer has \(3, 3, 3, 6\)"),
      (nn.ConvTranspose(8, (3, 3), use_bias=False),
       'transposed convolution has no factors. .* leave it out of select'),
      (nn.Dense(8, use_bias=False), 'are none of a kernel')]:
    with pytest.raises(ValueError, match=message):
      layers.factored(layer.apply)({'params': pair}, x)
