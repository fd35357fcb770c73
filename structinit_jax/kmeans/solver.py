"""Spherical k-means of patches, whitened or not: Lloyd's iterations."""

from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax import windows

__all__ = ['cluster', 'patches', 'window_count']

_TINY = 1e-12
_ROUNDING = 1e-6  # what varies less does not
_WARM = 3 / 4  # of the iterations are softened
_ALIGNED = 0.9  # |cosine| of two filters of which one is made anew, or turned
_SWEEPS = 50


def _geometry(
    shape: Sequence[int], kernel: Sequence[int], window: Mapping[str, Any]
) -> tuple[Any, ...]:
  """Returns strides, dilation, pads and the places of a window, by axis."""
  ndim = len(kernel) - 2
  spatial = shape[-ndim - 1:-1]
  strides = windows.per_axis('strides', window['strides'], ndim)
  dilation = windows.per_axis('dilation', window['dilation'], ndim)
  spans = windows.spans(kernel[:-2], dilation)
  pads = windows.pads(window['padding'], spatial, spans, strides)
  places = tuple(
      max(0, (size + low + high - span) // step + 1)
      for size, (low, high), span, step in zip(
          spatial, pads, spans, strides, strict=True))
  return strides, dilation, pads, places


def window_count(
    shape: Sequence[int], kernel: Sequence[int], window: Mapping[str, Any]
) -> int:
  """Returns how many patches a layer sees.

  Args:
    shape: of its inputs (*batch, *spatial, in).
    kernel: shape of its kernel (*window, in / groups, out).
    window: strides, padding, dilation and groups, as of `kmeans.score`.

  Returns:
    The number.
  """
  ndim = len(kernel) - 2
  if not ndim:
    return math.prod(shape[:-1])
  places = _geometry(shape, kernel, window)[-1]
  return math.prod(shape[:-ndim - 1]) * math.prod(places)


def patches(
    key: base.Key, x: jax.Array, kernel: Sequence[int],
    window: Mapping[str, Any], most: int,
) -> jax.Array:
  """Returns patches that a layer sees, all or a random choice of them.

  Args:
    key: a JAX PRNG key.
    x: the layer's inputs (*batch, *spatial, in).
    kernel: shape of its kernel (*window, in / groups, out).
    window: strides, padding, dilation and groups, as of `kmeans.score`.
    most: how many at most.

  Returns:
    Array (groups, count, fan_in), in the order of the kernel's rows.
  """
  ndim, groups = len(kernel) - 2, window['groups']
  total = window_count(x.shape, kernel, window)
  if total > most:
    chosen = jnp.sort(jax.random.choice(key, total, (most,), replace=False))
  else:
    chosen = jnp.arange(total)
  chosen = chosen.astype(jnp.int32)
  if not ndim:
    return x.reshape(-1, x.shape[-1])[chosen][None]
  strides, dilation, pads, places = _geometry(x.shape, kernel, window)
  x = x.reshape(-1, *x.shape[-ndim - 1:])
  x = windows.pad(x, [(0, 0), *pads, (0, 0)], window['padding'])
  image, *where = jnp.unravel_index(chosen, (len(x), *places))
  index = [image.reshape(-1, *[1] * ndim)]
  for axis in range(ndim):
    taps = dilation[axis] * np.arange(kernel[axis], dtype=np.int32)
    rows = (strides[axis] * where[axis][:, None] + taps[None]).reshape(
        len(chosen), *[1] * axis, kernel[axis], *[1] * (ndim - 1 - axis))
    index.append(rows)
  found = x[tuple(index)]  # (count, *window, in)
  found = found.reshape(len(chosen), -1, groups, kernel[-2])
  return jnp.moveaxis(found, 2, 0).reshape(groups, len(chosen), -1)


def _unit(v: jax.Array) -> jax.Array:
  """Returns columns of norm 1; those of zeros stay."""
  return v / jnp.sqrt(jnp.sum(v * v, 0) + _TINY)[None]


def _turned(
    theta: jax.Array, toward: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Turns filters from earlier ones, until no |cosine| is above `_ALIGNED`.

  Sweeps turn each filter from the earlier one that it is most aligned with, in
  the plane of the two; if they are parallel, to its column of `toward`. Returns
  the filters, unit vectors, and which were turned.
  """

  def nearest(v: jax.Array) -> tuple[jax.Array, jax.Array]:
    cosines = jnp.triu(linalg.matmul(v.T, v), 1)
    other = jnp.abs(cosines).argmax(0)
    return other, jnp.take_along_axis(cosines, other[None], 0)[0]

  def aligned(carry: Any) -> jax.Array:
    sweep, _, _, (_, cosine) = carry
    return (sweep < _SWEEPS) & jnp.any(jnp.abs(cosine) > _ALIGNED + _ROUNDING)

  def turn(carry: Any) -> Any:
    sweep, v, moved, (other, cosine) = carry
    other = v[:, other]
    aside = v - cosine[None] * other + 1e-3 * toward
    aside = _unit(aside - jnp.sum(aside * other, 0)[None] * other)
    near = jnp.abs(cosine) > _ALIGNED
    v = jnp.where(near[None], _unit(
        _ALIGNED * jnp.sign(cosine)[None] * other
        + math.sqrt(1 - _ALIGNED**2) * aside), v)
    return sweep + 1, v, moved | near, nearest(v)

  start = _unit(theta)
  _, v, moved, _ = jax.lax.while_loop(
      aligned, turn,
      (0, start, jnp.zeros(theta.shape[1], bool), nearest(start)))
  return v, moved


def cluster(
    key: base.Key, x: jax.Array, num: int, *, whiten: bool = True,
    iterations: int = 30, temperature: float = 0.5, ridge: float = 1.0,
    reseed: bool = True,
) -> tuple[jax.Array, jax.Array]:
  r"""Finds the directions that maximise the spherical k-means score.

  Lloyd's iteration for $\frac{1}{n} \sum_i \max_k s_{ik}$: a filter becomes the
  sum of the patches that it wins, which with $\max$ replaced by a soft maximum
  at a temperature are weighted by it. Whitened, patches are centred, and
  everything happens in the metric of their covariance,
  $\theta_k \propto (\Sigma + r I)^{-1} \sum_{i \in k} (x_i - \mu)$, of unit
  variance with the ridge counted in: no patch is whitened. At temperature 0,
  if no filter is made anew, no iteration decreases that score.

  Args:
    key: a JAX PRNG key.
    x: patches (count, fan_in), at least `num` of them.
    num: number of filters.
    whiten: whether patches are centred and whitened.
    iterations: to make; the last quarter is at temperature 0.
    temperature: at the first iteration, relative to the deviation of a score.
    ridge: r, relative to the mean variance of a pixel.
    reseed: whether filters that win nothing are made anew from badly explained
      patches, until the last iteration, and those that are aligned with another
      in the first three quarters; in the last they are turned from it, so that
      no two end with |cosine| > 0.9, where the span of the patches leaves room.

  Returns:
    The filters (fan_in, num), at a scale of no meaning if whitened, else of
    unit norm; the score before every iteration, at temperature 0 (iterations,).
    Patches that do not vary (or, not whitened, vanish) give filters 0.

  Source: Zhou, equation 3; Coates and Ng (2012), section 3, of whitening.
  """
  count, size = x.shape
  largest = jnp.abs(x).max()
  if whiten:
    x = x - x.mean(0)[None]
  spread = jnp.abs(x).max()
  varies = spread > _ROUNDING * largest
  x = x / jnp.where(varies, spread, 1)  # no square overflows or vanishes
  power = jnp.mean(x * x) + _TINY
  if whiten:
    covariance = linalg.matmul(x.T, x) / count
    covariance = covariance + ridge * power * jnp.eye(size, dtype=x.dtype)
    factor = jax.scipy.linalg.cho_factor(covariance, lower=True)

  def normalize(g: jax.Array) -> jax.Array:
    if not whiten:
      return _unit(g)
    theta = jax.scipy.linalg.cho_solve(factor, g)
    return theta / jnp.sqrt(
        jnp.maximum(jnp.sum(theta * g, 0), 0) + _TINY)[None]

  def part(theta: jax.Array, toward: jax.Array) -> jax.Array:
    turned, moved = _turned(theta, toward)
    if whiten:
      power = jnp.sum(turned * linalg.matmul(covariance, turned), 0)
      turned = turned / jnp.sqrt(power + _TINY)[None]
    return jnp.where(moved[None], turned, theta)

  lengths = jnp.sum(x * x, 1)
  usable = lengths > _ROUNDING * power * size
  noise, key, mixing = jax.random.split(key, 3)
  mixtures = _unit(linalg.matmul(
      x.T, jax.random.normal(mixing, (count, num), x.dtype)))

  def begin(weights: jax.Array, noise: base.Key) -> jax.Array:
    """Draws patches as filters; if too few are usable, mixtures of all."""
    chance = jnp.where(
        usable, weights + jax.random.gumbel(noise, (count,), x.dtype), -jnp.inf)
    chosen = jax.lax.top_k(chance, num)[1]
    return normalize(jnp.where(usable[chosen][None], x[chosen].T, mixtures))

  theta = begin(jnp.zeros(count, x.dtype), noise)
  # The last iterations are at temperature 0, and turn in place of making anew;
  # filters that win nothing are made anew until the last of all.
  left = 1 - np.arange(iterations) / max(1, round(_WARM * iterations))
  shares = jnp.asarray(temperature * np.maximum(0, left), x.dtype)
  seeding = jnp.arange(iterations) < iterations - 1
  softened = seeding & jnp.asarray(left > 0)

  def step(
      theta: jax.Array, now: tuple[base.Key, jax.Array, jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    noise, share, early, seeds = now
    s = linalg.matmul(x, theta)
    winner = s.argmax(1)
    hard = jax.nn.one_hot(winner, num, dtype=s.dtype)
    deviation = jnp.sqrt(jnp.mean(s * s) + _TINY)
    soft = jax.nn.softmax(s / jnp.maximum(share * deviation, _TINY), axis=1)
    weights = jnp.where(share > 0, soft, hard)
    value = s.max(1)
    found = normalize(linalg.matmul(x.T, weights))
    # A filter that wins nothing, or zeros, stays, unless it is made anew.
    found = jnp.where(jnp.any(found != 0, 0)[None], found, theta)
    if reseed:
      unit = _unit(found)
      close = jnp.triu(
          jnp.abs(linalg.matmul(unit.T, unit)) > _ALIGNED, 1).any(0)
      lost = ((hard.sum(0) == 0) & seeds) | (close & early)
      # Raw lengths, whitened or not: a rough weight of where to begin anew.
      unexplained = jnp.maximum(
          lengths - jnp.maximum(value, 0)**2 * (power if whiten else 1), 0)
      fresh = begin(jnp.log(unexplained + _TINY), noise)
      found = jnp.where(lost[None], fresh, found)
      found = jax.lax.cond(
          early, lambda found, _: found, part, found,
          _unit(_unit(fresh) + mixtures))
    return found, value.mean()

  theta, values = jax.lax.scan(
      step, theta,
      (jax.random.split(key, iterations), shares, softened, seeding))
  if not whiten:
    values = values * spread
  return jnp.where(varies, theta, 0), values
