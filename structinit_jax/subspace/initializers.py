"""Kernels that are drawn in a random subspace."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax.subspace import projections

__all__ = ['drawn']


def drawn(
    *, dim: int | None = None, fraction: float | None = None,
    projection: str = 'hadamard', scale: float = 2.0,
    max_bytes: int = projections.MAX_BYTES,
) -> base.LeafInit:
  r"""Makes kernels $P w$ of few normal coordinates.

  $w \sim N(0, I_d)$, and P has columns of the norm at which entries have
  variance `scale / fan_in` on average. A layer of d coordinates is stored as a
  key and these: what Minut trains, one projection a layer.

  Args:
    dim: d, the same for every kernel; no more than it has weights.
    fraction: in place of `dim`, the fraction of a kernel's weights, rounded and
      at least 1.
    projection: the kind; see `projection`.
    scale: 2 keeps the variance through ReLU layers, 1 through linear ones.
    max_bytes: what the projection may take.

  Returns:
    An Initializer; its aux has 'coordinates', w, and 'projection', P.

  Raises:
    ValueError: for bad options; when called, for a `dim` that does not fit the
      shape.

  Example:
    >>> import jax, structinit_jax as si
    >>> init = si.subspace.drawn(fraction=0.1)
    >>> kernel = init(jax.random.key(0), (30, 20))
    >>> aux = init.aux(jax.random.key(0), (30, 20))
    >>> aux['coordinates'].shape, kernel.shape
    ((60,), (30, 20))
    >>> same = aux['projection'].apply(aux['coordinates']).reshape(30, 20)
    >>> bool((kernel == same).all())
    True

  Source: Minut, `K_i = P_i w_i`; the variance is this library's.
  """
  if (dim is None) == (fraction is None):
    raise ValueError(f'dim={dim} and fraction={fraction}: give one of the two')
  least = 1 if dim is None else base.integer('dim', dim, 1)
  share = 0.0 if fraction is None else base.positive('fraction', fraction)
  if share > 1:
    raise ValueError(f'fraction={share} must be at most 1, all weights')
  scale = base.positive('scale', scale)
  projections.projection(projection, jax.random.key(0), 1, 1)

  def parts(
      key: base.Key, shape: tuple[int, ...], dtype: Any
  ) -> tuple[projections.Projection, jax.Array]:
    size = math.prod(shape)
    d = max(least, round(share * size))
    where, how = jax.random.split(key)
    norm = math.sqrt(scale / base.fan_in(shape) * size / d)
    made = projections.projection(
        projection, where, size, d, column_norm=norm, max_bytes=max_bytes)
    return made, jax.random.normal(how, (d,), dtype)

  def sample(key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    if not math.prod(shape):
      return jnp.zeros(shape, dtype)
    made, w = parts(key, shape, dtype)
    return made.apply(w).reshape(shape)

  def structure(key: base.Key, shape: tuple[int, ...]) -> dict[str, Any]:
    if not math.prod(shape):
      return {}
    made, w = parts(key, shape, jnp.float32)
    return {'coordinates': w, 'projection': made}

  size = f'dim={dim}' if fraction is None else f'fraction={fraction}'
  return base.LeafInit(
      f'subspace.drawn({size}, projection={projection!r}, scale={scale})',
      sample, structure)
