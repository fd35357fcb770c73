r"""Heads of attention as products: query with key, value with output.

A head computes scores $x W_Q W_K^T y^T$ and outputs $y W_V W_O$, so what it is
are two products of rank `head size`, and the best head of a smaller size has
their truncated singular value decompositions. Of inputs with second moment I
the error of the scores is $\| W_Q W_K^T - U V^T \|_F^2$, and no activation is
in between. A bias is the row of an input that is always 1.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax.lowrank import factors
from structinit_jax.lowrank import ranks

__all__ = ['PRODUCTS', 'decays', 'narrow_attention']

# Layers of an attention block that are multiplied, as Flax names them.
PRODUCTS = (('query', 'key'), ('value', 'out'))


def _rows(layer: Mapping[str, jax.Array]) -> jax.Array:
  """Returns (heads, in, size), the bias as a last input."""
  kernel = layer['kernel']
  if 'bias' in layer:
    kernel = jnp.concatenate([kernel, layer['bias'][None]])
  return kernel.transpose(1, 0, 2)


def _layer(
    rows: jax.Array, like: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Inverts `_rows`."""
  rows = rows.transpose(1, 0, 2).astype(like['kernel'].dtype)
  if 'bias' in like:
    return {'kernel': rows[:-1], 'bias': rows[-1]}
  return {'kernel': rows}


def _truncate(
    a: jax.Array, b: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
  """Returns the best (m, rank) and (rank, n) of `a @ b`, balanced.

  The product is not formed: what is decomposed is of the size of a head.
  """
  one, left = jnp.linalg.qr(a)
  other, right = jnp.linalg.qr(b.T)
  u, values, v = jnp.linalg.svd(
      linalg.matmul(left, right.T), full_matrices=False)
  roots = jnp.sqrt(values[:rank])
  return (linalg.matmul(one, u[:, :rank] * roots[None]),
          linalg.matmul(roots[:, None] * v[:rank], other.T))


def narrow_attention(
    params: Mapping[str, Any], *, rank: int | None = None,
    rank_scale: float | None = None,
) -> dict[str, Any]:
  r"""Attention with smaller heads, the closest to given ones.

  The products of query and key and of value and output of every head become the
  nearest ones of the rank, as matrices; biases of query, key and value take
  part, that of the output stays. Nothing may stand between what is multiplied:
  no normalization of queries and keys, no rotary positions.

  Args:
    params: of a `flax.linen.MultiHeadDotProductAttention`: `query`, `key` and
      `value`, each a `kernel` (in, heads, size) and possibly a `bias` (heads,
      size), and `out`, a `kernel` (heads, size, features).
    rank: size of the new heads; or `rank_scale`.
    rank_scale: relative to the size of the heads, or to the inputs or outputs
      if those are fewer.

  Returns:
    Parameters of the same layer with `qkv_features = heads * rank`. Its scores
    are divided by the root of the new size, which the new queries and keys make
    up for.

  Raises:
    ValueError: for parameters that are not of such a layer, are not finite, or
      have no such rank.

  Example:
    >>> import flax.linen as nn, jax, structinit_jax as si
    >>> x = jax.random.normal(jax.random.key(0), (2, 10, 32))
    >>> full = nn.MultiHeadDotProductAttention(4)
    >>> params = full.init(jax.random.key(1), x)['params']
    >>> narrow = si.lowrank.narrow_attention(params, rank=6)
    >>> layer = nn.MultiHeadDotProductAttention(4, qkv_features=4 * 6)
    >>> narrow['query']['kernel'].shape
    (32, 4, 6)
    >>> layer.apply({'params': narrow}, x).shape
    (2, 10, 32)

  Source: Khodak et al. (2021), section 5, of the products; Vodrahalli et al.
    (2022), definition 2.1.
  """
  _check(params)
  features = params['out']['kernel'].shape[-1]
  size = params['query']['kernel'].shape[2]
  rows = min(features, *(params[name]['kernel'].shape[0]
                         for name in ('query', 'key', 'value')))
  rank = factors.check_rank(
      (rows, size), ranks.of(rows, size, rank=rank, rank_scale=rank_scale))

  def halves(one: str, other: str) -> tuple[jax.Array, jax.Array]:
    a = _rows(params[one])
    b = (params['out']['kernel'] if other == 'out'
         else _rows(params[other]).mT)
    dtype = base.compute_dtype(a.dtype)
    return jax.vmap(lambda a, b: _truncate(a, b, rank))(
        a.astype(dtype), b.astype(dtype))

  query, key = halves('query', 'key')
  value, out = halves('value', 'out')
  scale = (rank / size) ** 0.25
  found = {
      'query': _layer(scale * query, params['query']),
      'key': _layer(scale * key.mT, params['key']),
      'value': _layer(value, params['value']),
      'out': dict(params['out']) | {
          'kernel': out.astype(params['out']['kernel'].dtype)}}
  for name, layer in found.items():
    factors.check_finite(
        f'a product of {name!r} is too large for its dtype: the new kernel',
        layer['kernel'])
  return found


def _check(params: Mapping[str, Any]) -> None:
  missing = [name for pair in PRODUCTS for name in pair
             if not isinstance(params.get(name), Mapping)
             or 'kernel' not in params[name]]
  if missing:
    raise ValueError(
        f'params have no {missing[0]}/kernel; narrow_attention is for those of '
        'a flax.linen.MultiHeadDotProductAttention: query, key, value, out')
  shapes = {name: tuple(params[name]['kernel'].shape)
            for pair in PRODUCTS for name in pair}
  fits = all(len(shape) == 3 and 0 not in shape for shape in shapes.values())
  if not fits or len({shapes[name][1:] for name in (
      'query', 'key', 'value')} | {shapes['out'][:2]}) > 1:
    raise ValueError(
        f'kernels of shapes {shapes}: query, key and value have to be (in, '
        'heads, size) and out (heads, size, features), heads and size the same')
  for name, shape in shapes.items():
    for last, leaf in params[name].items():
      leaf_name = f'{name}/{last}'
      want = shape if last == 'kernel' else (
          shape[-1:] if name == 'out' else shape[1:])
      if jnp.shape(leaf) != want or not jnp.issubdtype(
          leaf.dtype, jnp.floating):
        raise ValueError(
            f'leaf {leaf_name!r} of shape {jnp.shape(leaf)} and dtype '
            f'{leaf.dtype} has to be floating-point, of shape {want}')
      factors.check_finite(f'leaf {leaf_name!r}', leaf)


def decays(one: jax.Array, other: jax.Array, *, out: bool) -> Any:
  r"""Returns the gradients of $\frac12 \| A B \|_F^2$ over all heads.

  Args:
    one: kernel (in, heads, size) of query or value.
    other: kernel of what it is multiplied by, key (in, heads, size) or out
      (heads, size, features).
    out: which of them.

  Returns:
    Two arrays of these shapes.
  """
  a = one.transpose(1, 0, 2)
  b = other if out else other.transpose(1, 2, 0)
  da = linalg.matmul(a, linalg.matmul(b, b.mT))
  db = linalg.matmul(linalg.matmul(a.mT, a), b)
  return da.transpose(1, 0, 2), db if out else db.transpose(2, 0, 1)
