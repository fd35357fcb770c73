"""Rivals of sparse orthogonal kernels that are sparse from the start."""

from collections.abc import Callable
import functools
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax.pruning import methods

__all__ = ['givens', 'normal', 'uniform']

_SCALES = ('none', 'fan_in')


def _independent(
    name: str, draw: Callable[..., jax.Array], like: Any, scale: str,
    gain: float,
) -> base.LeafInit:
  """Makes an Initializer of independent values on the mask of another."""
  methods.check_like(like)
  if scale not in _SCALES:
    raise ValueError(f'scale {scale!r} is unknown; use {" or ".join(_SCALES)}')
  gain = base.positive('gain', gain)

  def sample(key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    mask = methods.mask_of(like, key, shape)
    values = gain * draw(jax.random.split(key)[1], shape, dtype)
    if scale == 'fan_in':
      inputs = mask.sum(axis=tuple(range(mask.ndim - 1)), keepdims=True)
      inputs = jnp.maximum(inputs, 1).astype(dtype)
      values = values * jnp.broadcast_to(1 / jnp.sqrt(inputs), shape)
    return jnp.where(mask, values, jnp.zeros((), dtype))

  label = f'pruning.{name}({like!r}, scale={scale!r}' + (
      f', gain={gain})' if gain != 1 else ')')
  return base.LeafInit(label, sample, like.aux)


def normal(
    like: Any, *, scale: str = 'none', gain: float = 1.0) -> base.LeafInit:
  r"""Initializer, RG-N: normal values on the mask of another initializer.

  * `scale='none'`, the thesis's: N(0, 1). With d inputs an output has the
    variance d, and a deep network explodes or saturates.
  * `scale='fan_in'`: N(0, 1/d) by output, which keeps the variance: a fair
    rival.

  Args:
    like: an Initializer with masks, such as `si.sao.orthogonal(degree=4)`.
      With the same key the mask is the same. In a convolution all taps of a
      kept kernel are drawn.
    scale: 'none' or 'fan_in', d being the weights of an output that are kept.
    gain: multiplies all.

  Returns:
    An Initializer whose `aux` is that of `like`.

  Raises:
    ValueError: for an initializer without masks or an unknown scale; when
      called, as `like`.

  Example:
    >>> import jax, structinit_jax as si
    >>> init = si.pruning.normal(si.sao.orthogonal(degree=4), scale='fan_in')
    >>> kernel = init(jax.random.key(0), (256, 128))
    >>> int((kernel != 0).sum())
    512

  Source: Esguerra (2023), section 3.5.4.
  """
  return _independent('normal', jax.random.normal, like, scale, gain)


def uniform(
    like: Any, *, scale: str = 'none', gain: float = 1.0) -> base.LeafInit:
  r"""Initializer, RG-U: uniform values on the mask of another initializer.

  * `scale='none'`, the thesis's: U[0, 1), whose mean is not 0: every block
    has a singular value near $\sqrt{c d} / 2$.
  * `scale='fan_in'`: $U[-\sqrt{3/d}, \sqrt{3/d}]$ by output, of mean 0 and
    variance 1/d: a fair rival.

  Args:
    like: as of `normal`.
    scale: as of `normal`.
    gain: as of `normal`.

  Returns:
    An Initializer, as `normal`.

  Raises:
    ValueError: as `normal`.

  Example:
    >>> import jax, structinit_jax as si
    >>> init = si.pruning.uniform(si.sao.orthogonal(degree=12), scale='fan_in')
    >>> bool(abs(init(jax.random.key(0), (96, 96))).max() <= 0.5)
    True

  Source: Esguerra (2023), section 3.5.4.
  """
  low, high = (0.0, 1.0) if scale == 'none' else (-math.sqrt(3), math.sqrt(3))
  draw = functools.partial(jax.random.uniform, minval=low, maxval=high)
  return _independent('uniform', draw, like, scale, gain)


def _pair(
    key: base.Key, step: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """Draws two different rows."""
  first_key, second_key = jax.random.split(jax.random.fold_in(key, step))
  first = jax.random.randint(first_key, (), 0, size, jnp.int32)
  second = jax.random.randint(second_key, (), 0, size - 1, jnp.int32)
  return first, jnp.where(second < first, second, second + 1)


@functools.partial(jax.jit, static_argnames=('size', 'rank', 'nnz'))
def _support(
    key: base.Key, size: int, rank: int, nnz: int
) -> tuple[jax.Array, jax.Array]:
  """Returns where a product of rotations is not 0, and how many they are.

  A rotation of two rows gives both the union of their supports. It ends with
  the rotation that comes nearest to `nnz` entries.
  """

  def unfinished(state: tuple[jax.Array, ...]) -> jax.Array:
    _, count, _, done = state
    return (count < nnz) & ~done

  def rotate(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    mask, count, step, _ = state
    i, j = _pair(key, step, size)
    union = mask[i] | mask[j]
    more = count + 2 * union.sum() - mask[i].sum() - mask[j].sum()
    done = more - nnz > nnz - count
    rows = jnp.where(done, mask[jnp.stack([i, j])], union[None])
    return (mask.at[jnp.stack([i, j])].set(rows), jnp.where(done, count, more),
            jnp.where(done, step, step + 1), done)

  start = (jnp.eye(size, rank, dtype=bool), jnp.array(rank), jnp.array(0),
           jnp.array(False))
  mask, _, steps, _ = jax.lax.while_loop(unfinished, rotate, start)
  return mask, steps


@functools.partial(jax.jit, static_argnames=('size', 'rank', 'nnz', 'dtype'))
def _rotated(
    key: base.Key, size: int, rank: int, nnz: int, dtype: Any) -> jax.Array:
  """Returns the product whose support is `_support`."""
  pair_key, angle_key = jax.random.split(key)
  _, steps = _support(pair_key, size, rank, nnz)

  def rotate(step: jax.Array, x: jax.Array) -> jax.Array:
    i, j = _pair(pair_key, step, size)
    angle = jax.random.uniform(
        jax.random.fold_in(angle_key, step), (), dtype, maxval=2 * math.pi)
    c, s = jnp.cos(angle), jnp.sin(angle)
    rows = jnp.stack([c * x[i] + s * x[j], c * x[j] - s * x[i]])
    return x.at[jnp.stack([i, j])].set(rows)

  return jax.lax.fori_loop(0, steps, rotate, jnp.eye(size, rank, dtype=dtype))


def givens(*, density: float, gain: float = 1.0) -> base.LeafInit:
  r"""Initializer, EOI: a product of random plane rotations, sparse and exact.

  Starting from the identity (n, m), two rows of the larger side are drawn and
  rotated by an angle in $[0, 2 \pi)$, again and again, until the number of
  nonzeros is as near as it comes to `density * n * m`. All singular values are
  the gain. In a convolution the matrix is at the centre, `(k - 1) // 2`, and
  whole kernels are kept or removed, as in `sao.delta_orthogonal`.

  The mask is irregular: units have very different numbers of weights, and
  where n is not m some of the larger side have none. So a product with it
  needs indices, and no number of layers is sure to connect everything.

  Args:
    density: the fraction of weights (of kernels, in a convolution) that exist,
      at least 1 / max(in, out). A rotation brings at most min(in, out) more
      nonzeros, so the density is met within 1 / (2 max(in, out)).
    gain: all min(in, out) singular values.

  Returns:
    An Initializer of kernels (*spatial, in, out). Its `aux` holds the `mask`.
    It takes one small step a rotation, some n log(density * n) of them.

  Raises:
    ValueError: for a density out of range; when called, for one below
      1 / max(in, out), which no orthogonal matrix has, or fewer than 2 axes.

  Example:
    >>> import jax, structinit_jax as si
    >>> init = si.pruning.givens(density=0.25)
    >>> kernel = init(jax.random.key(0), (32, 16))
    >>> bool(abs((kernel != 0).mean() - 0.25) <= 1 / 64)
    True
    >>> bool(abs(kernel.T @ kernel - jax.numpy.eye(16)).max() < 1e-6)
    True

  Source: Nowak et al., Sparser, Better, Deeper, Stronger: Improving Static
    Sparse Training with Exact Orthogonal Initialization, ICML 2024.
  """
  if not (isinstance(density, numbers.Real) and 0 < density <= 1):
    raise ValueError(
        f'density={density!r} must be a number above 0 and at most 1 (dense)')
  density = float(density)
  gain = base.positive('gain', gain)

  def plan(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) < 2:
      raise ValueError(
          'an orthogonal kernel is (*spatial, in, out), at least 2 axes; '
          f'shape {shape} has {len(shape)}. Give other leaves a rule of their '
          'own; si.with_axes serves other axis orders')
    rank, size = sorted(shape[-2:])
    nnz = round(density * size * rank)
    if nnz < rank:
      raise ValueError(
          f'kernel of shape {shape}: density={density} leaves {nnz} nonzeros, '
          f'and {rank} orthogonal vectors need one each; the nearest density '
          f'that works is {1 / size:.6g}')
    return size, rank, nnz

  def sample(key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    size, rank, nnz = plan(shape)
    if not math.prod(shape):
      return jnp.zeros(shape, dtype)
    matrix = gain * _rotated(key, size, rank, nnz, dtype)
    matrix = matrix if shape[-2] == size else matrix.T
    centre = tuple((k - 1) // 2 for k in shape[:-2])
    return jnp.zeros(shape, dtype).at[centre].set(matrix)

  def structure(key: base.Key, shape: tuple[int, ...]) -> dict[str, Any]:
    size, rank, nnz = plan(shape)
    if not math.prod(shape):
      return {}
    mask, _ = _support(jax.random.split(key)[0], size, rank, nnz)
    mask = mask if shape[-2] == size else mask.T
    return {'mask': jnp.broadcast_to(mask, shape)}

  label = f'pruning.givens(density={density}' + (
      f', gain={gain})' if gain != 1 else ')')
  return base.LeafInit(label, sample, structure)
