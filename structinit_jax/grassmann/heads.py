"""Initializers of dense kernels: classifier heads and dictionaries."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax.grassmann import descent
from structinit_jax.grassmann import initializers
from structinit_jax.grassmann import spherical

__all__ = ['dictionary', 'simplex_head']

_KINDS = ('lines', 'sphere')


def _check_scale(scale: float) -> float:
  if isinstance(scale, str):
    raise ValueError(f'scale {scale!r} must be a positive, finite float')
  return float(initializers._check_scale(scale))


def _dense(shape: tuple[int, ...], what: str) -> tuple[int, int]:
  if len(shape) != 2:
    raise ValueError(
        f'{what} fills a dense kernel (in, out), 2 axes; shape {shape} has '
        f'{len(shape)}. si.with_axes serves other axis orders')
  return shape[0], shape[1]


def simplex_head(*, scale: float = 1.0) -> base.LeafInit:
  r"""Initializer: a classifier head that is a simplex equiangular tight frame.

  The kernel (features, C) is $scale \sqrt{C / (C-1)} \, U (I_C - 11^T / C)$
  with orthonormal columns U (features, C), uniformly random: columns have norm
  `scale`, every two the cosine $-1 / (C-1)$, the smallest that C vectors can
  all have, and they sum to 0. It is where the last layer of a network trained
  past zero error ends (neural collapse); it may be frozen there from the
  start. As $I - 11^T / C$ has rank C - 1, `features >= C - 1` is enough.

  Args:
    scale: norm of the columns, positive.

  Returns:
    An Initializer of kernels (features, classes). Its
    `aux(key, shape)['simplex']` holds the dimensions and the cosine.

  Raises:
    ValueError: for a scale that is not positive, or (when called) for a shape
      that is not dense, has one class, or too few features.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> head = si.grassmann.simplex_head()(jax.random.key(0), (64, 10))
    >>> cosines = head.T @ head
    >>> round(float(cosines[0, 1]), 4)                            # -1/9
    -0.1111

  Source: Papyan, Han, Donoho, Prevalence of neural collapse during the
    terminal phase of deep learning training, PNAS 117 (2020), definition 1;
    Zhu et al. (2021); Yang et al., Inducing neural collapse in imbalanced
    learning, NeurIPS 2022, eq. (1), where the head is fixed.
  """
  scale = _check_scale(scale)

  def sizes(shape: tuple[int, ...]) -> tuple[int, int]:
    features, classes = _dense(shape, 'a simplex head')
    where = f'simplex head of shape {shape}'
    if features and classes == 1:
      raise ValueError(f'{where}: one class has no simplex; the nearest '
                       'number of classes that works is 2')
    if features and features < classes - 1:
      raise ValueError(
          f'{where}: {classes} classes need at least {classes - 1} features; '
          f'the nearest shapes that work are {(classes - 1, classes)} and '
          f'{(features, features + 1)}')
    return features, classes

  def sample(key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    features, classes = sizes(shape)
    if not math.prod(shape):
      return jnp.zeros(shape, dtype)
    points = spherical.simplex(classes, dtype)
    return scale * spherical.embed(key, points, features).T

  def structure(key: base.Key, shape: tuple[int, ...]) -> dict[str, Any]:
    del key  # which only rotates the simplex
    features, classes = sizes(shape)
    if not math.prod(shape):
      return {}
    return {'simplex': {'dim': features, 'num': classes,
                        'cosine': -1 / (classes - 1)}}

  return base.LeafInit(
      f'grassmann.simplex_head(scale={scale})', sample, structure)


@functools.cache
def _base_code(
    dim: int, num: int, restarts: int | None, steps: int | None,
    seed: int,
) -> tuple[np.ndarray, dict[str, Any]]:
  """Solves one code outside any trace, as `initializers._base_packing`."""
  with (jax.ensure_compile_time_eval(),
        jax.default_device(initializers._host())):
    found = spherical.spherical_code(
        jax.random.key(seed), dim=dim, num=num, restarts=restarts, steps=steps)
    points = np.asarray(found.points, np.float64)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    facts = {'dim': dim, 'num': num, 'cosine': float(found.cosine),
             'bound': found.bound, 'method': found.method}
  return points, facts


def dictionary(
    *, kind: str = 'lines', scale: float = 1.0, restarts: int | None = None,
    steps: int | None = None, seed: int = 0,
) -> base.LeafInit:
  r"""Initializer: an overcomplete dictionary of least coherence.

  The columns of the kernel (in, out), its atoms, are vectors of norm `scale`
  in $R^{in}$:

  * `kind='lines'`: $\max_{i<j} |\langle x_i, x_j \rangle|$ is as small as can
    be, a Grassmannian packing of lines: the coherence that sparse coding asks
    for;
  * `kind='sphere'`: $\max_{i<j} \langle x_i, x_j \rangle$ is, a spherical code:
    what follows by a ReLU, or competes in a softmax, tells an atom from its
    opposite.

  As by `packing`, the atoms of a shape are solved once per process; the key
  draws a Haar rotation and, for lines, signs.

  Args:
    kind: 'lines' or 'sphere'.
    scale: norm of the atoms, positive.
    restarts: random starts of the search, as in `pack`.
    steps: descent steps of each, as in `pack`.
    seed: seed of the search (not of the rotation).

  Returns:
    An Initializer of kernels (in, out). Its `aux(key, shape)` holds
    `'packing'` (lines, see `packing`) or `'spherical_code'`: the dimensions,
    the attained cosine, the bound and the method.

  Raises:
    ValueError: for an unknown option, or (when called) for a shape that is not
      dense, or more than two points on the sphere of $R^1$.

  Example:
    >>> import jax, structinit_jax as si
    >>> init = si.grassmann.dictionary(kind='sphere')
    >>> atoms = init(jax.random.key(0), (8, 16))
    >>> round(abs(float((atoms.T @ atoms - 2 * jax.numpy.eye(16)).max())), 4)
    0.0

  Source: Strohmer and Heath, Grassmannian frames with applications to coding
    and communication, Appl. Comput. Harmon. Anal. 14 (2003); Rankin (1955).
  """
  if kind not in _KINDS:
    raise ValueError(f'kind {kind!r} is unknown; use {" or ".join(_KINDS)}')
  scale = _check_scale(scale)
  restarts, steps, seed = descent.options(restarts, steps, seed)
  # Atoms are the filters of a convolution with `in` taps and one channel.
  lines = initializers.packing(
      layout='filters', scale=scale, restarts=restarts, steps=steps, seed=seed)

  def as_filters(shape: tuple[int, ...]) -> tuple[int, int, int]:
    size, atoms = _dense(shape, 'a dictionary')
    return size, 1, atoms

  def sample_lines(
      key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return lines.sample(key, as_filters(shape), dtype).reshape(shape)

  def describe_lines(
      key: base.Key, shape: tuple[int, ...]) -> dict[str, Any]:
    return lines.aux(key, as_filters(shape))

  def solve(dim: int, num: int) -> tuple[np.ndarray, dict[str, Any]]:
    return _base_code(dim, num, restarts, steps, seed)

  def sample_code(
      key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    dim, num = _dense(shape, 'a dictionary')
    if not math.prod(shape):
      return jnp.zeros(shape, dtype)
    if num == 1:
      return scale * linalg.haar(key, shape, dtype)
    closed = spherical.closed_form(dim, num, dtype)
    points = jnp.asarray(solve(dim, num)[0], dtype) if closed is None else (
        closed[0])
    return scale * spherical.embed(key, points, dim).T

  def describe_code(
      key: base.Key, shape: tuple[int, ...]) -> dict[str, Any]:
    del key  # which only rotates the code
    dim, num = _dense(shape, 'a dictionary')
    if num < 2 or not math.prod(shape):
      return {}
    return {'spherical_code': dict(solve(dim, num)[1])}

  label = f'grassmann.dictionary(kind={kind!r}, scale={scale})'
  if kind == 'lines':
    return base.LeafInit(label, sample_lines, describe_lines)
  return base.LeafInit(label, sample_code, describe_code)
