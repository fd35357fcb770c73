"""Convolutions with two factors in place of a kernel."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from structinit_jax import windows
from structinit_jax.lowrank import forms

__all__ = ['conv']


def conv(
    x: jax.Array, u: jax.Array, v: jax.Array, *,
    strides: int | Sequence[int] | None = 1,
    padding: int | str | Sequence[tuple[int, int]] = 'SAME',
    dilation: int | Sequence[int] | None = 1, precision: Any = None,
    conv_general_dilated: Callable[..., jax.Array] = lax.conv_general_dilated,
) -> jax.Array:
  """Convolves with a factorised kernel: two convolutions in a row.

  What `lax.conv_general_dilated` does with `merge(u, v)`, in any of the forms.
  Strides, padding and dilation of an axis go to the factor whose window spans
  it; feature groups are read from the shapes.

  Args:
    x: images (*batch, *spatial, in).
    u: first factor (*k, in / groups, groups * r).
    v: second factor (*l, r, out).
    strides: one for all spatial axes, or one each.
    padding: pairs, an int or a name, as of `flax.linen.Conv`; not 'REFLECT'.
    dilation: of the kernel; one for all axes, or one each.
    precision: as of `jax.lax.dot`.
    conv_general_dilated: what computes each, called as that of `jax.lax` is.

  Returns:
    Images (*batch, *spatial, out).

  Raises:
    ValueError: if the factors are none of a convolution, or do not fit x.

  Example:
    >>> import jax, structinit_jax as si
    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> u = jax.random.normal(keys[0], (1, 3, 8, 2))
    >>> v = jax.random.normal(keys[1], (3, 1, 2, 4))
    >>> x = jax.random.normal(keys[2], (2, 9, 9, 8))
    >>> y = si.lowrank.conv(x, u, v, strides=2)
    >>> z = jax.lax.conv_general_dilated(
    ...     x, si.lowrank.merge(u, v), (2, 2), 'SAME',
    ...     dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    >>> y.shape, bool(abs(y - z).max() < 1e-4)
    ((2, 5, 5, 4), True)

  Source: Khodak et al. (2021), section 3.
  """
  form = forms.form(u.shape, v.shape)
  ndim = u.ndim - 2
  if u.ndim != v.ndim or x.ndim <= ndim or (
      x.shape[-1] != form.count * u.shape[-2]):
    raise ValueError(
        f'x of shape {x.shape} is not for factors of shapes {u.shape} and '
        f'{v.shape}: they need images (*batch, *spatial, '
        f'{form.count * u.shape[-2]}) of {ndim} spatial axes')
  strides = windows.per_axis('strides', strides, ndim)
  dilation = windows.per_axis('dilation', dilation, ndim)
  batch, spatial = x.shape[:-ndim - 1], x.shape[-ndim - 1:-1]
  pads = windows.pads(
      padding, spatial, windows.spans(form.kernel[:-2], dilation), strides)
  x = x.reshape(-1, *x.shape[-ndim - 1:])
  if windows.is_circular(padding):
    x = windows.pad(x, [(0, 0), *pads, (0, 0)], padding)
    pads = [(0, 0)] * ndim
  elif any(min(pair) < 0 for pair in pads):  # XLA's CPU convolution errs there
    cuts = [(min(low, 0), min(high, 0)) for low, high in pads]
    x = windows.pad(x, [(0, 0), *cuts, (0, 0)], padding)
    pads = [(max(low, 0), max(high, 0)) for low, high in pads]
  axes = 'xyzabc'[:ndim]
  layout = (f'N{axes}C', f'{axes}IO', f'N{axes}C')
  for kernel, second in ((u, False), (v, True)):
    # An axis that neither spans is strided at once, which saves the most.
    mine = [(v.shape[i] > 1) == second for i in range(ndim)]
    numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, layout)
    x = conv_general_dilated(
        x, kernel,
        [s if own else 1 for s, own in zip(strides, mine, strict=True)],
        [p if own else (0, 0) for p, own in zip(pads, mine, strict=True)],
        rhs_dilation=[
            s if own else 1 for s, own in zip(dilation, mine, strict=True)],
        dimension_numbers=numbers, feature_group_count=form.count,
        precision=precision)
  return x.reshape(*batch, *x.shape[1:])
