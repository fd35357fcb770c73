"""Descends the largest pairwise similarity of subspaces, from many starts.

Every array is padded to a few standard sizes, and what the true sizes are is
known at run time only, so that a hundred sizes share a handful of programs.
Padding is zero, and stays zero: rows and columns of a frame that are zero have
no gradient and are kept by Newton-Schulz.
"""

from collections.abc import Callable
import functools
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax.grassmann import equidistant
from structinit_jax.grassmann import orbits

__all__ = ['Found', 'check_size', 'method', 'options', 'search', 'stack']

_MOST_WORK = 2**32  # multiplications a step: minutes a search
_MOST_ENTRIES = 2**26  # of all frames: 256 MiB, and a search holds six such

_CYCLE = 3  # batches: one of random starts, the others of orbits
_TURN = 1e3  # sharpness at which the better starts of a batch are known
_BUDGET = 6 * 2**30  # multiplications of the random starts, about a second
_ENTRIES_PER_BATCH = 2**15
_ENTRIES_AT_ONCE = 2**24
_MOST_IN_ORBITS = 512  # subspaces
_MOST_IN_NEWTON = 2**12  # basis vectors
_LOWEST = -2.0  # no similarity is lower


class Found(NamedTuple):
  """What a search found.

  Attributes:
    frames: orthonormal bases, `(num, dim, rank)`.
    similarity: the largest of any two.
    pair: which two.
    origin: which of `methods` found it, an integer array.
    methods: the ways there were (static).
  """

  frames: jax.Array
  similarity: jax.Array
  pair: jax.Array
  origin: jax.Array
  methods: tuple[str, ...]


def method(origin: Any, methods: tuple[str, ...]) -> str:
  """Returns `methods[origin]`; the first, where origin is not one number."""
  if isinstance(origin, jax.core.Tracer | jax.ShapeDtypeStruct):
    return methods[0]
  origins = set(np.ravel(origin).tolist())
  return methods[origins.pop() if len(origins) == 1 else 0]


class _Sizes(NamedTuple):
  """The true sizes, integers at run time."""

  dim: Any
  rank: Any
  num: Any


def _chordal(gram: jax.Array, rank: Any, sharpness: Any) -> jax.Array:
  del rank, sharpness  # the squared chordal distance is k minus this, exactly
  return jnp.sum(gram**2, axis=(0, 2))


def _fubini_study(gram: jax.Array, rank: Any, sharpness: Any) -> jax.Array:
  # A vanishing determinant is easy to reach and has no gradient, so chordal
  # similarity joins in with a weight that fades as the search sharpens.
  size = gram.shape[0]
  beyond = jnp.arange(size, dtype=jnp.int32) >= rank
  padding = jnp.diag(beyond.astype(gram.dtype))
  determinant = _determinant(gram.transpose(1, 0, 2) + padding[None])
  chordal = _chordal(gram, rank, sharpness) / rank.astype(gram.dtype)
  return determinant**2 + chordal / jnp.sqrt(sharpness)


def _spherical(gram: jax.Array, rank: Any, sharpness: Any) -> jax.Array:
  del rank, sharpness
  return gram[0, :, 0]


def _determinant(x: jax.Array) -> jax.Array:
  size = x.shape[-1]
  if size == 1:
    return x[..., 0, 0]
  if size == 2:
    return x[..., 0, 0] * x[..., 1, 1] - x[..., 0, 1] * x[..., 1, 0]
  if size == 3:
    return jnp.sum(
        x[..., 0, :] * jnp.cross(x[..., 1, :], x[..., 2, :]), axis=-1)
  return jnp.linalg.det(x)


# From the Gram blocks of one frame with all, (k, N, k).
_SIMILARITIES: dict[str, Callable[..., jax.Array]] = {
    'chordal': _chordal,
    'fubini_study': _fubini_study,
    'spherical': _spherical,
}


def _expand(x: jax.Array, action: orbits.Actions | None) -> jax.Array:
  """Returns all subspaces, of the bases of their orbits."""
  if action is None:
    return x
  count, dim, rank = x.shape
  partners = x.reshape(count, dim // 2, 2, rank)[:, :, ::-1]
  # A product with 0 and 1 is faster than to gather.
  which = jax.nn.one_hot(action.base, count, dtype=x.dtype)
  both = linalg.matmul(which, jnp.concatenate(
      [x.reshape(count, -1), partners.reshape(count, -1)], axis=1))
  straight, across = both.reshape(-1, 2, dim, rank).transpose(1, 0, 2, 3)
  return (action.straight[..., None] * straight
          + action.across[..., None] * across)


def _firsts(x: jax.Array, action: orbits.Actions | None) -> jax.Array:
  """Where each base is among all subspaces: groups begin with the identity."""
  rows = jnp.arange(x.shape[0], dtype=jnp.int32)
  if action is None:
    return rows
  return jnp.argmax(
      action.base[None] == rows[:, None], axis=1).astype(jnp.int32)


def _by_rows(fn: Callable[..., Any], rows: Any, entries: int) -> Any:
  """Maps over rows, as many at once as memory allows at `entries` each."""
  at_once = max(1, _ENTRIES_AT_ONCE // entries)
  if at_once >= rows[0].shape[0]:
    return jax.vmap(fn)(*rows)
  return jax.lax.map(lambda row: fn(*row), rows, batch_size=at_once)


def stack(frames: jax.Array) -> jax.Array:
  """Returns the basis vectors of frames (num, dim, rank), all as columns."""
  num, dim, rank = frames.shape
  return frames.transpose(1, 0, 2).reshape(dim, num * rank)


def _forces(
    x: jax.Array, sizes: _Sizes, action: orbits.Actions | None,
    firsts: jax.Array, metric: str, sharpness: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns the gradient of the smooth maximum for each base, and the maximum.

  The subspaces that a base is compared with are held: by the symmetry of the
  orbits (or of the pairs, if there are none) that is its gradient up to a
  factor, and rows of pairs can be taken one after another.
  """
  everything = _expand(x, action)
  num, _, rank = everything.shape
  stacked = stack(everything)
  index = jnp.arange(num, dtype=jnp.int32)
  bases = sizes.num if action is None else action.bases

  def row(
      n: jax.Array, frame: jax.Array, first: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    gram = linalg.matmul(frame.T, stacked).reshape(rank, num, rank)
    values, pullback = jax.vjp(
        lambda g: _SIMILARITIES[metric](g, sizes.rank, sharpness), gram)
    other = (index < sizes.num) & (index != first) & (n < bases)
    values = jnp.where(other, values, -jnp.inf)
    top = jnp.max(values)
    weights = jnp.exp(sharpness * (values - jnp.maximum(top, _LOWEST)))
    pull = pullback(weights)[0].reshape(rank, num * rank)
    return linalg.matmul(stacked, pull.T), top, jnp.sum(weights)

  rows = jnp.arange(x.shape[0], dtype=jnp.int32), x, firsts
  forces, tops, masses = _by_rows(row, rows, num * rank**2)
  top = jnp.max(tops)
  shares = jnp.exp(sharpness * (tops - top))
  mass = jnp.sum(shares * masses)
  forces = forces * (shares / mass)[:, None, None]
  return forces, top + jnp.log(mass) / sharpness


def _closest(
    x: jax.Array, sizes: _Sizes, metric: str) -> tuple[jax.Array, jax.Array]:
  """Returns the largest similarity of any two subspaces, and which they are."""
  num, _, rank = x.shape
  stacked = stack(x)
  index = jnp.arange(num, dtype=jnp.int32)

  def row(n: jax.Array, frame: jax.Array) -> tuple[jax.Array, jax.Array]:
    gram = linalg.matmul(frame.T, stacked).reshape(rank, num, rank)
    values = _SIMILARITIES[metric](gram, sizes.rank, jnp.inf)
    other = (index < sizes.num) & (index != n) & (n < sizes.num)
    values = jnp.where(other, values, -jnp.inf)
    return jnp.max(values), jnp.argmax(values).astype(jnp.int32)

  tops, partners = _by_rows(row, (index, x), num * rank**2)
  first = jnp.argmax(tops).astype(jnp.int32)
  return tops[first], jnp.stack([first, partners[first]])


def _descend(
    x: jax.Array, sizes: _Sizes, action: orbits.Actions | None, metric: str,
    steps: Any, first: Any, last: Any,
) -> tuple[jax.Array, jax.Array]:
  """Minimises the largest pairwise similarity on the Grassmannian.

  The maximum is smoothed to a log-sum-exp whose sharpness grows from `first`
  to `last` while the step shrinks as its inverse. Adam's second moment is one
  number a subspace, which keeps the method equivariant under rotations; the
  step is tangent, so Newton-Schulz is the retraction.

  Returns:
    Bases, and their last smooth maximum.
  """
  dtype = x.dtype
  first, last, duration = (jnp.asarray(v, dtype) for v in (first, last, steps))
  decay1, decay2 = 0.9, 0.99
  firsts = _firsts(x, action)
  moving = sizes.num if action is None else action.moving
  free = (jnp.arange(x.shape[0], dtype=jnp.int32) < moving)[:, None, None]

  def step(t: jax.Array, carry: Any) -> Any:
    x, mean, square, _ = carry
    time = t.astype(dtype)
    sharpness = first * (last / first) ** (time / duration)
    force, value = _forces(x, sizes, action, firsts, metric, sharpness)
    tangent = force - linalg.matmul(x, linalg.matmul(x.mT, force))
    tangent = jnp.where(free, tangent, 0)
    mean = decay1 * mean + (1 - decay1) * tangent
    square = decay2 * square + (1 - decay2) * jnp.sum(
        tangent**2, axis=(1, 2), keepdims=True)
    direction = mean / (1 - decay1 ** (time + 1)) * jax.lax.rsqrt(
        square / (1 - decay2 ** (time + 1)) + jnp.finfo(dtype).tiny)
    x = linalg.newton_schulz(x - (5 / sharpness) * direction, 2)
    return x, mean, square, value

  start = (x, jnp.zeros_like(x), jnp.zeros((x.shape[0], 1, 1), dtype),
           jnp.zeros((), dtype))
  x, _, _, value = jax.lax.fori_loop(0, steps, step, start)
  return x, value


def _fixed(action: orbits.Actions, x: jax.Array, sizes: _Sizes) -> jax.Array:
  """Puts coordinate subspaces where the group fixes a base."""
  row, axis, column = (
      jnp.expand_dims(jnp.arange(n, dtype=jnp.int32), tuple({0, 1, 2} - {i}))
      for i, n in enumerate(x.shape))
  fixed = ((axis == (row - action.moving) * sizes.rank + column)
           & (column < sizes.rank))
  return jnp.where(row < action.moving, x, fixed.astype(x.dtype))


@functools.partial(
    jax.jit, static_argnames=('shape', 'batch', 'rows', 'metric'))
def _search(
    key: base.Key, sizes: _Sizes, target: jax.Array, simplex: jax.Array,
    batches: jax.Array, steps: jax.Array, actions: orbits.Actions | None, *,
    shape: tuple[int, int, int], batch: int, rows: int, metric: str,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Tries batches of starts until one meets the target.

  A batch is of random starts or of orbits, in turns. Its best quarter at a
  moderate sharpness goes on, as packings of no symmetry. The best of all is
  polished, but on the simplex bound, where Newton's method does it better.
  """
  num, dim, rank = shape
  early = jnp.maximum(1, 7 * steps // 10)
  late = jnp.maximum(1, steps - early)
  short = jnp.maximum(1, steps // 4)  # enough for the few bases of orbits
  kept = max(1, batch // 4)
  # How far to soften the best packing before it is sharpened again: 1e3 to 1e5.
  softened = 10**(3 + 2 * (jnp.arange(kept, dtype=jnp.float32) + 0.5) / kept)

  def random(
      frames: jax.Array, turn: jax.Array, scores: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    del turn
    x, values = jax.vmap(lambda x: _descend(
        x, sizes, None, metric, early, 10., _TURN))(
            frames.reshape(batch, *shape))
    best = jax.lax.top_k(-values, kept)[1]
    return x[best], jnp.zeros(kept, jnp.int32), scores

  def symmetric(
      frames: jax.Array, turn: jax.Array, scores: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    assert actions is not None
    count = batch * num // rows
    # Every other time, the best actions so far get four starts each.
    order = jnp.argsort(scores).astype(jnp.int32)
    index = jnp.arange(count, dtype=jnp.int32)
    again = turn % _CYCLE == 2
    picks = jnp.where(again, order[index // 4 % len(order)],
                      (turn // _CYCLE * count + index) % len(order))
    action = jax.tree.map(lambda a: a[picks], actions)

    def descend(
        x: jax.Array, action: orbits.Actions) -> tuple[jax.Array, jax.Array]:
      x = _fixed(action, x, sizes)
      return _descend(x, sizes, action, metric, short, 10., _TURN)

    x, values = jax.vmap(descend)(
        frames[:count * rows].reshape(count, rows, dim, rank), action)
    best = jax.lax.top_k(-values, kept)[1]
    action = jax.tree.map(lambda a: a[best], action)
    return (jax.vmap(_expand)(x[best], action), action.name,
            scores.at[picks].min(values))

  kinds = [random] if actions is None else [random, symmetric]

  def attempt(state: Any) -> Any:
    turn, frames, similarity, origin, scores = state
    last = turn == batches  # when the best is polished
    x = _frames(jax.random.fold_in(key, turn), batch * num, dim, rank, sizes)
    kind = jnp.minimum(turn % _CYCLE, len(kinds) - 1)
    x, origins, scores = jax.lax.switch(
        jnp.where(last, len(kinds), kind),
        [*kinds, lambda *_: (jnp.broadcast_to(frames, (kept, *shape)),
                             jnp.broadcast_to(origin, kept), scores)],
        x, turn, scores)
    x = jax.vmap(lambda x, first: _descend(
        x, sizes, None, metric, jnp.where(last, 2 * steps, late), first,
        jnp.where(last, 1e7, 1e6))[0])(x, jnp.where(last, softened, _TURN))
    x = linalg.newton_schulz(x, 2)
    values = jax.vmap(lambda x: _closest(x, sizes, metric)[0])(x)
    best = jnp.argmin(values)
    better = values[best] < similarity
    similarity = jnp.where(better, values[best], similarity)
    # The turn for polishing is the last, the one after it ends the search.
    turn = jnp.where((similarity <= target) & ~last,
                     jnp.where(simplex, batches + 1, batches), turn + 1)
    return (turn, jnp.where(better, x[best], frames), similarity,
            jnp.where(better, origins[best], origin), scores)

  scores = jnp.full(1 if actions is None else len(actions.base), jnp.inf)
  state = (jnp.int32(0), jnp.zeros(shape, jnp.float32), jnp.float32(jnp.inf),
           jnp.int32(0), scores.astype(jnp.float32))
  state = jax.lax.while_loop(
      lambda state: state[0] <= batches, attempt, state)
  _, frames, similarity, origin, _ = state
  # The frames beyond the last were drawn too, and never moved.
  index = jnp.arange(num, dtype=jnp.int32)[:, None, None]
  return jnp.where(index < sizes.num, frames, 0), similarity, origin


@functools.partial(jax.jit, static_argnames=('met', 'metric', 'dtype'))
def _finish(
    frames: jax.Array, similarity: jax.Array, target: jax.Array, sizes: _Sizes,
    steps: jax.Array, *, met: bool, metric: str, dtype: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Brings frames to the rounding of `dtype`; measures them.

  `met` says that the target is the simplex bound, and may have been met.
  """
  x = frames.astype(dtype)
  if dtype != jnp.float32:
    x = linalg.newton_schulz(x, 3)

  def polish(x: jax.Array) -> jax.Array:
    if dtype == jnp.float32:
      return x
    better, _ = _descend(x, sizes, None, metric, steps, 1e5, 1e11)
    return linalg.newton_schulz(better, 2)

  if met:
    y = jax.lax.cond(
        similarity <= target, lambda x: equidistant.complete(x, *sizes), polish,
        x)
  else:
    y = polish(x)
  before, after = (_closest(z, sizes, metric)[0] for z in (x, y))
  allowed = jnp.maximum(before, target.astype(dtype)) if met else before
  x = jnp.where(after <= allowed, y, x)
  return x, *_closest(x, sizes, metric)


def _frames(
    key: base.Key, count: int, dim: int, rank: int, sizes: _Sizes) -> jax.Array:
  """Draws bases of uniform subspaces."""
  axis, column = (jnp.arange(n, dtype=jnp.int32) for n in (dim, rank))
  inside = ((axis[None, :, None] < sizes.dim)
            & (column[None, None] < sizes.rank))
  x = jax.random.normal(key, (count, dim, rank), jnp.float32)
  return jnp.where(inside, jnp.linalg.qr(jnp.where(inside, x, 0))[0], 0)


def _padded(size: int) -> int:
  """Returns the next of 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ..."""
  power = 1 << max(0, size - 1).bit_length()
  return 3 * power // 4 if power >= 4 and size <= 3 * power // 4 else power


def _work(dim: int, rank: int, num: int) -> int:
  """Returns how many multiplications a step takes."""
  return 2 * (num * rank) ** 2 * dim


def options(
    restarts: int | None, steps: int | None, seed: int = 0
) -> tuple[int | None, int | None, int]:
  """Checks what a search is asked for; returns it as Python integers."""
  if restarts is not None:
    restarts = base.integer('restarts', restarts, 1, 2**30)
  if steps is not None:
    steps = base.integer('steps', steps, 1, 2**30)
  return restarts, steps, base.integer('seed', seed, -2**63, 2**63 - 1)


def check_size(
    where: str, dim: int, rank: int, num: int, *, closed: int) -> None:
  """Raises ValueError, headed `where`, if there are too many subspaces.

  Up to `closed` of them are known in closed form; more need a search.
  """
  fit = _MOST_ENTRIES // (dim * rank)
  small = max(1, min(rank, dim - rank))
  searched = math.isqrt(_MOST_WORK // (2 * dim)) // small
  most = min(fit, max(closed, searched))
  if num <= most:
    return
  if num > fit:
    reason = f'the frames have more than {_MOST_ENTRIES} entries'
  else:
    reason = (f'every step compares all pairs, {_work(dim, small, num)} '
              f'multiplications, more than {_MOST_WORK}')
  nearest = (f'the largest num that works is {most}' if most > 1 else
             'no num works; take a smaller dim')
  raise ValueError(f'{where}: {reason}; {nearest}')


def search(
    key: base.Key, *, dim: int, rank: int, num: int, metric: str,
    target: float, simplex: bool = False, restarts: int | None,
    steps: int | None, dtype: Any,
) -> Found:
  """Searches for `num` subspaces whose largest pairwise similarity is least.

  Args:
    key: a JAX PRNG key.
    dim: dimension of the space.
    rank: dimension of the subspaces, at most dim / 2; 1 for vectors.
    num: number of subspaces, at least 2.
    metric: 'chordal', 'fubini_study' (subspaces) or 'spherical' (vectors).
    target: similarity at which to stop: the sum of the squared cosines of the
      principal angles, the squared determinant, or the cosine.
    simplex: whether the target is the simplex bound.
    restarts: random starts; by default as many as take about a second.
    steps: descent steps of each; by default 1500, fewer for huge problems.
    dtype: of the result; the search is in float32.

  Returns:
    What was found.
  """
  small = 8 * -(-num // 8) if num <= 64 else _padded(num)
  shape = (small, max(4, _padded(dim)), _padded(rank))
  work = _work(shape[1], shape[2], shape[0])
  if steps is None:
    steps = min(1500, max(150, 16 * _BUDGET // work))
  if restarts is None:
    few = 2 if num <= _MOST_IN_ORBITS else 1
    restarts = min(256, max(few, _BUDGET // (work * steps)))
  entries = (shape[0] * shape[2]) ** 2
  batch = max(1, min(64, _ENTRIES_PER_BATCH // entries))
  rows = -(-shape[0] // 3) + 2
  actions, names = None, ()
  if num <= _MOST_IN_ORBITS:
    actions, names = orbits.actions(
        dim, rank, num, most=-(-num // 3), padded=shape[:2],
        count=max(8, min(128, 2**19 // (shape[0] * shape[1]))))
  simplex = simplex and num * rank <= _MOST_IN_NEWTON
  sizes = _Sizes(*(jnp.int32(n) for n in (dim, rank, num)))
  steps = jnp.int32(steps)
  frames, similarity, origin = _search(
      key, sizes, jnp.float32(target), jnp.bool(simplex),
      jnp.int32((_CYCLE if names else 1) * -(-restarts // batch)), steps,
      actions, shape=shape, batch=batch, rows=rows, metric=metric)
  if simplex and not isinstance(similarity, jax.core.Tracer):
    simplex = bool(similarity <= target)  # else Newton need not be compiled
  frames, similarity, pair = _finish(
      frames, similarity, jnp.float32(target), sizes, steps, met=simplex,
      metric=metric, dtype=jnp.dtype(dtype))
  return Found(frames[:num, :dim, :rank], similarity, pair, origin,
               ('search', *names))
