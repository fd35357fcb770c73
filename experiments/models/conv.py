"""A convolution that is fast on CPU, also when seeds are vmapped."""

from collections.abc import Sequence
import itertools
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

__all__ = ['conv_general_dilated']

_PLAIN = (None, 1, (1, 1))
_PIXELS = 64  # of a window, from which outputs are made by tiles
_TILE = 4  # outputs a side


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
  if min(rows, columns, batch) < 1:
    return jnp.zeros((batch, max(rows, 0), max(columns, 0), c_out), x.dtype)
  if kh * kw < _PIXELS:
    patches = [
        lax.slice(x, (0, i, j, 0),
                  (batch, i + (rows - 1) * sh + 1, j + (columns - 1) * sw + 1,
                   c_in), (1, sh, sw, 1))
        for i in range(0, kh * dh, dh) for j in range(0, kw * dw, dw)]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, c_out)
  return _tiles_times_matrix(
      x, kernel, (sh, sw), windows, dilation, (rows, columns))


def _tiles_times_matrix(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int],
    windows: Sequence[int], dilation: Sequence[int], places: Sequence[int],
) -> jax.Array:
  """Makes tiles of outputs of the union of their windows, by one product.

  Large windows overlap, so that most of the time goes into writing patches. The
  outputs of a tile share one; it is as large as all their windows together, and
  each has the kernel at another place in it, among zeros.
  """
  c_out = kernel.shape[-1]
  tile = [min(_TILE, count) for count in places]
  counts = [math.ceil(n / t) for n, t in zip(places, tile, strict=True)]
  steps = [t * s for t, s in zip(tile, strides, strict=True)]
  spans = [w + (t - 1) * s
           for w, t, s in zip(windows, tile, strides, strict=True)]
  ends = [(n - 1) * step for n, step in zip(counts, steps, strict=True)]
  x = lax.pad(x, jnp.zeros((), x.dtype), [
      (0, 0, 0),
      *((0, end + span - size, 0)
        for end, span, size in zip(ends, spans, x.shape[1:3], strict=True)),
      (0, 0, 0)])
  for axis in (1, 0):
    x = jnp.concatenate([
        lax.slice_in_dim(x, i, i + ends[axis] + 1, steps[axis], axis + 1)
        for i in range(spans[axis])], axis=-1)
  kernels = jnp.stack([
      lax.pad(kernel, jnp.zeros((), kernel.dtype), [
          *((i * s, span - w - i * s, d - 1) for i, s, span, w, d in zip(
              place, strides, spans, windows, dilation, strict=True)),
          (0, 0, 0), (0, 0, 0)])
      for place in itertools.product(*map(range, tile))], axis=3)
  y = x @ kernels.reshape(x.shape[-1], -1)
  y = y.reshape(len(x), *counts, *tile, c_out).transpose(0, 1, 3, 2, 4, 5)
  y = y.reshape(len(x), counts[0] * tile[0], counts[1] * tile[1], c_out)
  return y[:, :places[0], :places[1]]
