"""Narrow heads are the truncated products of wide ones."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from structinit_jax import lowrank

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 7, 12))
WIDE = functools.partial(
    nn.MultiHeadDotProductAttention, bias_init=nn.initializers.normal(0.3))


def wide(**options):
  layer = WIDE(**{'num_heads': 3, 'qkv_features': 15, **options})
  return layer, layer.init(KEY, X)['params']


def products(params):
  """Returns the products of every head, biases as a last input, in float64."""

  def rows(name):
    layer = params[name]
    kernel = np.asarray(layer['kernel'], np.float64)
    if 'bias' in layer:
      kernel = np.concatenate([kernel, np.asarray(layer['bias'])[None]])
    return kernel

  size = params['query']['kernel'].shape[-1]
  scores = np.einsum('ihs,jhs->hij', rows('query'), rows('key'))
  out = np.asarray(params['out']['kernel'], np.float64)
  return scores / math.sqrt(size), np.einsum('ihs,hsj->hij', rows('value'), out)


@pytest.mark.parametrize('use_bias', [True, False])
@pytest.mark.parametrize('rank', [1, 2, 4, 5])
def test_products_are_the_truncated_ones(rank, use_bias):
  _, params = wide(use_bias=use_bias)
  narrow = lowrank.narrow_attention(params, rank=rank)
  assert narrow['key']['kernel'].shape == (12, 3, rank)
  for full, found in zip(products(params), products(narrow), strict=True):
    u, s, v = np.linalg.svd(full)
    best = np.einsum('hir,hr,hrj->hij', u[..., :rank], s[:, :rank],
                     v[:, :rank])
    np.testing.assert_allclose(found, best, atol=2e-6)


@pytest.mark.parametrize('options', [
    {}, {'use_bias': False}, {'out_features': 5}, {'qkv_features': 36}])
def test_full_rank_computes_the_same(options):
  """Also where heads are as large as the inputs."""
  layer, params = wide(**options)
  size = params['query']['kernel'].shape[-1]
  narrow = lowrank.narrow_attention(params, rank_scale=1.)
  mask = nn.make_causal_mask(jnp.ones((2, 7)))
  got = layer.clone(qkv_features=3 * size).apply(
      {'params': narrow}, X, mask=mask)
  want = layer.apply({'params': params}, X, mask=mask)
  np.testing.assert_allclose(got, want, atol=5e-6)


def test_cross_attention_and_dtypes():
  memory = jax.random.normal(KEY, (2, 4, 20), jnp.bfloat16)
  layer = WIDE(3, qkv_features=15, param_dtype=jnp.bfloat16)
  params = layer.init(KEY, X.astype(jnp.bfloat16), memory)['params']
  narrow = jax.jit(functools.partial(lowrank.narrow_attention, rank=2))(params)
  assert all(p.dtype == jnp.bfloat16 for p in jax.tree.leaves(narrow))
  assert narrow['value']['kernel'].shape == (20, 3, 2)
  assert narrow['out']['kernel'].shape == (3, 2, 12)


def test_what_is_refused():
  _, params = wide()
  with pytest.raises(ValueError, match=r'shape \(12, 5\) .* works is 5'):
    lowrank.narrow_attention(params, rank=6)
  with pytest.raises(ValueError, match='give one of rank=None'):
    lowrank.narrow_attention(params)
  with pytest.raises(ValueError, match='params have no key/kernel'):
    lowrank.narrow_attention({'query': params['query']}, rank=1)
  with pytest.raises(ValueError, match='heads and size the same'):
    lowrank.narrow_attention(
        params | {'key': {'kernel': jnp.ones((12, 3, 4))}}, rank=1)
  broken = params | {'out': {'kernel': jnp.full((3, 5, 12), jnp.nan)}}
  with pytest.raises(ValueError, match=r"leaf 'out/kernel' .* NaN"):
    lowrank.narrow_attention(broken, rank=1)


@pytest.mark.parametrize('name, layer, message', [
    ('query', {'bias': jnp.ones(4)}, r"leaf 'query/bias' of shape \(4,\)"),
    ('key', {'kernel': jnp.ones((2, 2, 2), int)}, "leaf 'key/kernel' .* int"),
    ('key', {'kernel': jnp.full((2, 2, 2), 1e30).at[0, 0, 0].set(1)},
     "product of 'query' is too large"),
    ('out', jnp.ones((2, 2, 4)), 'no out/kernel')])
def test_layers_that_are_no_heads(name, layer, message):
  params = {name: {'kernel': jnp.full((2, 2, 2), 1e30)}
            for name in ('query', 'key', 'value')}
  params['out'] = {'kernel': jnp.ones((2, 2, 4))}
  params[name] = params[name] | layer if isinstance(layer, dict) else layer
  with pytest.raises(ValueError, match=message):
    lowrank.narrow_attention(params, rank=1)


def test_frobenius_decay_of_heads():
  """Of query and key, of value and out, beside factors and other leaves."""
  _, params = wide()
  params = {'attention': params, 'mlp': {
      'u': jax.random.normal(KEY, (4, 2)), 'v': jax.random.normal(KEY, (2, 3))}}
  decay = lowrank.frobenius_decay(0.3, 0.1, attention=True)
  zeros = optax.tree.zeros_like(params)
  updates, _ = decay.update(zeros, decay.init(params), params)

  def norm(params):
    heads = params['attention']
    scores = jnp.einsum('ihs,jhs->hij', heads['query']['kernel'],
                        heads['key']['kernel'])
    values = jnp.einsum('ihs,hsj->hij', heads['value']['kernel'],
                        heads['out']['kernel'])
    mlp = params['mlp']['u'] @ params['mlp']['v']
    biases = sum((layer['bias']**2).sum() for layer in heads.values())
    return (0.3 * sum((x**2).sum() for x in (scores, values, mlp))
            + 0.1 * biases) / 2

  jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
      updates, jax.grad(norm)(params))
  only = {'attention': params['attention']}
  lowrank.frobenius_decay(1., attention=True).init(only)
  with pytest.raises(ValueError, match='no pair of leaves'):
    lowrank.frobenius_decay(1.).init(only)
