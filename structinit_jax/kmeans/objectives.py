"""The spherical k-means score of a layer, its penalties and its statistics."""

from collections.abc import Sequence
import math
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax import windows

__all__ = [
    'Statistics', 'cosine_penalty', 'cosines', 'norms', 'responses', 'scaled',
    'score', 'scores', 'standardize', 'statistics', 'summarize', 'total',
]

PENALTIES = ('squared', 'exponential')
DUPLICATE = 0.95
_TINY = 1e-20  # under roots that have slopes at 0
_ROUNDING = 1e-12  # relative variance of what does not vary


class Statistics(NamedTuple):
  """What `statistics` returns.

  Attributes:
    score: the mean over windows of the largest score of a filter.
    wins: the share of the windows at which a filter's score is the largest of
      its group, (out,); the sum over a group is 1.
    dead: which filters win no window, boolean (out,).
    coverage: the exponential of the entropy of a group's shares, by its number
      of filters, averaged over groups: 1 if all win as often, 1 / filters if
      one wins everywhere.
    duplicates: number of pairs of filters of a group with |cosine| > 0.95.
    coherence: the largest |cosine| of two filters of a group; 0 of one.
  """

  score: jax.Array
  wins: jax.Array
  dead: jax.Array
  coverage: jax.Array
  duplicates: jax.Array
  coherence: jax.Array


def responses(
    kernel: jax.Array, inputs: jax.Array, *,
    strides: int | Sequence[int] = 1,
    padding: int | str | Sequence[tuple[int, int]] = 'SAME',
    dilation: int | Sequence[int] = 1, groups: int = 1,
) -> jax.Array:
  """Returns the inner products of filters and patches, by one convolution.

  Args:
    kernel: array (*window, in / groups, out); (in, out) of a dense layer.
    inputs: array (*batch, *spatial, in).
    strides: of a convolution; one for all spatial axes, or one each.
    padding: pairs, an int or a name, as of `flax.linen.Conv`; not 'REFLECT'.
    dilation: of the kernel; one for all axes, or one each.
    groups: of features; filters of a group see the same inputs.

  Returns:
    Array (*batch, *spatial, out).

  Raises:
    ValueError: if the two do not fit.
  """
  ndim = kernel.ndim - 2
  groups = base.integer('groups', groups, 1)
  if ndim < 0 or inputs.ndim <= ndim or (
      inputs.shape[-1] != groups * kernel.shape[-2]
      or kernel.shape[-1] % groups):
    raise ValueError(
        f'kernel {kernel.shape} in {groups} groups is not for inputs '
        f'{inputs.shape}: they need (*window, in / groups, out), where groups '
        'divide out, and (*batch, *spatial, in)')
  inner = base.compute_dtype(jnp.result_type(kernel.dtype))
  kernel, inputs = kernel.astype(inner), inputs.astype(inner)
  if not ndim:
    if groups > 1:
      raise ValueError(f'groups={groups}: a dense layer has one')
    return linalg.matmul(inputs, kernel)
  strides = windows.per_axis('strides', strides, ndim)
  dilation = windows.per_axis('dilation', dilation, ndim)
  batch, spatial = inputs.shape[:-ndim - 1], inputs.shape[-ndim - 1:-1]
  pads = windows.pads(
      padding, spatial, windows.spans(kernel.shape[:-2], dilation), strides)
  x = inputs.reshape(-1, *inputs.shape[-ndim - 1:])
  x = windows.pad(x, [(0, 0), *pads, (0, 0)], padding)
  axes = 'xyzabc'[:ndim]
  if not math.prod(x.shape) or any(
      size < span for size, span in zip(
          x.shape[1:-1], windows.spans(kernel.shape[:-2], dilation),
          strict=True)):
    raise ValueError(
        f'kernel {kernel.shape} sees no patch of inputs {inputs.shape} with '
        f'padding={padding!r} and dilation={tuple(dilation)}')
  y = lax.conv_general_dilated(
      x, kernel, strides, 'VALID', rhs_dilation=dilation,
      dimension_numbers=(f'N{axes}C', f'{axes}IO', f'N{axes}C'),
      feature_group_count=groups, precision=lax.Precision.HIGHEST)
  return y.reshape(*batch, *y.shape[1:])


def scaled(
    y: jax.Array, axes: Sequence[int] | None = None
) -> tuple[jax.Array, jax.Array]:
  """Divides by a power of two, so that no square overflows or vanishes.

  Args:
    y: an array.
    axes: over which entries share a divisor; None is all.

  Returns:
    The quotients, exact and below 2, and the divisors, `axes` of length 1.
  """
  largest = jnp.abs(lax.stop_gradient(y)).max(axes, keepdims=True, initial=0)
  _, exponent = jnp.frexp(largest)
  unit = jnp.ldexp(jnp.ones_like(largest), exponent - 1)
  return y / unit, unit


def norms(kernel: jax.Array) -> jax.Array:
  """Returns the Euclidean norms of filters, (out,); of zeros, almost 0."""
  flat, unit = scaled(kernel.reshape(-1, kernel.shape[-1]), (0,))
  return unit[0] * jnp.sqrt(jnp.sum(flat * flat, axis=0) + _TINY)


def standardize(y: jax.Array) -> jax.Array:
  """Subtracts the mean of every feature and divides by its deviation."""
  axes = tuple(range(y.ndim - 1))
  y, _ = scaled(y, axes)
  power = jnp.mean(y * y, axes)
  y = y - y.mean(axes)[(None,) * len(axes)]
  variance = jnp.mean(y * y, axes) + _ROUNDING * power + _TINY
  return y * lax.rsqrt(variance)[(None,) * len(axes)]


def scores(
    kernel: jax.Array, inputs: jax.Array, *, whiten: bool = False,
    normalize: bool = False, strides: int | Sequence[int] = 1,
    padding: int | str | Sequence[tuple[int, int]] = 'SAME',
    dilation: int | Sequence[int] = 1, groups: int = 1,
) -> jax.Array:
  r"""Returns the scores of patches for filters, without any patch.

  $s_{ik} = x_i^T \theta_k / \|\theta_k\|$, where $x_i$ is what the layer's
  window sees at a place. Whitened: centred and divided by the deviation over
  all places, which is the score of the whitened patches
  $\Sigma^{-1/2} (x_i - \mu)$ for the whitened filters $\Sigma^{1/2} \theta_k$,
  and what batch normalization makes of the layer's output.

  Args:
    kernel: as of `responses`: (*window, in / groups, out), or (in, out).
    inputs: array (*batch, *spatial, in).
    whiten: whether patches are whitened.
    normalize: whether patches are divided by their norms, so that scores are
      cosines; not of whitened ones.
    strides: as of `score`.
    padding: as of `score`.
    dilation: as of `score`.
    groups: as of `score`.

  Returns:
    Array (*batch, *spatial, out), in float32, or float64.

  Raises:
    ValueError: if kernel and inputs do not fit, or both options are asked for.

  Example:
    >>> import jax.numpy as jnp
    >>> from structinit_jax import kmeans
    >>> x = jnp.array([[3., 4.], [0., 2.]])
    >>> kmeans.scores(2 * jnp.eye(2), x).tolist()
    [[3.0, 4.0], [0.0, 2.0]]
    >>> kmeans.scores(jnp.eye(2), x, normalize=True)[1].tolist()
    [0.0, 1.0]

  Source: Zhou, equation 3; whitened: this library.
  """
  if whiten and normalize:
    raise ValueError(
        'whiten and normalize: whitened patches of this library keep their '
        'norms; give one of the two')
  where = {'strides': strides, 'padding': padding, 'dilation': dilation}
  y = responses(kernel, inputs, groups=groups, **where)
  kernel = kernel.astype(y.dtype)
  if whiten:
    return standardize(y)
  s = y / norms(kernel)[(None,) * (y.ndim - 1)]
  if not normalize:
    return s
  ones = jnp.ones((*kernel.shape[:-1], groups), y.dtype)
  x, unit = scaled(inputs.astype(y.dtype))
  squares = responses(ones, x * x, groups=groups, **where)
  lengths = unit.reshape(()) * jnp.sqrt(jnp.maximum(squares, 0) + _TINY)
  return s / jnp.repeat(lengths, kernel.shape[-1] // groups, axis=-1)


def _largest(s: jax.Array, groups: int) -> jax.Array:
  return s.reshape(-1, groups, s.shape[-1] // groups).max(-1)


def total(s: jax.Array, groups: int = 1) -> jax.Array:
  """Returns the sum over windows and groups of the largest score."""
  return _largest(s, groups).sum()


def score(
    kernel: jax.Array, inputs: jax.Array, *, whiten: bool = False,
    normalize: bool = False, strides: int | Sequence[int] = 1,
    padding: int | str | Sequence[tuple[int, int]] = 'SAME',
    dilation: int | Sequence[int] = 1, groups: int = 1,
) -> jax.Array:
  r"""Returns the spherical k-means score of a layer, the mean over windows.

  $\frac{1}{n} \sum_i \max_k x_i^T \theta_k / \|\theta_k\|$, differentiable; the
  paper has the sum, n times as much.

  Args:
    kernel: array (*window, in / groups, out); (in, out) of a dense layer.
    inputs: array (*batch, *spatial, in).
    whiten: as of `scores`.
    normalize: as of `scores`.
    strides: of a convolution; one for all spatial axes, or one each.
    padding: pairs, an int or a name, as of `flax.linen.Conv`; not 'REFLECT'.
    dilation: of the kernel; one for all axes, or one each.
    groups: of features; the largest score of every group counts.

  Returns:
    A scalar.

  Raises:
    ValueError: as of `scores`.

  Example:
    >>> import jax.numpy as jnp
    >>> from structinit_jax import kmeans
    >>> x = jnp.array([[3., 4.], [0., 2.]])
    >>> float(kmeans.score(jnp.eye(2), x))
    3.0

  Source: Zhou, equation 3.
  """
  return _largest(scores(
      kernel, inputs, whiten=whiten, normalize=normalize, strides=strides,
      padding=padding, dilation=dilation, groups=groups), groups).mean()


def cosines(kernel: jax.Array, groups: int = 1) -> jax.Array:
  """Returns the cosines of the filters of every group.

  Args:
    kernel: array (..., out).
    groups: of features.

  Returns:
    Array (groups, out / groups, out / groups).

  Raises:
    ValueError: if groups do not divide out.
  """
  if not kernel.ndim or kernel.shape[-1] % base.integer('groups', groups, 1):
    raise ValueError(
        f'kernel {kernel.shape} must be an array (..., out) whose filters '
        f'make groups={groups} of one size')
  unit = (kernel / norms(kernel)[(None,) * (kernel.ndim - 1)]).reshape(
      math.prod(kernel.shape[:-1]), groups, -1)
  return linalg.matmul(jnp.moveaxis(unit, 0, -1), jnp.moveaxis(unit, 0, 1))


def cosine_penalty(
    kernel: jax.Array, *, kind: str = 'squared', sharpness: float = 20.0,
    groups: int = 1,
) -> jax.Array:
  r"""Returns the penalty of filters that point the same way.

  'squared' is $\frac{1}{2} \sum_{i < j} c_{ij}^2$ of the cosines $c_{ij}$ of
  filters; 'exponential', $\frac{1}{2} \sum_{i < j} e^{-b (1 - c_{ij}^2)}$,
  leaves alone all but those that are nearly aligned.

  Args:
    kernel: array (..., out).
    kind: 'squared' or 'exponential'.
    sharpness: b.
    groups: of features; only filters of the same group are compared.

  Returns:
    A scalar, differentiable.

  Raises:
    ValueError: for an unknown kind or a sharpness that is not positive.

  Example:
    >>> import jax.numpy as jnp
    >>> from structinit_jax import kmeans
    >>> kernel = jnp.array([[1., 3.], [0., 4.]])  # cosine 0.6
    >>> round(float(kmeans.cosine_penalty(kernel)), 4)
    0.18

  Source: Zhou, equations 4 and 6; that it should be exponential, section 5.
  """
  if kind not in PENALTIES:
    raise ValueError(f'kind={kind!r} must be one of {", ".join(PENALTIES)}')
  sharpness = base.positive('sharpness', sharpness)
  squared = cosines(
      kernel.astype(base.compute_dtype(kernel.dtype)), groups)**2
  if kind == 'exponential':
    squared = jnp.exp(-sharpness * (1 - squared))
  return jnp.sum(jnp.triu(squared, 1)) / 2


def statistics(
    kernel: jax.Array, inputs: jax.Array, *, whiten: bool = False,
    normalize: bool = False, strides: int | Sequence[int] = 1,
    padding: int | str | Sequence[tuple[int, int]] = 'SAME',
    dilation: int | Sequence[int] = 1, groups: int = 1,
) -> Statistics:
  """Measures how the filters of a layer share the patches it sees.

  Args:
    kernel: as of `score`.
    inputs: as of `score`.
    whiten: as of `scores`.
    normalize: as of `scores`; it changes the score, not who wins.
    strides: as of `score`.
    padding: as of `score`.
    dilation: as of `score`.
    groups: as of `score`.

  Returns:
    Statistics.

  Raises:
    ValueError: as of `scores`.

  Example:
    >>> import jax.numpy as jnp
    >>> from structinit_jax import kmeans
    >>> x = jnp.array([[3., 4.], [0., 2.]])
    >>> stats = kmeans.statistics(jnp.eye(2), x)
    >>> stats.wins.tolist(), stats.dead.tolist()
    ([0.0, 1.0], [True, False])

  Source: Zhou, section 3.2; coverage is the perplexity of the assignment.
  """
  s = scores(kernel, inputs, whiten=whiten, normalize=normalize,
             strides=strides, padding=padding, dilation=dilation,
             groups=groups)
  return summarize(s, kernel, groups)


def summarize(s: jax.Array, kernel: jax.Array, groups: int = 1) -> Statistics:
  """Returns the statistics of scores (..., out) of a kernel's filters."""
  out = s.shape[-1]
  size = out // groups
  grouped = s.reshape(-1, groups, size)
  winners = grouped.argmax(-1) + size * jnp.arange(groups)[None]
  counts = jnp.zeros(out, jnp.int32).at[winners.reshape(-1)].add(1)
  wins = counts / len(grouped)
  entropy = -jnp.sum(jax.scipy.special.xlogy(wins, wins).reshape(groups, size),
                     axis=1)
  pairs = jnp.triu(jnp.abs(cosines(kernel.astype(s.dtype), groups)), 1)
  return Statistics(
      score=_largest(s, groups).mean(), wins=wins, dead=counts == 0,
      coverage=jnp.mean(jnp.exp(entropy) / size),
      duplicates=jnp.sum(pairs > DUPLICATE), coherence=pairs.max(initial=0))
