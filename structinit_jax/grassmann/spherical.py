"""Spherical codes: unit vectors as far apart as possible, signs included."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax.grassmann import descent

__all__ = [
    'SphericalCode', 'closed_form', 'embed', 'simplex', 'spherical_code',
]

_ATTAINED = 1e-6


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('points', 'cosine', 'origin'),
    meta_fields=('methods', 'bound'))
@dataclasses.dataclass(frozen=True)
class SphericalCode:
  """Unit vectors of R^dim and how close the closest two are.

  Attributes:
    points: `(num, dim)`.
    cosine: the largest inner product of two points, measured on `points`.
    origin: which of `methods` it is due to, an integer.
    methods: the ways that were tried (static).
    bound: proven lower bound on the cosine (static).
  """

  points: jax.Array
  cosine: jax.Array
  origin: jax.Array
  methods: tuple[str, ...]
  bound: float

  @property
  def method(self) -> str:
    """'simplex', 'orthoplex' or 'polygon' (optimal), or as `Packing.method`."""
    return descent.method(self.origin, self.methods)


def _bound(dim: int, num: int) -> float:
  if num <= dim + 1:
    return -1 / (num - 1)
  if dim == 2:
    return math.cos(2 * math.pi / num)
  if dim == 3:
    omega = num / (num - 2) * math.pi / 6
    return max(0.0, (1 / math.tan(omega)**2 - 1) / 2)
  return 0.0


def simplex(num: int, dtype: Any = None) -> jax.Array:
  r"""Returns the vertices of a regular simplex, as unit vectors.

  The columns of the centring matrix, $\sqrt{C / (C-1)} (I - 11^T / C)$, in
  orthonormal coordinates of the hyperplane $1^\perp$ that they span.

  Args:
    num: number C of vertices, at least 2.
    dtype: float32 (default) or float64.

  Returns:
    Array `(num, num - 1)`; inner products are -1 / (num - 1).

  Example:
    >>> from structinit_jax.grassmann import spherical
    >>> spherical.simplex(3).shape
    (3, 2)

  Source: the columns are those of Papyan, Han, Donoho (2020), definition 1.
  """
  # A reflection takes the first axis to the diagonal, the others to 1^perp.
  rest = jnp.eye(num - 1, dtype=dtype) - 1 / (num - math.sqrt(num))
  first = jnp.full((1, num - 1), 1 / math.sqrt(num), dtype)
  return math.sqrt(num / (num - 1)) * jnp.concatenate([first, rest])


def embed(key: base.Key, points: jax.Array, dim: int) -> jax.Array:
  """Maps points to a larger space by a random isometry, uniformly.

  As `linalg.haar_rotate`, but of only as many reflections as the points have
  coordinates; one unpartitioned call too, with the same bits everywhere.

  Args:
    key: a JAX PRNG key.
    points: `(num, n)`, float32 or float64.
    dim: dimension of the space, at least n.

  Returns:
    Points `(num, dim)` with the same inner products.

  Example:
    >>> import jax
    >>> from structinit_jax.grassmann import spherical
    >>> spherical.embed(jax.random.key(0), spherical.simplex(3), 8).shape
    (3, 8)

  Source: F. Mezzadri, How to generate random matrices from the classical
    compact groups, Notices of the AMS 54 (2007).
  """
  size = points.shape[1]
  gaussian = jax.random.normal(key, (dim, size), points.dtype)
  reflectors, taus = jnp.linalg.qr(gaussian, mode='raw')
  # Without the signs of the diagonal it would not be Haar distributed.
  flips = jnp.diagonal(reflectors) < 0
  columns = jnp.where(flips[:, None], -points.T, points.T)
  columns = jnp.pad(columns, ((0, dim - size), (0, 0)))
  return jax.lax.linalg.ormqr(reflectors.mT, taus, columns).T


def closed_form(
    dim: int, num: int, dtype: Any) -> tuple[jax.Array, str] | None:
  """Returns optimal points `(num, <= dim)` and their name, or None."""
  if num <= dim + 1:
    return simplex(num, dtype), 'simplex'
  if num <= 2 * dim:
    basis = jnp.eye(dim, dtype=dtype)
    return jnp.concatenate([basis, -basis])[:num], 'orthoplex'
  if dim == 2:
    angles = jnp.arange(num, dtype=dtype) * (2 * math.pi / num)
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1), 'polygon'
  return None


@functools.partial(jax.jit, static_argnames='dim')
def _embedded(
    key: base.Key, points: jax.Array, dim: int) -> tuple[jax.Array, jax.Array]:
  """Returns the points in R^dim, and their largest cosine."""
  points = embed(key, points, dim)
  gram = linalg.matmul(points, points.T)
  return points, jnp.max(
      jnp.where(jnp.eye(len(gram), dtype=bool), -jnp.inf, gram))


def spherical_code(
    key: base.Key, *, dim: int, num: int, restarts: int | None = None,
    steps: int | None = None, dtype: Any = None,
) -> SphericalCode:
  r"""Spreads unit vectors: minimises $\max_{i<j} \langle x_i, x_j \rangle$.

  Optimal, and known by a formula:

  * `num <= dim + 1`: the regular simplex, $-1 / (N-1)$;
  * `num <= 2 dim`: vectors $\pm e_i$ of an orthonormal basis, 0;
  * `dim = 2`: the regular polygon, $\cos(2 \pi / N)$.

  Otherwise the search of `pack`, with inner products for similarities. The
  bound is then 0, or, in three dimensions, $(\cot^2 \omega - 1) / 2$ with
  $\omega = \frac{N}{N-2} \frac{\pi}{6}$. Unlike lines (`pack` with rank 1), a
  vector and its opposite are different points here.

  Args:
    key: a JAX PRNG key.
    dim: dimension of the space.
    num: number N of points, at least 2.
    restarts: random starts to try, as in `pack`.
    steps: descent steps of each, as in `pack`.
    dtype: float32 (default), or float64 under `jax.enable_x64`.

  Returns:
    A SphericalCode.

  Raises:
    ValueError: for sizes that make no code.

  Example:
    >>> import jax, structinit_jax as si
    >>> code = si.grassmann.spherical_code(jax.random.key(0), dim=3, num=6)
    >>> code.points.shape, code.method                      # octahedron
    ((6, 3), 'orthoplex')

  Source: Rankin, The closest packing of spherical caps in n dimensions, Proc.
    Glasgow Math. Assoc. 2 (1955); L. Fejes Toth (1943) for three dimensions.
  """
  dim, num = base.integer('dim', dim), base.integer('num', num)
  where = f'spherical code of num={num} points in R^dim, dim={dim}'
  if num < 2:
    raise ValueError(f'{where}: num must be at least 2')
  if dim < 1:
    raise ValueError(f'{where}: dim must be at least 1')
  if dim == 1 and num > 2:
    raise ValueError(
        f'{where}: a line has two unit vectors; num must be 2, or dim at '
        'least 2')
  restarts, steps, _ = descent.options(restarts, steps)
  base.check_key(key)
  descent.check_size(
      where, dim, 1, num, closed=2 * dim if dim != 2 else num)
  dtype = base.compute_dtype(jnp.float32 if dtype is None else dtype)
  bound = _bound(dim, num)
  closed = closed_form(dim, num, dtype)
  if closed is not None:
    points, cosine = _embedded(key, closed[0], dim)
    return SphericalCode(
        points, cosine, jnp.zeros((), jnp.int32), (closed[1],), bound)
  found = descent.search(
      key, dim=dim, rank=1, num=num, metric='spherical',
      target=bound + _ATTAINED, restarts=restarts, steps=steps, dtype=dtype)
  return SphericalCode(found.frames[..., 0], found.similarity, found.origin,
                       found.methods, bound)
