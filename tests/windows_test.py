"""Strides, dilations and paddings, against XLA's and Flax's conventions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structinit_jax import windows


@pytest.mark.parametrize('value, want', [
    (2, (2, 2)), (np.int64(3), (3, 3)), ([1, 4], (1, 4)), ((2, 1), (2, 1)),
    (None, (1, 1))])
def test_one_for_every_axis(value, want):
  assert windows.per_axis('strides', value, 2) == want


@pytest.mark.parametrize('value', [0, -1, 1.5, '2', (1,), (1, 2, 3), (1, 0),
                                   (1, 'x'), (1, None)])
def test_anything_else_is_refused(value):
  with pytest.raises(ValueError, match=r'dilation=.* positive int, or 2'):
    windows.per_axis('dilation', value, 2)


@pytest.mark.parametrize('value, ndim, want', [
    ((3, 2), None, (3, 2)), ([3], 1, (3,)), (np.array([2, 5]), 2, (2, 5))])
def test_kernel_sizes(value, ndim, want):
  found = windows.kernel_sizes('kernel_size', value, ndim)
  assert found == want
  assert {type(size) for size in found} == {int}


@pytest.mark.parametrize('value, ndim, near', [
    (3, None, '(3, 3)'), ('33', None, '(3, 3)'), ((0, 4), None, '(1, 4)'),
    ((5,), 2, '(5, 5)'), ((5, 4, 3), 2, '(5, 4)'), (None, 1, '(3,)')])
def test_other_kernel_sizes_are_refused(value, ndim, near):
  with pytest.raises(ValueError, match='kernel_size=') as error:
    windows.kernel_sizes('kernel_size', value, ndim)
  assert str(error.value).endswith(f'such as {near}')


@pytest.mark.parametrize('kernel', [(3, 2), (1, 5), (4, 4)])
@pytest.mark.parametrize('strides', [(1, 1), (2, 3)])
@pytest.mark.parametrize('dilation', [(1, 1), (2, 1)])
@pytest.mark.parametrize(
    'padding', ['SAME', 'SAME_LOWER', 'VALID', 'CIRCULAR', 1, (2, (0, 1))])
def test_pads_are_those_of_flax(kernel, strides, dilation, padding):
  """A convolution without padding of the padded image is the same."""
  x = jax.random.normal(jax.random.key(0), (1, 9, 8, 1))
  layer = nn.Conv(1, kernel, strides, padding, kernel_dilation=dilation)
  variables = layer.init(jax.random.key(1), x)
  pads = windows.pads(
      padding, (9, 8), windows.spans(kernel, dilation), strides)
  mode = 'wrap' if windows.is_circular(padding) else 'constant'
  padded = jnp.pad(x, [(0, 0), *pads, (0, 0)], mode=mode)
  valid = layer.clone(padding='VALID').apply(variables, padded)
  np.testing.assert_allclose(valid, layer.apply(variables, x), atol=1e-6)


@pytest.mark.parametrize('dilation', [1, 3])
def test_causal_pads_come_before(dilation):
  x = jax.random.normal(jax.random.key(0), (1, 9, 1))
  layer = nn.Conv(1, (4,), padding='CAUSAL', kernel_dilation=dilation)
  variables = layer.init(jax.random.key(1), x)
  pads = windows.pads('CAUSAL', (9,), windows.spans((4,), (dilation,)), (1,))
  valid = layer.clone(padding='VALID').apply(
      variables, windows.pad(x, [(0, 0), *pads, (0, 0)], 'CAUSAL'))
  np.testing.assert_allclose(valid, layer.apply(variables, x), atol=1e-6)


def test_pairs_are_kept_and_other_paddings_refused():
  assert windows.pads([(1, 0), (-1, 2)], (9, 8), (3, 3), (1, 1)) == [
      (1, 0), (-1, 2)]
  for padding in ('FULL', 'CAUSAL', 'REFLECT', 1.5, None, [(1, 1)],
                  [(1, 1), (1,)], [(1, 1), (.5, 1)], 'ab'):
    with pytest.raises(ValueError, match='nor 2 pairs of ints'):
      windows.pads(padding, (9, 8), (3, 3), (1, 1))
