"""Gated layers against their definition, written out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structinit_jax import layers

KEY = jax.random.key(0)


def explicit(x, kernels, biases, **options):
  """Equation 2, of three convolutions."""
  gate, first, second = (
      nn.Conv(kernel.shape[-1], kernel.shape[:-2], **options).apply(
          {'params': {'kernel': kernel, 'bias': bias}}, x)
      for kernel, bias in zip(kernels, biases, strict=True))
  psi = 1 / (1 + jnp.exp(-gate))
  return psi * first + (1 - psi) * second


@pytest.mark.parametrize('options', [
    {}, {'strides': 2, 'padding': 'VALID'},
    {'kernel_dilation': 2, 'padding': 'CIRCULAR'},
    {'feature_group_count': 2}])
def test_it_is_three_convolutions(options):
  groups = options.get('feature_group_count', 1)
  keys = jax.random.split(KEY, 3)
  x = jax.random.normal(keys[0], (2, 9, 9, 4))
  layer = layers.GatedConv(
      6, (3, 2), bias_init=nn.initializers.normal(), **options)
  y, variables = layer.init_with_output(keys[1], x)
  kernel, bias = variables['params']['kernel'], variables['params']['bias']
  assert kernel.shape == (3, 2, 4 // groups, 18)
  parts = kernel.reshape(3, 2, 4 // groups, groups, 3, -1)
  want = explicit(
      x, [parts[..., i, :].reshape(3, 2, 4 // groups, 6) for i in range(3)],
      [bias.reshape(groups, 3, -1)[:, i].reshape(6) for i in range(3)],
      **options)
  np.testing.assert_allclose(y, want, atol=1e-5)


def test_dense():
  x = jax.random.normal(KEY, (5, 4))
  y, variables = layers.GatedDense(3).init_with_output(KEY, x)
  gate, first, second = jnp.split(x @ variables['params']['kernel'], 3, axis=1)
  psi = jax.nn.sigmoid(gate)
  np.testing.assert_allclose(
      y, psi * first + (1 - psi) * second, atol=1e-6)
  conv = layers.GatedConv(3, (1,))
  kernel = variables['params']['kernel'][None]
  bias = variables['params']['bias']
  np.testing.assert_allclose(
      conv.apply({'params': {'kernel': kernel, 'bias': bias}}, x[None])[0], y,
      atol=1e-6)


def test_without_bias_and_in_bfloat16():
  x = jax.random.normal(KEY, (2, 5, 5, 3))
  layer = layers.GatedConv(4, (3, 3), use_bias=False, dtype=jnp.bfloat16)
  y, variables = layer.init_with_output(KEY, x)
  assert [*variables['params']] == ['kernel']
  assert y.dtype == jnp.bfloat16
  assert variables['params']['kernel'].dtype == jnp.float32


def test_matched_widths_have_as_many_weights():
  for width in (64, 128, 300):
    gated = layers.gated_features(width)
    assert 3 * gated**2 == pytest.approx(width**2, rel=0.02)
  assert layers.gated_features(1) == 1


def test_what_is_refused():
  x = jnp.ones((1, 4, 4, 4))
  with pytest.raises(ValueError, match='features=0'):
    layers.GatedConv(0, (3, 3)).init(KEY, x)
  with pytest.raises(ValueError, match='the nearest is 8'):
    layers.GatedConv(7, (3, 3), feature_group_count=2).init(KEY, x)
  with pytest.raises(ValueError, match='have 3 channels, no multiple of'):
    layers.GatedConv(8, (3,), feature_group_count=2).init(
        KEY, jnp.ones((1, 4, 3)))
  for name, wrong in [
      ('strides', 0), ('strides', (1, 1, 1)), ('kernel_dilation', -1)]:
    with pytest.raises(ValueError, match=f'{name}=.* must be a positive int'):
      layers.GatedConv(8, (3, 3), **{name: wrong}).init(KEY, x)
  with pytest.raises(ValueError, match="padding='SAMME' must be one of SAME"):
    layers.GatedConv(8, (3, 3), padding='SAMME').init(KEY, x)
  with pytest.raises(ValueError, match='2 spatial axes for kernel_size'):
    layers.GatedConv(8, (3, 3)).init(KEY, x[0, 0])
  with pytest.raises(ValueError, match='kernel_size=3 must be a sequence'):
    layers.GatedConv(8, 3).init(KEY, x)
  with pytest.raises(ValueError, match='features=-1'):
    layers.GatedDense(-1).init(KEY, x)
  with pytest.raises(ValueError, match='features=0'):
    layers.gated_features(0)
