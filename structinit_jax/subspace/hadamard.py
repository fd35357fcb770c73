"""Walsh-Hadamard transforms and random signs, the pieces of fast projections.

Both are exact: signs flip, and a transform adds and subtracts, so what they
give does not depend on how a program was compiled or divided over devices
beyond the order of the sums, which is written out here.
"""

from collections.abc import Sequence
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base

__all__ = ['flip', 'random_bits', 'signs', 'transform']

_BITS = 32


def random_bits(
    key: base.Key, sizes: Sequence[int]) -> list[jax.Array]:
  """Draws random bits for arrays of such sizes, all in one go.

  Args:
    key: a JAX PRNG key.
    sizes: numbers of bits.

  Returns:
    Words of 32 bits, uint32 (ceil(size / 32), 1).
  """
  counts = [-(-size // _BITS) for size in sizes]
  words = jax.random.bits(key, (sum(counts), 1), jnp.uint32)
  return list(lax.split(words, counts))


def signs(words: jax.Array, shape: base.Shape, dtype: Any) -> jax.Array:
  """Returns an independent sign for every bit.

  Args:
    words: of `random_bits`, as many as `shape` needs.
    shape: of the array.
    dtype: of the signs.

  Returns:
    Array of +1 and -1.
  """
  lanes = np.arange(_BITS, dtype=np.uint32)[None]
  # Integers to the last: XLA would store the constants of a float expression.
  bits = ((words >> lanes) & np.uint32(1)).astype(jnp.int32)
  size = math.prod(shape)
  return (1 - 2 * bits).reshape(-1)[:size].reshape(shape).astype(dtype)


@jax.checkpoint
def flip(words: jax.Array, x: jax.Array) -> jax.Array:
  """Multiplies by the signs of `words`, which are kept as bits.

  Args:
    words: of `random_bits`.
    x: array.

  Returns:
    Array of its shape.
  """
  return x * signs(words, x.shape, x.dtype)


def _butterflies(x: jax.Array, size: int) -> jax.Array:
  """Transforms axis 1 of x (blocks, size, k), two rows at a time."""
  blocks, _, k = x.shape
  done = 1
  while done < size:
    # Split and joined, not sliced: the transposes of these are as fast.
    a, b = lax.split(x.reshape(-1, 2, done * k), [1, 1], axis=1)
    x = lax.concatenate([a + b, a - b], 1)
    done *= 2
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
  x = _butterflies(x.reshape(blocks, outer, inner), outer)
  x = _butterflies(x.swapaxes(1, 2), inner)
  return x.reshape(blocks, n)
