"""Kernels whose subspaces form a tight fusion frame, without any search."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax.grassmann import descent
from structinit_jax.grassmann import initializers

__all__ = ['tight_frame', 'tight_frame_exists']


def tight_frame_exists(dim: int, rank: int, num: int) -> bool:
  r"""Returns whether projections can sum to a multiple of the identity.

  With $m$ = dim, $k$ = rank, $N$ = num: whether N subspaces of dimension k
  have $\sum_n P_n = (N k / m) I$. If k divides m: iff $N k \ge m$. If not and
  $2k < m$: yes for $N \ge \lceil m/k \rceil + 2$, no for
  $N \le \lceil m/k \rceil$, and in between iff the complementary size exists.
  Complements in space, $(m, k, N) \to (m, m-k, N)$, and Naimark's, $(m, k, N)
  \to (N k - m, k, N)$, exist together with what they complement.

  Args:
    dim: dimension m of the space.
    rank: dimension k of the subspaces, 1 <= k <= m.
    num: number N of subspaces, at least 1.

  Returns:
    A bool.

  Raises:
    ValueError: for sizes that make no subspaces.

  Example:
    >>> from structinit_jax.grassmann import tight_frame_exists
    >>> [tight_frame_exists(5, 2, num) for num in (3, 4, 5)]
    [False, True, True]

  Source: Casazza, Fickus, Mixon, Wang, Zhou, Constructing tight fusion frames,
    Appl. Comput. Harmon. Anal. 30 (2011).
  """
  dim, rank, num = (base.integer(name, value) for name, value in (
      ('dim', dim), ('rank', rank), ('num', num)))
  if not 1 <= rank <= dim or num < 1:
    raise ValueError(
        f'num={num} subspaces of rank={rank} in R^{dim}: num must be at least '
        '1 and rank lie in 1..dim')
  if rank == dim:
    return True
  if 2 * rank > dim:
    return tight_frame_exists(dim, dim - rank, num)
  if dim % rank == 0:
    return num * rank >= dim
  undecided = math.ceil(dim / rank) + 1
  if num != undecided:
    return num > undecided
  return tight_frame_exists(num * rank - dim, rank, num)


def _works(dim: int, rank: int, num: int) -> bool:
  return num * rank <= dim or tight_frame_exists(dim, rank, num)


def _tighten(frames: jax.Array, iterations: int) -> jax.Array:
  r"""Moves subspaces to a tight fusion frame nearby.

  Newton's method for $R = \frac{m}{N k} \sum_n P_n - I = 0$, in the tangent
  directions $(I - P_n) X S_n$ with X symmetric, the shortest ones for what
  they do to R. X solves the linearised equation by conjugate gradients, as
  products with frames; damped by |R|, it descends from far away, where there
  are no local minima to be trapped in, and converges quadratically nearby.
  """
  num, dim, rank = frames.shape
  ratio = dim / (num * rank)
  identity = jnp.eye(dim, dtype=frames.dtype)

  def tangent(x: jax.Array, symmetric: jax.Array) -> jax.Array:
    moved = linalg.matmul(symmetric, x)
    return moved - linalg.matmul(x, linalg.matmul(x.mT, moved))

  def unfinished(state: Any) -> jax.Array:
    step, _, _, error = state
    return (step < iterations) & (error > 4 * jnp.finfo(error.dtype).eps)

  def newton(state: Any) -> Any:
    step, _, x, _ = state
    stacked = descent.stack(x)
    residual = ratio * linalg.matmul(stacked, stacked.T) - identity
    damping = jnp.linalg.norm(residual) / math.sqrt(dim)

    def linearised(symmetric: jax.Array) -> jax.Array:
      moved = descent.stack(tangent(x, symmetric))
      half = ratio * linalg.matmul(moved, stacked.T)
      return half + half.T + damping * symmetric

    symmetric, _ = jax.scipy.sparse.linalg.cg(
        linearised, -residual, tol=1e-3, maxiter=100)
    moved, _ = jnp.linalg.qr(x + tangent(x, symmetric))
    return step + 1, x, moved, jnp.max(jnp.abs(residual))

  infinite = jnp.asarray(jnp.inf, frames.dtype)
  state = (jnp.int32(0), frames, frames, infinite)
  return jax.lax.while_loop(unfinished, newton, state)[1]


def tight_frame(
    *, layout: str = 'taps', scale: str | float = 'none', iterations: int = 50,
) -> base.LeafInit:
  r"""Initializer: a convolution kernel whose subspaces form a tight frame.

  The kernel is read as N orthonormal frames $S_n$ (m, k), as by `packing`. The
  stack W (N k, m) of all $S_n^T$ satisfies $W^T W = (N k / m) I$: as many
  vectors as there are, no direction of $R^m$ is preferred. If $N k \le m$ they
  are orthonormal instead, $W W^T = I$. A packing on the simplex bound is such
  a frame; this one needs no search, and every key gives an unrelated one.

  Random subspaces move to a tight frame by Newton's method, some five to ten
  steps, each of a few products with W.

  Args:
    layout: 'taps' or 'filters', as of `packing`.
    scale: 'none' (basis vectors of norm 1), 'kaiming' or a positive float, as
      of `packing`.
    iterations: most steps of Newton's method; it stops at the rounding of the
      dtype.

  Returns:
    An Initializer. Its `aux(key, shape)['tight_frame']` holds the dimensions
    and the frame constant N k / m.

  Raises:
    ValueError: for an unknown option, or (when called) for a shape that the
      layout cannot serve or for which there is no tight frame.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> kernel = si.grassmann.tight_frame()(jax.random.key(0), (3, 3, 2, 6))
    >>> stacked = kernel.reshape(18, 6)
    >>> bool(jnp.allclose(stacked.T @ stacked, 3 * jnp.eye(6), atol=1e-5))
    True

  Source: Casazza, Fickus, Mixon, Wang, Zhou, Constructing tight fusion frames
    (2011); Benedetto and Fickus, Finite normalized tight frames, Adv. Comput.
    Math. 18 (2003) for the absence of local minima.
  """
  initializers._check_layout(layout)
  scale = initializers._check_scale(scale)
  iterations = base.integer('iterations', iterations, 1, 2**30)

  def sizes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    dim, rank, num = initializers._sizes(shape, layout)
    if math.prod(shape) and not _works(dim, rank, num):
      near = next(n for step in itertools.count(1) for n in (num + step,
                  num - step) if n > 0 and _works(dim, rank, n))
      count = {'taps': 'kernel height * width', 'filters': 'c_out'}[layout]
      raise ValueError(
          f'kernel of shape {shape}: layout={layout!r} needs a tight frame of '
          f'{count} = {num} subspaces of rank {rank} in R^{dim}, and there is '
          f'none; the nearest number that works is {near}')
    return dim, rank, num

  def sample(key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    dim, rank, num = sizes(shape)
    if not math.prod(shape):
      return jnp.zeros(shape, dtype)
    frames_key, rotation_key = jax.random.split(key)
    if num * rank <= dim:
      columns = linalg.haar(rotation_key, (dim, num * rank), dtype)
    else:
      frames = linalg.haar(frames_key, (num, dim, rank), dtype)
      columns = descent.stack(_tighten(frames, iterations))
      columns = linalg.haar_rotate(rotation_key, columns)
    return initializers._kernel(columns, shape, layout, scale)

  def structure(key: base.Key, shape: tuple[int, ...]) -> dict[str, Any]:
    del key  # every key makes another frame of the same constant
    dim, rank, num = sizes(shape)
    if not math.prod(shape):
      return {}
    return {'tight_frame': {'dim': dim, 'rank': rank, 'num': num,
                            'constant': num * rank / dim}}

  label = f'grassmann.tight_frame(layout={layout!r}, scale={scale!r})'
  return base.LeafInit(label, sample, structure)
