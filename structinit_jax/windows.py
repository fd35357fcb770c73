"""Sizes, strides, dilations and paddings of convolutions, by axis."""

from collections.abc import Sequence
import numbers
import operator
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

__all__ = [
    'PADDINGS', 'is_circular', 'kernel_sizes', 'pad', 'pads', 'per_axis',
    'spans',
]

_OF_LAX = 'SAME', 'SAME_LOWER', 'VALID'
PADDINGS = *_OF_LAX, 'CIRCULAR', 'CAUSAL'


def per_axis(name: str, value: Any, ndim: int) -> tuple[int, ...]:
  """Returns a positive integer for every spatial axis.

  Args:
    name: what to call it in an error.
    value: one integer for all axes, or a sequence of one each; None is 1.
    ndim: number of spatial axes.

  Returns:
    The integers.

  Raises:
    ValueError: if it is neither.

  Example:
    >>> from structinit_jax import windows
    >>> windows.per_axis('strides', 2, 3)
    (2, 2, 2)

  Source: the convention of `flax.linen.Conv`.
  """
  value = 1 if value is None else value
  try:
    found = tuple(operator.index(size) for size in (
        value if isinstance(value, Sequence) else (value,) * ndim))
  except TypeError:
    found = ()
  if len(found) != ndim or any(size < 1 for size in found):
    raise ValueError(
        f'{name}={value!r} must be a positive int, or {ndim} of them, one for '
        'every spatial axis of the kernel')
  return found


def kernel_sizes(
    name: str, value: Any, ndim: int | None = None) -> tuple[int, ...]:
  """Returns the sizes of a kernel, a positive integer for every spatial axis.

  One integer is refused: how many axes it stands for, it does not say.

  Args:
    name: what to call it in an error.
    value: a sequence of integers of any type.
    ndim: number of spatial axes, if it is known.

  Returns:
    The sizes.

  Raises:
    ValueError: if it is none.

  Example:
    >>> from structinit_jax import windows
    >>> windows.kernel_sizes('kernel_size', [3, 4])
    (3, 4)

  Source: `kernel_size` of `flax.linen.Conv`.
  """
  try:
    found = tuple(operator.index(size) for size in value)
  except TypeError:
    found = ()
  if not found or ndim not in (None, len(found)) or min(found) < 1:
    near = tuple(max(size, 1) for size in (found or (3,)) * 2)[
        :ndim or len(found) or 2]
    raise ValueError(
        f'{name}={value!r} must be a sequence of '
        f'{"positive ints" if ndim is None else f"{ndim} positive ints"}, one '
        f'for every spatial axis of the kernel, such as {near}')
  return found


def spans(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
  """Returns how many pixels a dilated kernel spans, `(k - 1) * dilation + 1`.

  Args:
    kernel: its sizes.
    dilation: one for every axis.

  Returns:
    The spans.

  Example:
    >>> from structinit_jax import windows
    >>> windows.spans((3, 4), (1, 2))
    (3, 7)

  Source: the definition of a dilated convolution.
  """
  return tuple(
      (k - 1) * step + 1 for k, step in zip(kernel, dilation, strict=True))


def is_circular(padding: Any) -> bool:
  """Tells whether images are continued periodically.

  Args:
    padding: of a convolution, of any type.

  Returns:
    Whether it is 'CIRCULAR'.

  Example:
    >>> from structinit_jax import windows
    >>> windows.is_circular('CIRCULAR'), windows.is_circular([(1, 1)])
    (True, False)

  Source: the convention of `flax.linen.Conv`.
  """
  return isinstance(padding, str) and padding == 'CIRCULAR'


def _sides(pad: Any) -> tuple[int, int]:
  """Returns a pair of integers, of one the same for both sides."""
  low, high = (pad, pad) if isinstance(pad, numbers.Integral) else pad
  return operator.index(low), operator.index(high)


def pads(
    padding: Any, spatial: Sequence[int], window: Sequence[int],
    strides: Sequence[int],
) -> list[tuple[int, int]]:
  """Returns how many pixels are added before and after, on every axis.

  Args:
    padding: 'SAME', 'SAME_LOWER', 'VALID', 'CIRCULAR', of one axis 'CAUSAL', or
      pairs of integers, one for every axis; one integer is both sides of an
      axis, or of all of them.
    spatial: sizes of the image.
    window: spans of the kernel, as of `spans`.
    strides: one for every axis.

  Returns:
    Pairs; negative ones, of pairs that were given, cut.

  Raises:
    ValueError: if the padding is none of these.

  Example:
    >>> from structinit_jax import windows
    >>> windows.pads('SAME', (8, 8), (3, 4), (1, 1))
    [(1, 1), (1, 2)]
    >>> windows.pads((2, (0, 1)), (8, 8), (3, 4), (1, 1))
    [(2, 2), (0, 1)]

  Source: `jax.lax.padtype_to_pads`, and `flax.linen.Conv` of 'CIRCULAR' and
    'CAUSAL'.
  """
  if is_circular(padding):
    return [((size - 1) // 2, size // 2) for size in window]
  if isinstance(padding, str) and padding in _OF_LAX:
    return lax.padtype_to_pads(spatial, window, strides, padding)
  if isinstance(padding, str) and padding == 'CAUSAL' and len(spatial) == 1:
    return [(window[0] - 1, 0)]
  if isinstance(padding, numbers.Integral):
    padding = [padding] * len(spatial)
  try:
    found = [] if isinstance(padding, str) else [*map(_sides, padding)]
  except (TypeError, ValueError):
    found = []
  if len(found) != len(spatial):
    raise ValueError(
        f"padding={padding!r} is neither 'SAME', 'SAME_LOWER', 'VALID', "
        f"'CIRCULAR', of one axis 'CAUSAL', an int nor {len(spatial)} pairs of "
        'ints, one for every spatial axis of the kernel')
  return found


def pad(
    x: jax.Array, pads: Sequence[tuple[int, int]], padding: Any) -> jax.Array:
  """Returns an array continued as a convolution continues its images.

  Args:
    x: array.
    pads: how many entries are added before and after, on every axis; negative
      ones are cut, but not of circular ones.
    padding: as of `pads`: 'CIRCULAR' continues periodically, others by zeros.

  Returns:
    The larger array.

  Example:
    >>> import jax.numpy as jnp
    >>> from structinit_jax import windows
    >>> windows.pad(jnp.arange(3), [(1, 1)], 'CIRCULAR').tolist()
    [2, 0, 1, 2, 0]
    >>> windows.pad(jnp.arange(3), [(2, -1)], 'SAME').tolist()
    [0, 0, 0, 1]

  Source: `jax.lax.pad`, and `flax.linen.Conv` of 'CIRCULAR'.
  """
  if is_circular(padding):
    return jnp.pad(x, pads, mode='wrap')
  return lax.pad(  # not jnp.pad, which refuses to cut
      x, jnp.zeros((), x.dtype), [(low, high, 0) for low, high in pads])
