"""Descent on a function finds what is known of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import structinit_jax as si
from structinit_jax import layers
from structinit_jax import lowrank

KEY = jax.random.key(0)


def sample(key, shape=(256, 16)):
  return jax.random.normal(key, shape)


def test_a_linear_layer_becomes_the_truncated_one():
  """Of x ~ N(0, I) the best factors of a linear map are its SVD's."""
  kernel = jax.random.normal(KEY, (16, 12)) * jnp.linspace(2., 0.2, 12)[None]
  start = {'u': jax.random.normal(jax.random.key(1), (16, 3)) / 4,
           'v': jax.random.normal(jax.random.key(2), (3, 12)) / 4}
  found = lowrank.approximate(
      KEY, lambda p, x: x @ p['u'] @ p['v'], start, lambda x: x @ kernel,
      sample, steps=1500, learning_rate=0.03)
  u, s, v = np.linalg.svd(np.asarray(kernel, np.float64))
  best = (s[3:]**2).sum()
  product = np.asarray(found.params['u'] @ found.params['v'], np.float64)
  assert ((product - np.asarray(kernel))**2).sum() < 1.01 * best
  truncated = (u[:, :3] * s[:3]) @ v[:3]
  assert np.linalg.norm(product - truncated) < 0.1 * np.linalg.norm(truncated)
  assert found.losses.shape == (1500,)
  np.testing.assert_allclose(found.losses[-100:].mean(), best, rtol=0.1)


def test_a_network_as_a_whole():
  """Definition 2.2: closer than its layers are when each is approximated."""
  model = nn.Sequential([
      nn.Dense(48), nn.relu, nn.Dense(48), nn.relu, nn.Dense(10)])
  full = model.init(KEY, sample(KEY))
  low = lowrank.compress(full, rank_scale=0.2)
  apply = layers.factored(model.apply)
  params, losses = lowrank.approximate(
      KEY, apply, low, lambda x: model.apply(full, x), sample, steps=300,
      learning_rate=0.003)
  x = sample(jax.random.key(5), (4096, 16))
  want = model.apply(full, x)
  error = [((apply(p, x) - want)**2).sum(1).mean() for p in (low, params)]
  assert error[1] < 0.7 * error[0]
  np.testing.assert_allclose(losses[0], error[0], rtol=0.2)


def test_random_features_start_as_attention():
  """Appendix B, with a layer of another structure."""
  x = sample(KEY, (32, 12, 8))
  exact = nn.MultiHeadDotProductAttention(2)
  fast = nn.MultiHeadDotProductAttention(
      2, attention_fn=layers.performer_attention(KEY, 16, 4))
  params = exact.init(KEY, x)['params']
  found = lowrank.approximate(
      KEY, lambda p, x: fast.apply({'params': p}, x), params,
      lambda x: exact.apply({'params': params}, x),
      lambda key: sample(key, (32, 12, 8)), steps=200)
  want = exact.apply({'params': params}, x)
  error = [((fast.apply({'params': p}, x) - want)**2).mean()
           for p in (params, found.params)]
  assert error[1] < 0.6 * error[0]


def test_trees_of_outputs_and_mixed_dtypes():
  params = {'a': jnp.zeros(3), 'b': jnp.zeros((), jnp.bfloat16)}
  found, _ = lowrank.approximate(
      KEY, lambda p, x: (x * p['a'][None], {'c': x[:, 0] + p['b'].astype(
          jnp.float32)}), params,
      lambda x: (x * 2., {'c': x[:, 0] + 1.}),
      lambda key: sample(key, (32, 3)), steps=300, learning_rate=0.1)
  np.testing.assert_allclose(found['a'], 2, atol=1e-2)
  np.testing.assert_allclose(found['b'].astype(jnp.float32), 1, atol=1e-2)
  assert found['b'].dtype == jnp.bfloat16


def test_what_is_refused():
  with pytest.raises(ValueError, match=r"leaf 'n' of dtype int32"):
    lowrank.approximate(
        KEY, lambda p, x: x, {'n': jnp.int32(1)}, lambda x: x, sample)
  with pytest.raises(ValueError, match=r'fn returns \(256, 16\), target \(256'):
    lowrank.approximate(KEY, lambda p, x: p * x, jnp.ones(()),
                        lambda x: x.sum(1), sample)
  for options in ({'steps': 0}, {'learning_rate': -1.}):
    with pytest.raises(ValueError, match=next(iter(options))):
      lowrank.approximate(KEY, lambda p, x: p * x, jnp.ones(()), lambda x: x,
                          sample, **options)
  with pytest.raises(ValueError, match='key'):
    si.lowrank.approximate(0, lambda p, x: x, {}, lambda x: x, sample)
