"""Linear algebra that structured initializers share.

Products are exact to the dtype: accelerators round float32 inputs of a matrix
product to fewer bits unless told otherwise, which would cost an orthonormal
basis its orthonormality, so every product here asks for the highest precision.
"""

from typing import Any

import jax
import jax.numpy as jnp

from structinit_jax import base

__all__ = [
    'haar', 'haar_rotate', 'matmul', 'newton_schulz', 'principal_angles',
]


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
  """Returns `a @ b`, exact to the dtype on every backend.

  Args:
    a: array `(..., m, n)`.
    b: array `(..., n, p)`.

  Returns:
    Array `(..., m, p)`.
  """
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def haar(key: base.Key, shape: base.Shape, dtype: Any = None) -> jax.Array:
  """Samples matrices with orthonormal columns (rows, if wide), uniformly.

  Q of the QR factorisation of a Gaussian matrix, each column multiplied by
  the sign of R's diagonal: without it Q is not Haar distributed.

  Args:
    key: a JAX PRNG key.
    shape: `(..., m, n)`.
    dtype: float32 (default) or float64.

  Returns:
    Array of that shape with `Q^T Q = I` if `m >= n`, else `Q Q^T = I`.

  Source: F. Mezzadri, How to generate random matrices from the classical
    compact groups, Notices of the AMS 54 (2007).
  """
  *batch, m, n = shape
  dtype = jnp.float32 if dtype is None else dtype
  x = jax.random.normal(key, (*batch, max(m, n), min(m, n)), dtype)
  q, r = jnp.linalg.qr(x)
  q = q * _signs(r)[..., None, :]
  return q if m >= n else q.mT


def _signs(r: jax.Array) -> jax.Array:
  diagonal = jnp.diagonal(r, axis1=-2, axis2=-1)
  return jnp.where(diagonal < 0, -1, 1).astype(r.dtype)


def haar_rotate(key: base.Key, x: jax.Array) -> jax.Array:
  """Multiplies a matrix from the left by a random orthogonal matrix.

  Householder reflectors are applied without forming the matrix. They are one
  unpartitioned call, so the result has the same bits under every sharding.

  Args:
    key: a JAX PRNG key.
    x: array `(m, n)`, float32 or float64.

  Returns:
    `Q x` with Haar-distributed `Q (m, m)`.
  """
  m = x.shape[0]
  gaussian = jax.random.normal(key, (m, m), x.dtype)
  reflectors, taus = jnp.linalg.qr(gaussian, mode='raw')
  signs = _signs(reflectors)
  return jax.lax.linalg.ormqr(reflectors.mT, taus, signs[:, None] * x)


def newton_schulz(x: jax.Array, steps: int = 1) -> jax.Array:
  """Moves nearly orthonormal columns to orthonormal ones by matrix products.

  `x <- x (3 I - x^T x) / 2`: an error `e` in `x^T x` becomes `3 e^2 / 4`, and
  the limit is the polar factor of `x`, the closest orthonormal matrix.

  Args:
    x: array `(..., m, k)` with singular values below `sqrt(3)`.
    steps: how many iterations.

  Returns:
    Array of the same shape.

  Source: N. J. Higham, Functions of Matrices (SIAM, 2008), section 8.3.
  """
  for _ in range(steps):
    x = 1.5 * x - 0.5 * matmul(x, matmul(x.mT, x))
  return x


def principal_angles(s: jax.Array, t: jax.Array) -> jax.Array:
  """Returns the principal angles between subspaces, accurate at every size.

  Cosines are the singular values of `S^T T`, sines those of `T - S S^T T`;
  their atan2 keeps full relative accuracy near 0, where arccos has none, and
  near pi/2, where arcsin has none.

  Args:
    s: orthonormal frames `(..., m, k)`.
    t: orthonormal frames `(..., m, k)`.

  Returns:
    Angles `(..., k)` in radians, ascending, in [0, pi/2].

  Source: A. Bjorck and G. H. Golub, Numerical methods for computing angles
    between linear subspaces, Math. Comp. 27 (1973).
  """
  overlap = matmul(s.mT, t)
  cosines = jnp.linalg.svd(overlap, compute_uv=False)
  sines = jnp.linalg.svd(t - matmul(s, overlap), compute_uv=False)
  return jnp.arctan2(sines[..., ::-1], cosines)
