"""Walsh-Hadamard transforms and random signs, the pieces of fast projections.

Both are exact: signs flip, and a transform adds and subtracts, so what they
give does not depend on how a program was compiled or divided over devices
beyond the order of the sums, which is written out here.
"""

import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base

__all__ = ['signs', 'transform']

_BITS = 32


def signs(key: base.Key, shape: base.Shape, dtype: Any) -> jax.Array:
  """Draws independent signs, one random bit each.

  Args:
    key: a JAX PRNG key.
    shape: of the array.
    dtype: of the signs.

  Returns:
    Array of +1 and -1.
  """
  size = math.prod(shape)
  words = jax.random.bits(key, (-(-size // _BITS), 1), jnp.uint32)
  lanes = np.arange(_BITS, dtype=np.uint32)[None]
  bits = ((words >> lanes) & np.uint32(1)).astype(jnp.int32)
  return (1 - 2 * bits).reshape(-1)[:size].reshape(shape).astype(dtype)


def _butterflies(x: jax.Array, size: int) -> jax.Array:
  """Transforms axis 1 of x (blocks, size, k), four rows at a time."""
  blocks, _, k = x.shape
  done = 1
  while done < size:
    radix = min(4, size // done)
    # Split and joined, not sliced: the transposes of these are as fast.
    parts = lax.split(
        x.reshape(-1, radix, done * k), [1] * radix, axis=1)
    if radix == 2:
      a, b = parts
      parts = a + b, a - b
    else:
      a, b, c, d = parts
      a, b, c, d = a + b, a - b, c + d, c - d
      parts = a + c, b + d, a - c, b - d
    x = lax.concatenate(parts, 1)
    done *= radix
  return x.reshape(blocks, size, k)


def transform(x: jax.Array) -> jax.Array:
  r"""Multiplies rows by a Hadamard matrix of their length.

  $y_b = Q H x_b$ in n log n additions, with the Sylvester matrix H of entries
  +1 and -1, $H^T H = n I$, and a permutation Q: the rows of H come in another
  order, which saves a transposition.

  Args:
    x: array (blocks, n), n a power of 2.

  Returns:
    Array (blocks, n).

  Source: B. J. Fino, V. R. Algazi, Unified matrix treatment of the fast
    Walsh-Hadamard transform, IEEE Trans. Comput. 25 (1976).
  """
  blocks, n = x.shape
  inner = 2 ** (n.bit_length() // 2)  # n = outer * inner
  outer = n // inner
  # What makes x is not to be computed once for every term of the first sums.
  x = lax.optimization_barrier(x)
  x = _butterflies(x.reshape(blocks, outer, inner), outer)
  x = _butterflies(x.swapaxes(1, 2), inner)
  return lax.optimization_barrier(x.reshape(blocks, n))
