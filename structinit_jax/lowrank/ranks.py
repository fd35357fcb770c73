"""Ranks of factors, from sizes, from singular values, or from a budget."""

from collections.abc import Callable
from collections.abc import Mapping
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax.lowrank import objectives

__all__ = ['chooser', 'of', 'scaled', 'stable_rank']

# Shape of a matrix and its singular values, if it has values yet.
_Matrix = tuple[tuple[int, int], Any]


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
  if not (isinstance(rank_scale, numbers.Real) and 0 < rank_scale <= 1):
    over = isinstance(rank_scale, numbers.Real) and rank_scale > 1
    raise ValueError(
        f'rank_scale {rank_scale!r} must be in (0, 1]; the nearest that works '
        f'is {1.0 if over else 0.05}')
  return max(round(rank_scale * min(rows, columns)), 1)


def of(
    rows: int, columns: int, *, rank: int | None, rank_scale: float | None
) -> int:
  """Returns the one of two that is given, the second as `scaled` reads it."""
  if rank is not None and rank_scale is None:
    return rank
  if rank is None and rank_scale is not None:
    return scaled(rank_scale, rows, columns)
  raise ValueError(f'give one of rank={rank} and rank_scale={rank_scale}')


def stable_rank(kernel: jax.Array) -> jax.Array:
  r"""Returns $\|W\|_F^2 / \|W\|_2^2$, between 1 and the rank; 0 of zeros.

  Args:
    kernel: matrix (in, out).

  Returns:
    A scalar.

  Raises:
    ValueError: if the kernel is no matrix.

  Example:
    >>> import jax.numpy as jnp, structinit_jax as si
    >>> float(si.lowrank.stable_rank(jnp.eye(4)))
    4.0

  Source: M. Rudelson and R. Vershynin, Sampling from large matrices (2007).
  """
  values = jnp.linalg.svd(
      objectives.check_matrix('kernel', kernel), compute_uv=False)
  shares = values / jnp.where(values[0] > 0, values[0], 1)
  return (shares**2).sum()


def chooser(
    *, rank_scale: float | None = None, rank: int | None = None,
    energy: float | None = None, stable: float | None = None,
    budget: float | None = None,
    uses: Mapping[str, int] | None = None,
) -> Callable[[Mapping[str, _Matrix]], dict[str, int]]:
  """Returns how the ranks of matrices are chosen, by one of five rules.

  Args:
    rank_scale: relative to the smaller side.
    rank: the same for all, at most the smaller side.
    energy: share of the squared singular values that is kept.
    stable: relative to the stable rank.
    budget: share of the weights, or, with `uses`, of the multiplications. With
      singular values it goes where it keeps the largest share of a matrix's
      squares; without, to all at one rank scale.
    uses: of a matrix; 1 for those it does not name.

  Returns:
    A function of matrices by name that returns ranks by name; those that would
    save no weights are left out.

  Raises:
    ValueError: if not exactly one rule is given, or one is out of range.
  """
  given = {'rank_scale': rank_scale, 'rank': rank, 'energy': energy,
           'stable': stable, 'budget': budget}
  if sum(value is not None for value in given.values()) != 1:
    raise ValueError(f'give one of {", ".join(given)}, got {given}')
  if uses is not None and budget is None:
    raise ValueError('uses are for a budget')
  if rank_scale is not None:
    scaled(rank_scale, 1, 1)
    return lambda found: _saving(found, {
        name: scaled(rank_scale, *shape) for name, (shape, _) in found.items()})
  if rank is not None:
    most = base.integer('rank', rank, 1)
    return lambda found: _saving(found, {
        name: min(most, *shape) for name, (shape, _) in found.items()})
  name, share = next(
      (name, value) for name, value in given.items() if value is not None)
  if name == 'stable':
    share = base.positive(name, share)
    return lambda found: _saving(found, {
        name: min(math.ceil(share * _stable(values)), *shape)
        for name, (shape, values) in found.items()})
  if not (isinstance(share, numbers.Real) and 0 < share <= 1):
    raise ValueError(f'{name} {share!r} must be in (0, 1]')
  if name == 'budget':
    return lambda found: _of_budget(share, found, uses or {})
  return lambda found: _saving(found, {
      name: _of_energy(share, values) for name, (_, values) in found.items()})


def _saving(
    found: Mapping[str, _Matrix], chosen: Mapping[str, int]) -> dict[str, int]:
  return {name: rank for name, rank in chosen.items()
          if rank <= _most(*found[name][0])}


def _most(rows: int, columns: int) -> int:
  """Returns the largest rank whose factors are smaller than the matrix."""
  return (rows * columns - 1) // (rows + columns)


def _stable(values: np.ndarray) -> float:
  squares = np.square(values, dtype=np.float64)
  return squares.sum() / squares[0] if squares[0] else 1.


def _of_energy(energy: float, values: np.ndarray) -> int:
  squares = np.square(values, dtype=np.float64)
  kept = np.cumsum(squares) / max(squares.sum(), np.finfo(np.float64).tiny)
  return min(int((kept < energy).sum()) + 1, len(squares))


def _of_budget(
    budget: float, found: Mapping[str, _Matrix], uses: Mapping[str, int]
) -> dict[str, int]:
  if unknown := sorted(uses.keys() - found.keys()):
    raise ValueError(f'uses of {", ".join(unknown)} are of no kernel')
  counts = {name: base.integer(f'uses of {name!r}', uses.get(name, 1), 1)
            for name in found}
  total = sum(counts[name] * math.prod(shape)
              for name, (shape, _) in found.items())
  found = {name: matrix for name, matrix in found.items() if _most(*matrix[0])}
  # Of one rank more; matrices that no factors are smaller than keep theirs.
  prices = {name: counts[name] * sum(shape)
            for name, (shape, _) in found.items()}
  fixed = total - sum(counts[name] * math.prod(shape)
                      for name, (shape, _) in found.items())
  left = budget * total - fixed - sum(prices.values())
  if left < 0:
    least = (fixed + sum(prices.values())) / total if total else 0.
    raise ValueError(
        f'budget {budget} is less than rank 1 takes; the nearest that works is '
        f'{math.ceil(1e4 * least) / 1e4}')
  if any(values is None for _, values in found.values()):
    return _evenly(budget * total - fixed, found, prices)
  # A rank is worth the share of the squares it keeps. Shares fall, so taking
  # the best per price first takes those of one matrix in order.
  items = []
  for name, (shape, values) in found.items():
    squares = np.square(values, dtype=np.float64)
    shares = squares / max(squares.sum(), np.finfo(np.float64).tiny)
    items += [(-share / prices[name], i, name)
              for i, share in enumerate(shares[1:_most(*shape)], 1)]
  chosen = dict.fromkeys(found, 1)
  closed = set()
  for _, _, name in sorted(items):
    if name in closed:
      continue
    if prices[name] > left:
      closed.add(name)
      continue
    left -= prices[name]
    chosen[name] += 1
  return chosen


def _evenly(
    total: float, found: Mapping[str, _Matrix], prices: Mapping[str, int]
) -> dict[str, int]:
  """Returns the ranks of the largest rank scale whose price is at most that."""

  def at(scale: float) -> dict[str, int]:
    return {name: min(scaled(scale, *shape), _most(*shape))
            for name, (shape, _) in found.items()}

  low, high = 1e-9, 1.
  for _ in range(50):
    middle = (low + high) / 2
    fits = sum(prices[name] * r for name, r in at(middle).items()) <= total
    low, high = (middle, high) if fits else (low, middle)
  return at(low)
