"""Attention by random features is an average of softmax attention's terms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structinit_jax import layers

KEY = jax.random.key(0)


def inputs(scale, dtype=jnp.float32):
  return [scale * jax.random.normal(key, (2, 9, 3, 4), dtype)
          for key in jax.random.split(KEY, 3)]


def softmax_attention(query, key, value):
  query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
  scores = np.exp(np.einsum('blhs,bkhs->bhlk', query, key) / math.sqrt(4))
  return np.einsum('bhlk,bkhs->blhs',
                   scores / scores.sum(-1, keepdims=True), value)


@pytest.mark.parametrize('scale', [0.3, 0.6])
def test_the_error_falls_with_the_features(scale):
  """By 4 for 16 times as many, once these are enough for the norms."""
  x = inputs(scale)
  want = softmax_attention(*x)
  errors = []
  for features in (16, 256, 4096):
    found = jnp.stack([
        layers.performer_attention(key, features, 4)(*x)
        for key in jax.random.split(KEY, 8)])
    errors.append(float(np.sqrt(((np.asarray(found) - want)**2).mean())))
  assert errors[1] < errors[0] / 2.5
  assert errors[2] < errors[1] / 2.5
  assert errors[2] < 0.05 * np.sqrt((want**2).mean())


def test_large_scores_stay_finite():
  x = inputs(30.)
  attend = layers.performer_attention(KEY, 64, 4)
  y, pull = jax.vjp(attend, *x)
  assert all(np.isfinite(z).all() for z in (y, *pull(y)))
  # Outputs are averages of the values, whatever the scores.
  assert (y.max((1, 3)) <= x[2].max((1, 3)) + 1e-3).all()


def test_what_is_refused():
  attend = layers.performer_attention(KEY, 8, 4)
  with pytest.raises(ValueError, match='not of heads of 4'):
    attend(*[jnp.ones((1, 2, 1, 5))] * 3)
  with pytest.raises(ValueError, match='no scores to mask'):
    attend(*inputs(1.), mask=jnp.ones((2, 3, 9, 9)))
  for sizes in ((0, 4), (4, 0)):
    with pytest.raises(ValueError, match='at least 1'):
      layers.performer_attention(KEY, *sizes)


def test_it_is_of_the_narrow_heads():
  attend = layers.performer_attention(KEY, 16, 2)
  layer = layers.LowRankAttention(4, rank=2, attention_fn=attend)
  x = jax.random.normal(KEY, (2, 5, 16))
  y, variables = layer.init_with_output(KEY, x)
  exact = layers.LowRankAttention(4, rank=2)
  assert y.shape == x.shape
  np.testing.assert_array_equal(
      variables['params']['query']['kernel'],
      exact.init(KEY, x)['params']['query']['kernel'])
