"""Adding a bias: values and derivatives are those of broadcasting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structinit_jax.layers import biases

KEY = jax.random.key(0)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('shape', [(5,), (3, 5), (2, 3, 4, 5), (0, 5)])
def test_all_derivatives_are_those_of_broadcasting(shape, dtype):
  y, cotangent = jax.random.normal(KEY, (2, *shape), dtype)
  bias = jax.random.normal(KEY, (5,), dtype)

  def broadcast(y, bias):
    return y + jnp.broadcast_to(bias, y.shape)

  rounding = 4 * float(jnp.finfo(dtype).eps)  # of sums of 24 terms at most
  close = {'rtol': rounding, 'atol': 2 * rounding}
  for transform in (
      lambda fn: fn(y, bias),
      lambda fn: jax.jvp(fn, (y, bias), (cotangent, bias)),
      lambda fn: jax.vjp(fn, y, bias)[1](cotangent),
      lambda fn: jax.vmap(fn, (None, 0))(y, bias[None] * bias[:, None])):
    got, want = transform(biases.add), transform(broadcast)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a.astype(jnp.float32), b.astype(jnp.float32), **close), got, want)
    assert [x.dtype for x in jax.tree.leaves(got)] == [
        x.dtype for x in jax.tree.leaves(want)]
  assert biases.add(y, None) is y


@pytest.mark.parametrize('rows', [1, 255, 256, 4096, 3 * 2**16, 100_003])
def test_the_gradient_of_many_rows_is_exact_to_rounding(rows):
  """A product with ones adds one row after the other; a sum need not."""
  cotangent = jax.random.uniform(KEY, (rows, 3))
  bias = jnp.zeros(3)
  pull = jax.vjp(biases.add, cotangent, bias)[1]
  np.testing.assert_allclose(
      pull(cotangent)[1], np.asarray(cotangent, np.float64).sum(0), rtol=1e-6)
