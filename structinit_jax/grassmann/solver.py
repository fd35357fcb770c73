"""Solves packing problems: subspaces as far apart as possible."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax.grassmann import bounds
from structinit_jax.grassmann import catalogue
from structinit_jax.grassmann import descent
from structinit_jax.grassmann import distances
from structinit_jax.grassmann import pluecker

__all__ = ['Packing', 'pack']

# Relative gap in squared distance at which a bound counts as attained; some
# times the rounding of a float32 inner product.
_ATTAINED = 4e-6


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('frames', 'distance', 'origin'),
    meta_fields=('methods', 'bound', 'metric'))
@dataclasses.dataclass(frozen=True)
class Packing:
  """Subspaces of R^dim and how far apart they are.

  Attributes:
    frames: orthonormal bases, `(num, dim, rank)`.
    distance: the smallest pairwise distance.
    origin: which of `methods` it is due to, an integer.
    methods: the ways that were tried (static).
    bound: proven upper bound on the distance (static).
    metric: 'chordal' or 'fubini_study' (static).
  """

  frames: jax.Array
  distance: jax.Array
  origin: jax.Array
  methods: tuple[str, ...]
  bound: float
  metric: str

  @property
  def method(self) -> str:
    """How it was obtained.

    'orthogonal' (mutually orthogonal subspaces, or the complements of such;
    optimal), 'only subspace', the name of an exactly known packing, e.g. '28
    lines of a unitary two-graph', or of a search: 'search' from random starts,
    or e.g. 'orbits of C2 x C8'. Within a trace, and of a batch whose members
    differ, a search is 'search'.
    """
    return descent.method(self.origin, self.methods)

  @property
  def attains_bound(self) -> jax.Array:
    """Whether the distance is the bound, up to rounding: proven optimal."""
    return self.distance**2 >= (1 - _ATTAINED) * self.bound**2


@functools.partial(jax.jit, static_argnames=('dim', 'rank', 'num', 'dtype'))
def _orthogonal(
    key: base.Key, dim: int, rank: int, num: int, dtype: Any) -> jax.Array:
  columns = linalg.haar(key, (dim, num * rank), dtype)
  return columns.reshape(dim, num, rank).transpose(1, 0, 2)


@jax.jit
def _complements(frames: jax.Array) -> jax.Array:
  # The last columns of a complete QR span the complement.
  return jnp.linalg.qr(frames, mode='complete')[0][..., frames.shape[-1]:]


@functools.partial(jax.jit, static_argnames='metric')
def _distance(frames: jax.Array, pair: jax.Array, metric: str) -> jax.Array:
  s, t = frames[pair]
  return distances.DISTANCES[metric](s, t)


def _rounded(distance: float, dtype: Any) -> jax.Array:
  """Rounds down, so that an optimal distance is not above its bound."""
  x = np.asarray(distance, dtype)
  if float(x) > distance:
    x = np.nextafter(x, x.dtype.type(0))
  return jnp.asarray(x)


def _target(rank: int, bound: float, metric: str) -> float:
  """Returns the similarity at which the bound counts as attained."""
  attained = bound * math.sqrt(1 - _ATTAINED)
  if metric == 'chordal':
    return rank - attained**2
  return math.cos(attained)**2


def _solve(
    key: base.Key, *, dim: int, rank: int, num: int, metric: str,
    restarts: int | None, steps: int | None, dtype: Any,
) -> Packing:
  bound = bounds.upper_bound(dim, rank, num, metric)
  make = functools.partial(Packing, bound=bound, metric=metric)
  zero = jnp.zeros((), jnp.int32)
  if num * rank <= dim:
    frames = _orthogonal(key, dim, rank, num, dtype)
    return make(frames, _rounded(bound, dtype), zero, ('orthogonal',))
  if rank == dim:
    frames = linalg.haar(key, (num, dim, dim), dtype)
    return make(frames, jnp.zeros((), dtype), zero, ('only subspace',))
  if 2 * rank > dim:
    # Complements are as far apart as the subspaces, in both metrics.
    dual = _solve(key, dim=dim, rank=dim - rank, num=num, metric=metric,
                  restarts=restarts, steps=steps, dtype=dtype)
    return dataclasses.replace(dual, frames=_complements(dual.frames))
  known = exact = None
  if metric == 'chordal' or rank == 1:  # for lines one is the other's sine
    known = catalogue.lookup(dim, rank, num)
  if known is not None:
    distance = math.sqrt(known.squared)
    if metric == 'fubini_study':
      distance = math.asin(distance)
    exact = make(jnp.asarray(known.frames, dtype), _rounded(distance, dtype),
                 zero, (known.method,))
    # A part of a packing may be improved on, unless it attains a bound.
    if (not known.method.startswith('part of')
        or distance >= bound * math.sqrt(1 - _ATTAINED)):
      return exact
  if metric == 'fubini_study' and num <= math.comb(dim, rank):
    # All determinants can vanish; ties are broken by the chordal distance.
    chordal = _solve(key, dim=dim, rank=rank, num=num, metric='chordal',
                     restarts=restarts, steps=steps, dtype=dtype)
    frames, way = pluecker.orthogonalize(chordal.frames)
    origin = jnp.where(
        way == 0, chordal.origin, len(chordal.methods) + way - 1)
    return make(frames, _rounded(bound, dtype), origin, (
        *chordal.methods, 'determinants made to vanish',
        'coordinate subspaces'))
  found = descent.search(
      key, dim=dim, rank=rank, num=num, metric=metric,
      target=_target(rank, bound, metric),
      simplex=metric == 'chordal' and bound == bounds.simplex(dim, rank, num),
      restarts=restarts, steps=steps, dtype=dtype)
  packing = make(found.frames, _distance(found.frames, found.pair, metric),
                 found.origin, found.methods)
  return packing if exact is None else _better(packing, exact)


def _better(one: Packing, other: Packing) -> Packing:
  first = one.distance >= other.distance
  return dataclasses.replace(
      one, frames=jnp.where(first, one.frames, other.frames),
      distance=jnp.maximum(one.distance, other.distance),
      origin=jnp.where(
          first, one.origin, len(one.methods) + other.origin),
      methods=one.methods + other.methods)


def pack(
    key: base.Key, *, dim: int, rank: int, num: int,
    distance: str = 'chordal', restarts: int | None = None,
    steps: int | None = None, dtype: Any = None,
) -> Packing:
  r"""Packs subspaces: maximises $\min_{i<j} d(S_i, S_j)$ over $G(m, k)^N$.

  The first of these that serves:

  1. If `num * rank <= dim`, mutually orthogonal subspaces are optimal and come
     from one QR factorisation.
  2. Sizes whose best packing is known exactly, such as 28 lines in $R^7$ or 70
     4-planes in $R^8$, are built from their algebra, the same for every key.
  3. For 'fubini_study', as long as all determinants can vanish,
     $N \le \binom{m}{k}$: a chordal packing, moved to where they do by Newton's
     method, or coordinate subspaces if that fails.
  4. Else a search, until the proven bound is attained: batches of random
     starts and, in turns, of unions of orbits of small groups descend an
     annealed log-sum-exp of the pairwise similarities; the better quarter of a
     batch goes on, and the best of all is polished. Orbits are cheaper than
     random starts, and the best packings tend to be symmetric.

  Pure, and may itself be jitted or vmapped. Compiled once for many sizes, which
  are padded to a few.

  Args:
    key: a JAX PRNG key.
    dim: dimension m of the space.
    rank: dimension k of each subspace, 1 <= k <= m.
    num: number N of subspaces, at least 2.
    distance: 'chordal' or 'fubini_study'.
    restarts: random starts to try, rounded up to whole batches; by default as
      many as take about a second.
    steps: descent steps of each; by default 1500, fewer for N in the thousands.
    dtype: float32 (default), or float64 under `jax.enable_x64`.

  Returns:
    A Packing. Its frames are orthonormal to the rounding of `dtype`.

  Raises:
    ValueError: for sizes that make no packing or an unknown distance.

  Example:
    >>> import jax, structinit_jax as si
    >>> packing = si.grassmann.pack(jax.random.key(0), dim=3, rank=1, num=6)
    >>> packing.frames.shape, packing.method
    ((6, 3, 1), '6 lines of a conference matrix')
    >>> round(float(packing.distance) ** 2, 4)       # icosahedron: 4/5
    0.8
    >>> bool(packing.attains_bound)
    True

  Source: Yap, Roberts, Prabhu, Grassmannian Packings in Neural Networks,
    eq. (4); Medra and Davidson (2014) for the smoothed objective.
  """
  distances.check_distance(distance)
  dim, rank, num = (base.integer(name, value) for name, value in (
      ('dim', dim), ('rank', rank), ('num', num)))
  where = f'packing of num={num} subspaces of rank={rank} in R^dim, dim={dim}'
  if num < 2:
    raise ValueError(f'{where}: num must be at least 2')
  if not 1 <= rank <= dim:
    raise ValueError(
        f'{where}: rank must lie in 1..dim; the nearest is '
        f'{min(max(rank, 1), max(dim, 1))}')
  restarts, steps, _ = descent.options(restarts, steps)
  base.check_key(key)
  small = min(rank, dim - rank)
  descent.check_size(
      where, dim, rank, num, closed=dim // small if small and dim > 2 else num)
  dtype = base.compute_dtype(jnp.float32 if dtype is None else dtype)
  return _solve(key, dim=dim, rank=rank, num=num, metric=distance,
                restarts=restarts, steps=steps, dtype=dtype)
