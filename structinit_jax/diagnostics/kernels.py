"""Statistics of kernels and of the units they feed."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from structinit_jax import grassmann
from structinit_jax import linalg

__all__ = ['KernelStatistics', 'dead_units', 'kernel_statistics']


class KernelStatistics(NamedTuple):
  """What `kernel_statistics` returns.

  Attributes:
    mean: mean entry of every filter, `(out,)`.
    variance: variance of the entries of every filter, `(out,)`.
    norm: Euclidean norm of every filter, `(out,)`.
    near_zero: which filters have nearly vanished, boolean `(out,)`.
    chordal_distance: mean over pairs of filters, seen as lines, of the sine of
      their angle; 1 means mutually orthogonal. NaN for fewer than two filters.
    coherence: largest |cosine| between two filters; 0 means orthogonal.
  """

  mean: jax.Array
  variance: jax.Array
  norm: jax.Array
  near_zero: jax.Array
  chordal_distance: jax.Array
  coherence: jax.Array


def kernel_statistics(
    kernel: jax.typing.ArrayLike, *, threshold: float = 1e-2
) -> KernelStatistics:
  r"""Measures sparsity and diversity of the filters of a kernel.

  A filter is the slice of one output unit, flattened to $w_i$. It is near zero
  if $\|w_i\| <$ `threshold` times the root mean square of all filters' norms.
  Diversity is that of the lines the filters span: with $c_{ij}$ the |cosine|
  of two filters, the mean of $\sqrt{1 - c_{ij}^2}$ and the maximum of $c_{ij}$
  over pairs. A zero filter has cosine 1 with every other: it adds nothing.

  Args:
    kernel: array `(..., in, out)`.
    threshold: relative norm below which a filter counts as near zero.

  Returns:
    KernelStatistics, in float32.

  Example:
    >>> import jax.numpy as jnp, structinit_jax as si
    >>> stats = si.diagnostics.kernel_statistics(jnp.eye(3))
    >>> float(stats.chordal_distance), float(stats.coherence)
    (1.0, 0.0)
  """
  kernel = jnp.asarray(kernel)
  filters = kernel.reshape(math.prod(kernel.shape[:-1]), kernel.shape[-1])
  filters = filters.astype(jnp.float32).T
  num = filters.shape[0]
  # Scaled by the largest entry, no square overflows or vanishes.
  largest = jnp.max(jnp.abs(filters), initial=0)
  scaled = filters / jnp.where(largest > 0, largest, 1)
  norm = jnp.linalg.norm(scaled, axis=1)
  silent = norm == 0
  unit = scaled / jnp.where(silent, 1, norm)[:, None]
  cosine = jnp.clip(jnp.abs(linalg.matmul(unit, unit.T)), 0, 1)
  sine = grassmann.pairwise_distances(unit[:, :, None])
  no_line = silent[:, None] | silent[None, :]
  cosine, sine = jnp.where(no_line, 1, cosine), jnp.where(no_line, 0, sine)
  pairs = jnp.triu(jnp.ones((num, num), bool), 1)
  rms = jnp.sqrt(jnp.mean(norm**2))
  return KernelStatistics(
      mean=filters.mean(axis=1),
      variance=filters.var(axis=1),
      norm=norm * largest,
      near_zero=norm <= threshold * rms,
      chordal_distance=jnp.mean(sine, where=pairs),
      coherence=jnp.max(cosine, where=pairs, initial=0),
  )


def dead_units(activations: jax.typing.ArrayLike) -> jax.Array:
  """Tells which ReLU units were silent for every example.

  Args:
    activations: outputs of the ReLU, `(batch, ..., units)`.

  Returns:
    Boolean `(units,)`: no activation above 0 at any example or position.

  Example:
    >>> import jax.numpy as jnp, structinit_jax as si
    >>> si.diagnostics.dead_units(jnp.array([[0., 1.], [0., 0.]])).tolist()
    [True, False]
  """
  activations = jnp.asarray(activations)
  axes = tuple(range(activations.ndim - 1))
  return ~jnp.any(activations > 0, axis=axes)
