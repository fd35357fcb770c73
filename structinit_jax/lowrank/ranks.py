"""Ranks of factors, from sizes or from singular values."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp

from structinit_jax import base

__all__ = ['chooser', 'scaled', 'stable_rank']


def scaled(rank_scale: float, rows: int, columns: int) -> int:
  """Returns `max(round(rank_scale * min(rows, columns)), 1)`.

  Args:
    rank_scale: in (0, 1].
    rows: of the matrix.
    columns: of the matrix.

  Returns:
    The rank.

  Raises:
    ValueError: if the scale is out of range.

  Example:
    >>> from structinit_jax.lowrank import ranks
    >>> ranks.scaled(0.1, 64, 256)
    6

  Source: Vodrahalli et al. (2022), section 4.
  """
  if not 0 < rank_scale <= 1:
    raise ValueError(
        f'rank_scale {rank_scale} must be in (0, 1]; the nearest that works is '
        f'{1.0 if rank_scale > 1 else 0.05}')
  return max(round(rank_scale * min(rows, columns)), 1)


def stable_rank(kernel: jax.Array) -> jax.Array:
  r"""Returns $\|W\|_F^2 / \|W\|_2^2$, between 1 and the rank.

  Args:
    kernel: matrix (in, out).

  Returns:
    A scalar.

  Example:
    >>> import jax.numpy as jnp, structinit_jax as si
    >>> float(si.lowrank.stable_rank(jnp.eye(4)))
    4.0

  Source: M. Rudelson and R. Vershynin, Sampling from large matrices (2007).
  """
  values = jnp.linalg.svd(kernel, compute_uv=False)
  return (values**2).sum() / values[0] ** 2


def _of_energy(energy: float, w: jax.Array) -> int:
  squares = jnp.linalg.svd(w, compute_uv=False) ** 2
  kept = jnp.cumsum(squares) / squares.sum()
  return min(int((kept < energy).sum()) + 1, len(squares))


def chooser(
    *, rank_scale: float | None, rank: int | None, energy: float | None
) -> Callable[[jax.Array], int]:
  """Returns the rank of a matrix, as a function of it; one of three rules."""
  given = {'rank_scale': rank_scale, 'rank': rank, 'energy': energy}
  if sum(value is not None for value in given.values()) != 1:
    raise ValueError(f'give one of rank_scale, rank and energy, got {given}')
  if rank_scale is not None:
    scaled(rank_scale, 1, 1)
    return lambda w: scaled(rank_scale, *w.shape)
  if rank is not None:
    found = base.integer('rank', rank, 1)
    return lambda w: min(found, *w.shape)
  if energy is None or not 0 < energy <= 1 or math.isnan(energy):
    raise ValueError(f'energy {energy} must be in (0, 1]')
  return lambda w: _of_energy(energy, w)
