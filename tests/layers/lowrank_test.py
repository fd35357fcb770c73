"""Low-rank layers are dense ones with the merged kernel."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structinit_jax import layers
from structinit_jax import lowrank

KEY = jax.random.key(0)
lecun_normal = jax.nn.initializers.lecun_normal()


def merged(params):
  return {'params': {
      'kernel': lowrank.merge(params['u'], params['v']),
      'bias': params['bias']}}


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_dense(dtype):
  x = jax.random.normal(KEY, (2, 5, 12), dtype)
  layer = layers.LowRankDense(
      7, rank=3, param_dtype=dtype, bias_init=nn.initializers.normal(1.))
  variables = layer.init(KEY, x)
  assert all(p.dtype == dtype for p in jax.tree.leaves(variables))
  want = nn.Dense(7).apply(merged(variables['params']), x)
  rounding = 20 * float(jnp.finfo(dtype).eps)
  got, want = (y.astype(jnp.float32) for y in (layer.apply(variables, x), want))
  np.testing.assert_allclose(got, want, rtol=rounding, atol=rounding)


@pytest.mark.parametrize('kind', ['separable', 'pointwise'])
@pytest.mark.parametrize('options', [
    {}, {'strides': 2, 'padding': 'VALID'}, {'feature_group_count': 2},
    {'padding': 1}, {'kernel_dilation': (2, 1), 'padding': 'CIRCULAR'},
    {'strides': None, 'kernel_dilation': None, 'padding': 'SAME_LOWER'}])
def test_conv(kind, options):
  x = jax.random.normal(KEY, (2, 9, 8, 6))
  layer = layers.LowRankConv(10, (3, 2), rank_scale=0.4, kind=kind, **options)
  params = layer.init(KEY, x)['params']
  want = nn.Conv(10, (3, 2), **options).apply(merged(params), x)
  np.testing.assert_allclose(
      layer.apply({'params': params}, x), want, atol=2e-5)


@pytest.mark.parametrize('kind', ['separable', 'pointwise'])
def test_causal_conv(kind):
  x = jax.random.normal(KEY, (2, 3, 9, 6))
  layer = layers.LowRankConv(10, (4,), rank=3, kind=kind, padding='CAUSAL')
  params = layer.init(KEY, x)['params']
  got = layer.apply({'params': params}, x)
  want = nn.Conv(10, (4,), padding='CAUSAL').apply(merged(params), x)
  np.testing.assert_allclose(got, want, atol=2e-5)
  # What comes later changes nothing.
  np.testing.assert_allclose(
      layer.apply({'params': params}, x.at[:, :, 5:].set(7.))[:, :, :5],
      got[:, :, :5], atol=1e-6)


def test_factors_are_of_one_kernel():
  """Drawn together, at jit and in a model, and closest past the activation."""
  kernel = lecun_normal(KEY, (20, 30))
  layer = layers.LowRankDense(
      30, rank=4, kernel_init=lambda *_: kernel, method='exact')
  x = jnp.ones((1, 20))
  best = lowrank.objective(kernel, *lowrank.factorize(KEY, kernel, 4))
  for init in (layer.init, jax.jit(layer.init)):
    params = init(KEY, x)['params']
    np.testing.assert_allclose(
        lowrank.objective(kernel, params['u'], params['v']), best, rtol=1e-4)


def test_kept_norms():
  x = jnp.ones((1, 20))
  kernel = lecun_normal(KEY, (20, 30))
  params = layers.LowRankDense(
      30, rank=4, kernel_init=lambda *_: kernel, norms='kept').init(
          KEY, x)['params']
  np.testing.assert_allclose(
      jnp.linalg.norm(lowrank.merge(params['u'], params['v']), axis=0),
      jnp.linalg.norm(kernel, axis=0), rtol=1e-5)


def test_requests_that_are_refused():
  x = jnp.ones((1, 6, 6, 5))
  for layer, message in [
      (layers.LowRankDense(4), 'give one of rank=None'),
      (layers.LowRankDense(4, rank=2, rank_scale=0.5), 'give one of rank=2'),
      (layers.LowRankDense(4, rank=9), 'nearest that works is 4'),
      (layers.LowRankDense(4, rank_scale=2.), r'in \(0, 1\]'),
      (layers.LowRankConv(4, (3, 3), rank=2, feature_group_count=2),
       'has to divide the channels, 5'),
      (layers.LowRankConv(4, (3, 3), rank=2, feature_group_count=0),
       'feature_group_count=0 must be at least 1'),
      (layers.LowRankConv(4, 3, rank=2), 'kernel_size=3 '),
      (layers.LowRankConv(4, (3, 3), rank=2, kind='tucker'), 'is unknown')]:
    with pytest.raises(ValueError, match=message):
      jax.eval_shape(layer.init, KEY, x)


def test_attention_starts_as_narrowed_heads():
  x = jax.random.normal(KEY, (2, 5, 12))
  layer = layers.LowRankAttention(3, rank_scale=0.5, qkv_features=24)
  y, variables = layer.init_with_output(KEY, x)
  narrow = nn.MultiHeadDotProductAttention(3, qkv_features=12)
  np.testing.assert_array_equal(narrow.apply(variables, x), y)
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
      jnp.shape, jax.eval_shape(narrow.init, KEY, x))
  # A head of the full size is the full layer.
  full = nn.MultiHeadDotProductAttention(3)
  layer = layers.LowRankAttention(3, rank=4)
  drawn = {}

  class Spy(layers.LowRankAttention):

    def make_rng(self, name='default'):
      drawn['key'] = super().make_rng(name)
      return drawn['key']

  y, _ = Spy(3, rank=4).init_with_output(KEY, x)
  np.testing.assert_allclose(
      y, full.init_with_output(drawn['key'], x)[0], atol=1e-6)


def test_attention_in_a_model():
  """With masks, dropout and partitions, under vmap and jit."""
  x = jax.random.normal(KEY, (2, 5, 12))

  class Model(nn.Module):

    @nn.compact
    def __call__(self, x):
      layer = layers.LowRankAttention(
          3, rank=2, dropout_rate=0.5, kernel_init=nn.with_partitioning(
              nn.initializers.lecun_normal(), ('data', 'model')))
      return layer(nn.Dense(12)(x), mask=nn.make_causal_mask(x[..., 0]),
                   deterministic=False)

  rngs = {'params': KEY, 'dropout': jax.random.key(1)}
  model = Model()
  variables = jax.jit(model.init)(rngs, x)
  kernel = variables['params']['LowRankAttention_0']['query']['kernel']
  assert isinstance(kernel, nn.Partitioned)
  assert kernel.value.shape == (12, 3, 2)
  y = model.apply(variables, x, rngs=rngs)
  assert y.shape == x.shape
  assert np.isfinite(y).all()
  many = nn.vmap(Model, in_axes=None, axis_size=4, variable_axes={'params': 0},
                 split_rngs={'params': True, 'dropout': True},
                 metadata_params={nn.PARTITION_NAME: 'layers'})()
  assert many.init_with_output(rngs, x)[0].shape == (4, *x.shape)


def test_attention_that_is_refused():
  x = jnp.ones((1, 4, 12))
  for options, message in (
      ({'rank': 5}, 'works is 4'), ({}, 'give one of rank'),
      ({'rank': 1, 'normalize_qk': True}, 'normalize_qk=True'),
      ({'rank': 1, 'qkv_features': 7}, 'nearest that work are 6'),
      ({'rank': 1, 'num_heads': 0}, 'num_heads=0 must be at least 1')):
    with pytest.raises(ValueError, match=message):
      layers.LowRankAttention(**{'num_heads': 3, **options}).init(KEY, x)
