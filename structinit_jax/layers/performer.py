r"""Attention by random features, in time linear in the length."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import linalg

__all__ = ['performer_attention']

_FLOOR = 1e-6  # as in the authors' code


def _directions(key: base.Key, features: int, size: int) -> jax.Array:
  """Draws Gaussian vectors (features, size), orthogonal in blocks of `size`."""
  one, other = jax.random.split(key)
  blocks = -(-features // size)
  units = linalg.haar(one, (blocks, size, size)).reshape(-1, size)[:features]
  lengths = jnp.sqrt(jax.random.chisquare(other, size, (features, 1)))
  return units * lengths


def performer_attention(
    key: base.Key, features: int, size: int) -> Callable[..., jax.Array]:
  r"""Returns attention that approximates the softmax by random features.

  $\exp(q^T k / \sqrt s) = E_\omega \phi(q) \phi(k)$ with $\phi(x) = \exp(
  \omega^T x s^{-1/4} - |x|^2 s^{-1/2} / 2)$, so with m directions the outputs
  are $\phi(Q) (\phi(K)^T V)$ over $\phi(Q) (\phi(K)^T 1)$: no matrix of scores,
  and m length size multiplications in place of length^2 size. `lowrank.
  approximate` starts it as the function of the attention it stands in for.

  Args:
    key: a JAX PRNG key, of the directions.
    features: m.
    size: s, of a head.

  Returns:
    A function of queries, keys and values (*batch, length, heads, size) with
    outputs of that shape; the `attention_fn` of
    `flax.linen.MultiHeadDotProductAttention`. It takes no mask.

  Raises:
    ValueError: for sizes below 1; by the function, for another head size or a
      mask.

  Example:
    >>> import flax.linen as nn, jax, structinit_jax as si
    >>> x = jax.random.normal(jax.random.key(0), (2, 50, 16)) / 2
    >>> attention = si.layers.performer_attention(jax.random.key(1), 256, 8)
    >>> exact = nn.MultiHeadDotProductAttention(2)
    >>> fast = nn.MultiHeadDotProductAttention(2, attention_fn=attention)
    >>> y, variables = exact.init_with_output(jax.random.key(2), x)
    >>> error = fast.apply(variables, x) - y
    >>> bool((error**2).mean() < 0.1 * (y**2).mean())
    True

  Source: K. Choromanski et al., Rethinking attention with Performers (2020),
    equation 7 and section 2.4; Vodrahalli et al. (2022), appendix B.
  """
  base.check_key(key)
  size = base.integer('size', size, 1)
  directions = _directions(key, base.integer('features', features, 1), size)

  def attend(
      query: jax.Array, key: jax.Array, value: jax.Array,
      mask: jax.Array | None = None,
  ) -> jax.Array:
    if mask is not None:
      raise ValueError('performer_attention has no scores to mask')
    if query.shape[-1] != size or key.shape[-1] != size:
      raise ValueError(
          f'queries of shape {query.shape} and keys of shape {key.shape} are '
          f'not of heads of {size}')

    def exponents(x: jax.Array) -> jax.Array:
      x = x / math.sqrt(math.sqrt(size))
      return (jnp.einsum('...lhs,ms->...lhm', x, directions.astype(x.dtype))
              - (x**2).sum(-1, keepdims=True) / 2)

    # Any factor common to the keys, and any of a query, cancels. A query whose
    # features are 0 for all keys takes the mean of the values.
    q, k = exponents(query), exponents(key)
    q = jnp.exp(q - jax.lax.stop_gradient(q.max(-1, keepdims=True)))
    k = jnp.exp(k - jax.lax.stop_gradient(k.max((-3, -1), keepdims=True)))
    k = k + _FLOOR
    above = jnp.einsum('...lhm,...lhs->...hms', k, value)
    below = jnp.einsum('...lhm,...hm->...lh', q, k.sum(-3))
    y = jnp.einsum('...lhm,...hms->...lhs', q, above)
    return y / below[..., None]

  return attend
