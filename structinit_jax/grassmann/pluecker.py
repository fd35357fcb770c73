"""Packings whose pairwise determinants vanish: optimal for Fubini-Study."""

from collections.abc import Callable
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import linalg
from structinit_jax.grassmann import descent
from structinit_jax.grassmann import distances

__all__ = ['coordinate_subsets', 'orthogonalize']

# Multiplications in one Gram matrix; a descent takes ten thousand of those.
_MOST_WORK = 2**26
_CANDIDATES = 2**14
_NEWTON_STEPS = 30


def coordinate_subsets(dim: int, rank: int, num: int) -> np.ndarray:
  r"""Chooses sets of axes, few of them shared by any two.

  Coordinate subspaces have $\det S^T T = 0$ unless they are equal, and
  $d_c^2 = k - |I \cap J|$. The sets are a greedy constant-weight code: each
  candidate that shares at most t axes with all before it, for the smallest t
  that yields enough. Candidates are all sets where they are few, else a fixed
  sample of them.

  Args:
    dim: dimension m of the space.
    rank: dimension k of the subspaces.
    num: how many, at most $\binom{m}{k}$.

  Returns:
    Distinct, ascending rows of integers in 0..m-1, `(num, rank)`.

  Raises:
    ValueError: if there are not that many sets.

  Example:
    >>> from structinit_jax.grassmann import pluecker
    >>> pluecker.coordinate_subsets(4, 2, 2).tolist()
    [[0, 1], [2, 3]]

  Source: Conway and Sloane, Lexicographic codes, IEEE Trans. Inform. Theory 32
    (1986).
  """
  most = math.comb(dim, rank)
  if num > most:
    raise ValueError(
        f'num={num} subspaces of rank={rank} in R^{dim}: at most '
        f'binom({dim}, {rank}) = {most} can have determinants 0; the nearest '
        f'num that works is {most}')
  size = max(_CANDIDATES, 4 * num)
  if most <= size:
    candidates = np.array(list(itertools.combinations(range(dim), rank)))
  else:
    order = np.random.default_rng(0).random((size, dim), np.float32)
    axes = np.sort(np.argpartition(order, rank - 1, axis=1)[:, :rank], axis=1)
    candidates = np.unique(axes, axis=0)
  member = np.zeros((dim, len(candidates)), np.uint16)
  member[candidates.T, np.arange(len(candidates))] = 1

  for shared in range(max(0, 2 * rank - dim), rank - 1):
    # No shared + 1 axes lie in two sets.
    if num * math.comb(rank, shared + 1) > math.comb(dim, shared + 1):
      continue
    chosen = []
    free = np.ones(len(candidates), bool)
    while len(chosen) < num and free.any():
      chosen.append(int(np.argmax(free)))
      overlap = member[candidates[chosen[-1]]].sum(0, dtype=np.uint16)
      free &= overlap <= shared
    if len(chosen) == num:
      return candidates[chosen]
  return candidates[np.arange(num) * len(candidates) // num]


def _determinant4(x: jax.Array) -> jax.Array:
  i, j = np.triu_indices(4, 1)

  def minors(a: jax.Array, b: jax.Array) -> jax.Array:
    return a[:, i] * b[:, j] - a[:, j] * b[:, i]

  upper = minors(x[:, 0], x[:, 1])
  lower = minors(x[:, 2], x[:, 3])[:, ::-1]
  signs = jnp.asarray([[1, -1, 1, 1, -1, 1]], x.dtype)
  return jnp.sum(signs * upper * lower, axis=-1)


def _cofactors(x: jax.Array) -> jax.Array:
  """Returns the gradients of determinants `(pairs, k, k)`, k at least 2."""
  size = x.shape[-1]
  if size == 2:
    return x[:, ::-1, ::-1] * jnp.asarray([[[1, -1], [-1, 1]]], x.dtype)
  if size == 3:
    return jnp.cross(jnp.roll(x, -1, axis=-2), jnp.roll(x, -2, axis=-2))
  if size == 4:
    return jax.grad(lambda y: jnp.sum(_determinant4(y)))(x)
  # Up to a sign, which does not move the zeros; no inverse, so any rank.
  u, s, vt = jnp.linalg.svd(x)
  others = jnp.where(jnp.eye(size, dtype=bool)[None], 1, s[:, None])
  return linalg.matmul(u * jnp.prod(others, axis=-1)[:, None], vt)


class _Linearised:
  """The determinants of all pairs near some frames, to first order.

  Each is divided by the norm of its gradient, so that all count alike and the
  equations stay well conditioned in any dimension; by no less than the typical
  norm, for the gradient vanishes where two subspaces share more than one
  orthogonal direction.
  """

  def __init__(self, frames: jax.Array):
    num = frames.shape[0]
    self.frames = frames
    self.stacked = descent.stack(frames)
    self.gram = self.blocks(linalg.matmul(self.stacked.T, self.stacked))
    i, j = np.triu_indices(num, 1)
    overlaps = self.gram[i, j]
    cofactors = _cofactors(overlaps)
    determinants = jnp.sum(overlaps[:, 0] * cofactors[:, 0], axis=-1)
    squares = jnp.sum(cofactors**2, axis=(-2, -1))
    norms = jnp.sqrt(
        squares + jnp.mean(squares) + jnp.finfo(frames.dtype).tiny)
    values = jnp.zeros((num, num), frames.dtype).at[i, j].set(
        determinants / norms)
    pull = jnp.zeros_like(self.gram).at[i, j].set(
        cofactors / norms[:, None, None])
    self.largest = jnp.max(jnp.abs(determinants))
    self.values = values + values.T
    self.pull = pull + pull.transpose(1, 0, 3, 2)

  def blocks(self, matrix: jax.Array) -> jax.Array:
    num, _, rank = self.frames.shape
    return matrix.reshape(num, rank, num, rank).transpose(0, 2, 1, 3)

  def tangent(self, pull: jax.Array) -> jax.Array:
    """Returns the tangent with n-th frame `sum_j S_j pull[n, j]^T`."""
    num, dim, rank = self.frames.shape
    matrix = pull.transpose(0, 2, 1, 3).reshape(num * rank, num * rank)
    moved = linalg.matmul(self.stacked, matrix.T)
    moved = moved.reshape(dim, num, rank).transpose(1, 0, 2)
    return moved - linalg.matmul(
        self.frames, linalg.matmul(self.frames.mT, moved))

  def push(self, tangent: jax.Array) -> jax.Array:
    """Returns how fast the values change, a symmetric `(num, num)`."""
    moved = self.blocks(linalg.matmul(descent.stack(tangent).T, self.stacked))
    half = jnp.sum(self.pull * moved, axis=(-2, -1))
    return half + half.T

  def shortest(self, change: jax.Array, iterations: int) -> jax.Array:
    """Returns the shortest tangent that changes the values by `change`."""
    damping = 0.1 * jnp.sqrt(jnp.mean(self.values**2))

    def transposed(weights: jax.Array) -> jax.Array:
      return self.tangent(self.pull * weights[..., None, None])

    weights, _ = jax.scipy.sparse.linalg.cg(
        lambda x: self.push(transposed(x)) + damping * x, change, tol=1e-4,
        maxiter=iterations)
    return transposed(weights)


def _move(frames: jax.Array, step: jax.Array) -> jax.Array:
  # Far from a solution Newton's steps can be long; a bounded one is retracted
  # by Newton-Schulz.
  longest = jnp.max(jnp.linalg.norm(step, axis=(1, 2)))
  step = step * jnp.minimum(1, 0.5 / (longest + jnp.finfo(step.dtype).tiny))
  return linalg.newton_schulz(frames + step, 3)


def _descend(
    frames: jax.Array, steps: int, first: float = 10.0, last: float = 1e6,
) -> jax.Array:
  """Maximises the smallest chordal distance where determinants vanish.

  The annealed log-sum-exp of the search for a packing, with the part of the
  gradient removed that would change a determinant, and Newton's correction
  added for what the determinants still are.
  """
  num = frames.shape[0]
  dtype = frames.dtype
  pairs = jnp.triu(jnp.ones((num, num), bool), 1)
  decay1, decay2 = 0.9, 0.99

  def step(carry: Any, t: jax.Array) -> tuple[Any, None]:
    x, mean, square = carry
    sharpness = first * (last / first) ** (t / steps)
    at = _Linearised(x)
    similarity = sharpness * jnp.sum(at.gram**2, axis=(-2, -1))
    weights = jax.nn.softmax(
        jnp.where(pairs, similarity, -jnp.inf), axis=(0, 1))
    weights = 2 * (weights + weights.T)
    gradient = at.tangent(weights[..., None, None] * at.gram)
    normal, correction = jax.vmap(lambda change: at.shortest(change, 8))(
        jnp.stack([at.push(gradient), at.values]))
    gradient = gradient - normal
    mean = decay1 * mean + (1 - decay1) * gradient
    square = decay2 * square + (1 - decay2) * jnp.sum(
        gradient**2, axis=(1, 2), keepdims=True)
    direction = mean / (1 - decay1 ** (t + 1)) * jax.lax.rsqrt(
        square / (1 - decay2 ** (t + 1)) + jnp.finfo(dtype).tiny)
    x = _move(x, -(5 / sharpness) * direction - correction)
    return (x, mean, square), None

  start = (frames, jnp.zeros_like(frames), jnp.zeros((num, 1, 1), dtype))
  times = jnp.arange(steps, dtype=dtype)
  (frames, _, _), _ = jax.lax.scan(step, start, times)
  return frames


def _solve(frames: jax.Array) -> jax.Array:
  """Newton's method for determinants 0, by the shortest steps."""

  def unfinished(state: Any) -> jax.Array:
    count, _, largest = state
    return (count < _NEWTON_STEPS) & (largest > jnp.finfo(largest.dtype).eps)

  def newton(state: Any) -> Any:
    count, x, _ = state
    at = _Linearised(x)
    return count + 1, _move(x, -at.shortest(at.values, 50)), at.largest

  infinite = jnp.asarray(jnp.inf, frames.dtype)
  return jax.lax.while_loop(
      unfinished, newton, (jnp.int32(0), frames, infinite))[1]


def _largest_determinant(frames: jax.Array) -> jax.Array:
  num = frames.shape[0]

  def row(n: jax.Array) -> jax.Array:
    overlaps = linalg.matmul(frames[n].mT[None], frames)
    values = jnp.abs(jnp.linalg.det(overlaps))
    return jnp.max(jnp.where(jnp.arange(num) == n, 0, values))

  return jnp.max(jax.lax.map(row, jnp.arange(num)))


def _worthwhile(dim: int, rank: int, num: int) -> bool:
  """Whether determinants 0 can be hoped for other than on coordinates."""
  # A pair is one equation, a subspace k (m - k) unknowns. Solutions other than
  # coordinates exist for somewhat more equations than unknowns, so up to twice
  # as many are tried; where the true limit lies is not known.
  return ((num - 1) <= 4 * rank * (dim - rank)
          and (num * rank) ** 2 * dim <= _MOST_WORK)


@functools.partial(jax.jit, static_argnames='steps')
def orthogonalize(
    frames: jax.Array, *, steps: int = 400) -> tuple[jax.Array, jax.Array]:
  r"""Moves a packing to one whose determinants $\det S_i^T S_j$ all vanish.

  Then every Fubini-Study distance is its maximum $\pi/2$: the Pluecker vectors
  are orthogonal, which $N \le \binom{m}{k}$ of them can be. Among such
  packings it seeks a large chordal distance. Descent and Newton's method start
  from `frames`; the best of these three is returned, by chordal distance among
  those whose determinants vanish to rounding:

  * 0: `frames` as they are;
  * 1: frames moved from there;
  * 2: coordinate subspaces, where there are too many equations for Newton.

  Pure; may be jitted and vmapped.

  Args:
    frames: orthonormal frames `(N, m, k)`, float32 or float64.
    steps: of the descent.

  Returns:
    Orthonormal frames of the same shape with $|\det S_i^T S_j|$ at most eight
    units of rounding, and which of the three they are, an int32 scalar.

  Raises:
    ValueError: if `frames` are not `(N, m, k)` with k <= m, or N is larger
      than $\binom{m}{k}$.

  Example:
    >>> import jax, structinit_jax as si
    >>> from structinit_jax.grassmann import pluecker
    >>> start = si.grassmann.pack(jax.random.key(0), dim=4, rank=2, num=6)
    >>> frames, how = pluecker.orthogonalize(start.frames)
    >>> round(float(si.grassmann.min_distance(frames, 'fubini_study')), 4)
    1.5708
    >>> round(float(si.grassmann.min_distance(frames)) ** 2, 4)
    1.2

  Source: Yap, Roberts, Prabhu, Grassmannian Packings in Neural Networks,
    eq. (2); Absil, Mahony, Sepulchre, Optimization Algorithms on Matrix
    Manifolds (Princeton, 2008), chapter 6.
  """
  if frames.ndim != 3 or not 1 <= frames.shape[2] <= frames.shape[1]:
    raise ValueError(
        f'frames of shape {frames.shape} must be (num, dim, rank), '
        '1 <= rank <= dim')
  num, dim, rank = frames.shape
  subsets = coordinate_subsets(dim, rank, num)
  axes = jnp.arange(dim)[None, :, None] == subsets[:, None, :]
  coordinate = axes.astype(frames.dtype)

  # Beyond what a descent can do, what comes as it should be still stays.
  moves: list[Callable[[jax.Array], jax.Array]] = [lambda x: x]
  codes = [0]
  if num * rank > dim and _worthwhile(dim, rank, num):
    moves.append(lambda x: _solve(_descend(x, steps)))
    codes.append(1)
  found = jnp.stack([move(frames) for move in moves] + [coordinate])
  eps = jnp.finfo(frames.dtype).eps
  zero = jax.lax.map(_largest_determinant, found) <= 8 * eps
  values = jax.lax.map(distances.min_distance, found)
  # Equal to rounding is no reason to leave where one is.
  values = values * jnp.asarray([1.0] * len(codes) + [1 - 8 * eps], eps.dtype)
  best = jnp.argmax(jnp.where(zero, values, -1))
  return found[best], jnp.asarray([*codes, 2], jnp.int32)[best]
