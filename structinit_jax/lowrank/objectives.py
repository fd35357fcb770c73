r"""How far the outputs of a factorised layer are from those of the full one."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax.lowrank import duals

__all__ = ['objective', 'root', 'sampled_objective', 'svd_gap']

Activation = str | Callable[[jax.Array], jax.Array]


def check_matrix(name: str, x: Any) -> jax.Array:
  """Returns a float matrix, or says what of it is none."""
  try:
    x = jnp.asarray(x)
  except (TypeError, ValueError):
    raise ValueError(f'{name} {x!r} is no array') from None
  if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(
        f'{name} of shape {x.shape} and dtype {x.dtype} must be a matrix of '
        'real floating-point numbers')
  return x.astype(base.compute_dtype(x.dtype))


def _check_factors(kernel: Any, u: Any, v: Any) -> tuple[jax.Array, ...]:
  kernel, u, v = (
      check_matrix(name, x)
      for name, x in (('kernel', kernel), ('u', u), ('v', v)))
  if (u.shape[0], v.shape[1]) != kernel.shape or u.shape[1] != v.shape[0]:
    raise ValueError(
        f'u of shape {u.shape} and v of shape {v.shape} are no factors of a '
        f'kernel of shape {kernel.shape}; they have to be (in, rank) and '
        '(rank, out)')
  return kernel, u, v


def root(covariance: Any, size: int) -> tuple[jax.Array, jax.Array]:
  """Returns the symmetric root of a covariance, and its inverse.

  Eigenvalues that are below what rounding makes of 0 count as that much, so
  that what a kernel does to inputs that never varied is not lost.

  Args:
    covariance: matrix (size, size), symmetric and positive semidefinite.
    size: of the inputs.

  Returns:
    Two matrices (size, size).

  Raises:
    ValueError: for another shape, or, where it has values yet, for one that is
      not finite, symmetric and positive semidefinite.
  """
  covariance = check_matrix('covariance', covariance)
  if covariance.shape != (size, size):
    raise ValueError(
        f'covariance of shape {covariance.shape} is not that of {size} inputs')
  values, vectors = jnp.linalg.eigh((covariance + covariance.T) / 2)
  most = jnp.abs(values).max()
  floor = jnp.where(  # the identity if nothing varies
      most > 0, jnp.finfo(values.dtype).eps * math.sqrt(size) * most, 1)
  if not isinstance(values, jax.core.Tracer):
    with jax.ensure_compile_time_eval():  # it may be a constant of a jit
      skew = float(jnp.abs(covariance - covariance.T).max())
      least, bound = float(values[0]), 1e-3 * float(most)
    if not (math.isfinite(bound) and skew <= bound and least >= -bound):
      raise ValueError(
          f'covariance of shape {covariance.shape} must be finite, symmetric '
          f'and positive semidefinite; its least eigenvalue is {least:.3g}, it '
          f'differs by {skew:.3g} from its transpose')
  roots = jnp.sqrt(jnp.maximum(values, floor))[None]
  return (linalg.matmul(vectors * roots, vectors.T),
          linalg.matmul(vectors / roots, vectors.T))


@jax.custom_jvp
def _norm(squares: jax.Array) -> jax.Array:
  return jnp.sqrt(squares)


@_norm.defjvp
def _norm_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  # Of a zero column the derivative is 0, as the kernels' by its cosine is.
  (squares,), (t,) = primals, tangents
  found = _norm(squares)
  return found, jnp.where(
      found > 0, t / (2 * jnp.where(found > 0, found, 1)), 0)


def objective(
    kernel: jax.Array, u: jax.Array, v: jax.Array, *,
    activation: Activation = 'relu', covariance: jax.Array | None = None,
) -> jax.Array:
  r"""Returns the expected squared error of the outputs, exactly.

  $L = E \| f(x W) - f(x U V) \|^2$ over $x \sim N(0, \Sigma)$, summed over the
  outputs: $\sum_i K(a_i, a_i, 1) + K(b_i, b_i, 1) - 2 K(a_i, b_i, \rho_i)$ with
  the norms $a_i$, $b_i$ of the columns and their cosine, all in the inner
  product of $\Sigma$. It is differentiable in all three, and the memory is that
  of the kernel. There is no sampling.

  Args:
    kernel: matrix W (in, out).
    u: matrix (in, rank).
    v: matrix (rank, out).
    activation: f, as of `dual`.
    covariance: Sigma (in, in); None is the identity.

  Returns:
    A scalar of the dtype the factors are computed in.

  Raises:
    ValueError: for shapes that do not fit, a dtype that is not real and
      floating, or an activation that is unknown.

  Example:
    >>> import jax, structinit_jax as si
    >>> kernel = jax.numpy.diag(jax.numpy.array([1., .99]))
    >>> u, v = jax.numpy.array([[1.], [0.]]), jax.numpy.array([[1., 0.]])
    >>> round(float(si.lowrank.objective(kernel, u, v)), 4)
    0.4901

  Source: Vodrahalli et al. (2022), problem 3.1 and section A, of the ReLU.
  """
  kernel, u, v = _check_factors(kernel, u, v)
  product = linalg.matmul(u, v)
  if covariance is not None:
    covariance = check_matrix('covariance', covariance)
  return expected_error(kernel, product, activation, covariance)


def expected_error(
    w: jax.Array, y: jax.Array, activation: Activation,
    covariance: jax.Array | None = None,
) -> jax.Array:
  """Returns `objective` of a product that is there.

  Args:
    w: kernel (..., out); all axes but the last are inputs.
    y: of the same shape.
    activation: as of `dual`.
    covariance: of the inputs, for matrices.

  Returns:
    A scalar.
  """
  weighted, other = (
      (w, y) if covariance is None
      else (linalg.matmul(covariance, w), linalg.matmul(covariance, y)))
  inputs = tuple(range(w.ndim - 1))
  a = _norm(jnp.maximum((w * weighted).sum(inputs), 0))
  b = _norm(jnp.maximum((y * other).sum(inputs), 0))
  inner, lengths = (y * weighted).sum(inputs), a * b
  rho = jnp.where(
      lengths > 0, inner / jnp.where(lengths > 0, lengths, 1), 0)
  dual = duals.dual(activation)
  found = dual.error(a, b, jnp.clip(rho, -1, 1))
  # A zero column has no cosine, and its norm no derivative. The error has one,
  # that of -2 f'(0) E f'(a z) <w, y>.
  least = jnp.finfo(a.dtype).eps ** 0.5
  a, b = (jax.lax.stop_gradient(jnp.maximum(x, least)) for x in (a, b))
  slope = dual.slope(a, b, jnp.zeros_like(a)) / (a * b)
  return (found - 2 * jnp.where(lengths > 0, 0, slope * inner)).sum()


def sampled_objective(
    key: base.Key, kernel: jax.Array, u: jax.Array, v: jax.Array, *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    covariance: jax.Array | None = None, samples: int = 1024,
) -> jax.Array:
  r"""Estimates `objective` from Gaussian inputs, for any elementwise function.

  Args:
    key: a JAX PRNG key.
    kernel: as of `objective`.
    u: as of `objective`.
    v: as of `objective`.
    activation: an elementwise function; it need not be smooth.
    covariance: as of `objective`.
    samples: how many inputs.

  Returns:
    A scalar: the mean over the inputs, summed over the outputs.

  Raises:
    ValueError: for shapes that do not fit.

  Example:
    >>> import jax, structinit_jax as si
    >>> w = jax.numpy.eye(2)
    >>> loss = si.lowrank.sampled_objective(jax.random.key(0), w, w, w)
    >>> float(loss)
    0.0

  Source: Vodrahalli et al. (2022), Algorithm 1.
  """
  kernel, u, v = _check_factors(kernel, u, v)
  x = jax.random.normal(
      key, (base.integer('samples', samples, 1), len(kernel)), kernel.dtype)
  if covariance is not None:
    x = linalg.matmul(x, root(covariance, len(kernel))[0])
  difference = (activation(linalg.matmul(x, kernel))
                - activation(linalg.matmul(linalg.matmul(x, u), v)))
  return (difference**2).sum(1).mean()


def svd_gap(kernel: jax.Array, rank: int) -> jax.Array:
  r"""Returns what rescaling the columns of an SVD gains for the ReLU.

  $\frac12 \sum_i |w_i|^2 (h(\rho_i) - \rho_i)^2$ with the cosines $\rho_i$ of
  the columns and their projections: the plain truncation's objective less that
  of the same subspace with the best norms, so a lower bound on what is to gain.

  Args:
    kernel: matrix (in, out).
    rank: of the truncation.

  Returns:
    A scalar.

  Raises:
    ValueError: if the kernel is no matrix, or the rank does not fit it.

  Example:
    >>> import jax, structinit_jax as si
    >>> w = jax.random.normal(jax.random.key(0), (16, 64)) / 4
    >>> key = jax.random.key(1)
    >>> plain = si.lowrank.factorize(key, w, 3, method='spectral')
    >>> best = si.lowrank.factorize(key, w, 3, method='rescaled')
    >>> gap = si.lowrank.objective(w, *plain) - si.lowrank.objective(w, *best)
    >>> bool(abs(gap - si.lowrank.svd_gap(w, 3)) < 1e-4)
    True

  Source: Vodrahalli et al. (2022), theorem 3.5, which divides by `in`.
  """
  kernel = check_matrix('kernel', kernel)
  rank = base.integer('rank', rank, 1, min(kernel.shape))
  left, values, right = jnp.linalg.svd(kernel, full_matrices=False)
  del left
  a = jnp.linalg.norm(kernel, axis=0)
  lengths = jnp.linalg.norm(values[:rank, None] * right[:rank], axis=0)
  rho = jnp.minimum(lengths / jnp.where(a > 0, a, 1), 1)
  best = duals.dual('relu').best_norm(a, rho, lengths)
  return ((best - a * rho)**2).sum() / 2
