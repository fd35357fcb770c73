r"""Rank-r matrices whose outputs, past the activation, are the closest.

For a subspace with orthonormal basis Q the best column is that of the
projection at another norm, so what is left to choose is Q. With
$\rho_i = |Q^T w_i| / |w_i|$ the objective falls by
$F(Q) = \sum_i \max_b 2 K(|w_i|, b, \rho_i) - K(b, b, 1)$, which is convex in Q
where K is convex and increasing in the cosine: its linearisation lies below it,
and the basis that maximises that,

$Q \leftarrow qr( \sum_i F_i'(\rho_i) / (\rho_i |w_i|^2) w_i w_i^T Q )$,

can only ascend. There is no step size and no sample. For the ReLU the weights
are $h(\rho_i) h'(\rho_i) / \rho_i$.

Several columns of a kernel may be one output, as those of all windows of the
second factor are in a separable convolution: W is (d, windows, n), and norms
and cosines are of the windows together.
"""

import functools
import itertools
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax.lowrank import duals

__all__ = [
    'Solution', 'columns', 'dominant', 'improve', 'sketch', 'subsets', 'top']

# Subsets of singular vectors that are compared at most.
_MOST_SUBSETS = 2**14
# After which the best of the starts is left alone with the rest.
_FEW_STEPS = 32
_OVERSAMPLING, _POWERS = 10, 2


class Solution(NamedTuple):
  """A subspace and the norms of the columns in it.

  Attributes:
    basis: orthonormal columns (d, r).
    norms: of the columns of the approximation, (n,).
    value: by how much the objective is below that of zero columns, E |f(xW)|^2
      if f(0) = 0.
    steps: iterations that were made.
  """

  basis: jax.Array
  norms: jax.Array
  value: jax.Array
  steps: jax.Array


def _norms(w: jax.Array) -> jax.Array:
  return jnp.sqrt((w**2).sum((0, 1)))


def _project(
    basis: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the coordinates (r, windows, n) and the cosines (n,)."""
  d, *rest = w.shape
  found = linalg.matmul(basis.T, w.reshape(d, -1)).reshape(-1, *rest)
  norms = _norms(w)
  rho = _norms(found) / jnp.where(norms > 0, norms, 1)
  return found, jnp.minimum(rho, 1)


def _values(
    dual: duals.Dual, a: jax.Array, b: jax.Array, rho: jax.Array) -> jax.Array:
  return (2 * dual.product(a, b, rho)
          - dual.product(b, b, jnp.ones_like(rho)))


def _evaluate(
    basis: jax.Array, w: jax.Array, dual: duals.Dual,
    start: jax.Array | None = None,
) -> tuple[Solution, jax.Array, jax.Array]:
  a = _norms(w)
  found, rho = _project(basis, w)
  b = dual.best_norm(a, rho, a * rho if start is None else start)
  value = _values(dual, a, b, rho).sum()
  return Solution(basis, b, value, jnp.int32(0)), found, rho


def evaluate(basis: jax.Array, w: jax.Array, dual: duals.Dual) -> Solution:
  """Returns the best norms in a subspace and their value."""
  return _evaluate(basis, w, dual)[0]


def columns(solution: Solution, w: jax.Array) -> jax.Array:
  """Returns the coordinates of the best columns, (r, windows, n)."""
  found, _ = _project(solution.basis, w)
  # A column with no projection is as far from all that lies in the subspace,
  # and still closer to a vector there than to 0 if f has a mean.
  none = jnp.zeros_like(found).at[0, 0].set(1)
  found = jnp.where(_norms(found)[None, None] > 0, found, none)
  return found * (solution.norms / _norms(found))[None, None]


def top(w: jax.Array, rank: int) -> jax.Array:
  """Returns the first left singular vectors of W (d, windows, n), (d, rank)."""
  return jnp.linalg.svd(
      w.reshape(len(w), -1), full_matrices=False)[0][:, :rank]


def dominant(w: jax.Array, rank: int) -> jax.Array:
  """Returns a basis of what `top` spans, from the smaller Gram matrix.

  A fraction of the time of the decomposition of W. Directions of singular
  values below the square root of a rounding of the largest are mixed, which a
  start may be.
  """
  flat = w.reshape(len(w), -1)
  if flat.shape[0] <= flat.shape[1]:
    return jnp.linalg.eigh(linalg.matmul(flat, flat.T))[1][:, :-rank - 1:-1]
  right = jnp.linalg.eigh(linalg.matmul(flat.T, flat))[1][:, :-rank - 1:-1]
  return jnp.linalg.qr(linalg.matmul(flat, right))[0]


def sketch(w: jax.Array, rank: int) -> jax.Array:
  """Returns nearly what `top` does, by products with W alone.

  A randomised decomposition: of what two power iterations make of a few random
  directions more than the rank. The directions are the same for every W.

  Args:
    w: matrix (d, windows, n).
    rank: how many columns.

  Returns:
    Orthonormal columns (d, rank).

  Source: N. Halko, P.-G. Martinsson, J. Tropp, Finding structure with
    randomness (2011), algorithms 4.4 and 5.1.
  """
  flat = w.reshape(len(w), -1)
  size = min(rank + _OVERSAMPLING, *flat.shape)
  basis = linalg.matmul(flat, jax.random.normal(
      jax.random.key(0), (flat.shape[1], size), flat.dtype))
  for _ in range(_POWERS):
    back = linalg.matmul(flat.T, jnp.linalg.qr(basis)[0])
    basis = linalg.matmul(flat, jnp.linalg.qr(back)[0])
  basis = jnp.linalg.qr(basis)[0]
  inner = linalg.matmul(basis.T, flat)
  turn = jnp.linalg.eigh(linalg.matmul(inner, inner.T))[1]
  return linalg.matmul(basis, turn[:, :-rank - 1:-1])


def improve(
    basis: jax.Array, w: jax.Array, dual: duals.Dual, *, steps: int,
    tolerance: float,
) -> Solution:
  """Ascends from a basis until a step gains less than `tolerance` of the value.

  Args:
    basis: orthonormal columns (d, r).
    w: matrix (d, windows, n).
    dual: of the activation.
    steps: to make at most.
    tolerance: relative.

  Returns:
    A Solution, never worse than the basis given.
  """
  d = len(w)
  a = _norms(w)
  flat = w.reshape(d, -1)
  tiny = jnp.finfo(w.dtype).tiny ** 0.5
  squares = jnp.where(a > 0, a**2, 1)

  def step(state: Any) -> Any:
    (old, found, rho), _ = state
    slope = dual.slope(a, old.norms, rho)
    weights = jnp.where(a > 0, slope / (jnp.maximum(rho, tiny) * squares), 0)
    weighted = (found * weights[None, None]).reshape(len(found), -1)
    pulled = linalg.matmul(flat, weighted.T)
    basis = jnp.linalg.qr(pulled)[0]
    new = _evaluate(basis, w, dual, old.norms)
    better = new[0].value > old.value
    new, found, rho = jax.tree.map(
        lambda x, y: jnp.where(better, x, y), new, (old, found, rho))
    going = new.value - old.value > tolerance * jnp.abs(old.value)
    return (new._replace(steps=old.steps + 1), found, rho), going

  (solution, *_), _ = jax.lax.while_loop(
      lambda state: state[1] & (state[0][0].steps < steps), step,
      (_evaluate(basis, w, dual), jnp.bool_(True)))
  return solution


def subsets(w: jax.Array, rank: int, dual: duals.Dual) -> jax.Array:
  """Returns the best basis of left singular vectors: Algorithm 3.

  All choices of `rank` of them are compared, if there are no more than 2^14;
  else the first ones are it.
  """
  left, values, right = jnp.linalg.svd(
      w.reshape(len(w), -1), full_matrices=False)
  count = len(values)
  if math.comb(count, rank) > _MOST_SUBSETS:
    return left[:, :rank]
  chosen = np.array(list(itertools.combinations(range(count), rank)), np.int32)
  members = np.zeros((len(chosen), count), w.dtype)
  np.put_along_axis(members, chosen, 1, axis=1)
  energy = (values[:, None] * right).reshape(count, *w.shape[1:])
  energy = (energy**2).sum(1)
  a = _norms(w)

  def value(member: jax.Array) -> jax.Array:
    rho = jnp.sqrt(linalg.matmul(member, energy)) / jnp.where(a > 0, a, 1)
    rho = jnp.minimum(rho, 1)
    return _values(dual, a, dual.best_norm(a, rho, a * rho), rho).sum()

  best = jnp.argmax(jax.lax.map(value, jnp.asarray(members), batch_size=256))
  return left[:, jnp.asarray(chosen)[best]]


def solve(
    key: base.Key, w: jax.Array, rank: int, dual: duals.Dual, *,
    restarts: int, steps: int, tolerance: float,
) -> Solution:
  """Ascends from singular vectors and from random bases; returns the best.

  Of all starts the best after a few steps goes on.
  """
  ascend = functools.partial(improve, w=w, dual=dual, tolerance=tolerance)
  if not restarts:
    return ascend(dominant(w, rank), steps=steps)
  random = jax.vmap(lambda key: linalg.haar(key, (len(w), rank), w.dtype))(
      jax.random.split(key, restarts))
  bases = jnp.concatenate([
      jnp.stack([top(w, rank), subsets(w, rank, dual)]), random])
  few = min(_FEW_STEPS, steps)
  found = jax.vmap(lambda basis: ascend(basis, steps=few))(bases)
  best = jax.tree.map(lambda x: x[jnp.argmax(found.value)], found)
  last = ascend(best.basis, steps=steps - few)
  better = last.value > best.value
  last = jax.tree.map(lambda x, y: jnp.where(better, x, y), last, best)
  return last._replace(steps=best.steps + last.steps)
