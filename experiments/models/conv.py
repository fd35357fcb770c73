"""A convolution that is fast on CPU, also when seeds are vmapped."""

from collections.abc import Sequence
import functools
import operator
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

__all__ = ['conv_general_dilated']

_PLAIN = (None, 1, (1, 1))
_PIXELS = 64  # of a window, from which it is made one axis after the other


def conv_general_dilated(
    lhs: jax.Array, rhs: jax.Array, window_strides: Sequence[int],
    padding: Any, lhs_dilation: Any = None, rhs_dilation: Any = None,
    dimension_numbers: Any = None, feature_group_count: int = 1,
    **kwargs: Any,
) -> jax.Array:
  """Does what `lax.conv_general_dilated` does, by patches times matrix on CPU.

  Inside a scan XLA's CPU convolutions run several times slower than a matrix
  product of the same size, and a vmap over kernels turns them into grouped
  convolutions; `experiments/benchmarks/conv.py` measures both.
  Anything but a plain NHWC convolution, and any other backend, goes to XLA.

  Args:
    lhs: images `(batch, height, width, in)`.
    rhs: kernel `(kh, kw, in, out)`.
    window_strides: `(sh, sw)`.
    padding: 'SAME', 'VALID' or pairs.
    lhs_dilation: as in lax.
    rhs_dilation: as in lax.
    dimension_numbers: as in lax.
    feature_group_count: as in lax.
    **kwargs: passed on to lax.

  Returns:
    Array `(batch, out_height, out_width, out)`.
  """
  plain = (
      jax.default_backend() == 'cpu' and lhs.ndim == 4
      and feature_group_count == 1
      and all(value in (None, 1) for value in kwargs.values())
      and _tuple(lhs_dilation) in _PLAIN
      and _is_nhwc(dimension_numbers))
  if not plain:
    return lax.conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation,
        dimension_numbers, feature_group_count, **kwargs)
  dilation = _tuple(rhs_dilation)
  return _patches_times_matrix(
      lhs, rhs, window_strides, padding,
      (1, 1) if dilation in _PLAIN else dilation)


def _tuple(value: Any) -> Any:
  return tuple(value) if isinstance(value, (list, tuple)) else value


def _is_nhwc(numbers: Any) -> bool:
  return numbers == lax.ConvDimensionNumbers(
      (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def _patches_times_matrix(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any,
    dilation: Sequence[int],
) -> jax.Array:
  kh, kw, c_in, c_out = kernel.shape
  dh, dw = dilation
  windows = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
  batch, height, width, _ = x.shape
  (top, bottom), (left, right) = (
      lax.padtype_to_pads((height, width), windows, strides, padding)
      if isinstance(padding, str) else padding)
  x = jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
  sh, sw = strides
  rows = (height + top + bottom - windows[0]) // sh + 1
  columns = (width + left + right - windows[1]) // sw + 1
  down, across = range(0, kh * dh, dh), range(0, kw * dw, dw)
  if kh * kw < _PIXELS:
    patches = [
        lax.slice(x, (0, i, j, 0),
                  (batch, i + (rows - 1) * sh + 1, j + (columns - 1) * sw + 1,
                   c_in), (1, sh, sw, 1)) for i in down for j in across]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, c_out)
  # XLA computes again in every slice whatever elementwise made the images.
  wide = jnp.concatenate([
      lax.slice(x, (0, 0, j, 0),
                (*x.shape[:2], j + (columns - 1) * sw + 1, c_in),
                (1, 1, sw, 1)) for j in across], axis=-1)
  return functools.reduce(operator.add, [
      lax.slice(wide, (0, i, 0, 0),
                (batch, i + (rows - 1) * sh + 1, columns, kw * c_in),
                (1, sh, 1, 1)) @ row.reshape(-1, c_out)
      for i, row in zip(down, kernel, strict=True)])
