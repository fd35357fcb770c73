"""Which axes of a kernel are the matrix.

Initializers here and in `jax.nn.initializers` read a kernel as Flax lays it
out: `(*spatial, in, out)`. `Axes` states where those axes are in any other
layout, and `with_axes` lets an initializer serve it: Equinox `(out, in)` and
OIHW, fused attention heads `(in, heads, head_dim)`, layers stacked by a scan.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from structinit_jax import base

__all__ = ['HWIO', 'IO', 'OI', 'OIHW', 'Axes', 'with_axes']


@dataclasses.dataclass(frozen=True)
class Axes:
  """The matrix view of a shape: summed axes, produced axes, the rest stacked.

  Attributes:
    reduction: axes that are summed over when the kernel is applied, in the
      order `(*spatial, in)`.
    output: axes that index the outputs. They are flattened into one.

  Axes in neither are a batch of independent kernels, as `nn.scan` makes them.
  Negative axes count from the end.

  Example:
    >>> import jax.numpy as jnp
    >>> from structinit_jax import axes
    >>> kernel = jnp.zeros((32, 3, 5, 5))              # OIHW
    >>> axes.OIHW.to_matrix(kernel).shape              # (5 * 5 * 3, 32)
    (75, 32)
    >>> heads = axes.Axes(reduction=(0,), output=(1, 2))
    >>> heads.to_canonical(jnp.zeros((64, 8, 16))).shape
    (64, 128)
  """

  reduction: tuple[int, ...]
  output: tuple[int, ...]

  def split(self, ndim: int) -> tuple[tuple[int, ...], ...]:
    """Returns the non-negative `(batch, reduction, output)` axes."""
    named = self.reduction + self.output
    if not self.reduction or not self.output:
      raise ValueError(f'{self} needs a reduction and an output axis')
    if any(not -ndim <= axis < ndim for axis in named):
      raise ValueError(f'{self} does not fit an array of {ndim} axes')
    reduction, output = (
        tuple(axis % ndim for axis in group)
        for group in (self.reduction, self.output))
    if len(set(reduction + output)) != len(named):
      raise ValueError(f'{self} names an axis twice (of {ndim})')
    batch = tuple(a for a in range(ndim) if a not in reduction + output)
    return batch, reduction, output

  def canonical_shape(self, shape: base.Shape) -> tuple[int, ...]:
    """Returns `(*batch, *reduction, out)` for an array of this shape."""
    batch, reduction, output = self.split(len(shape))
    return (*(shape[a] for a in batch + reduction),
            math.prod(shape[a] for a in output))

  def to_canonical(self, x: jax.Array) -> jax.Array:
    """Transposes to `(*batch, *reduction, out)`."""
    order = sum(self.split(x.ndim), ())
    return jnp.transpose(x, order).reshape(self.canonical_shape(x.shape))

  def from_canonical(self, x: jax.Array, shape: base.Shape) -> jax.Array:
    """Inverts `to_canonical`; `shape` is the original shape."""
    order = sum(self.split(len(shape)), ())
    x = x.reshape([shape[axis] for axis in order])
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return jnp.transpose(x, inverse)

  def to_matrix(self, x: jax.Array) -> jax.Array:
    """Returns the view `(*batch, fan_in, out)`."""
    batch, reduction, _ = self.split(x.ndim)
    rows = math.prod(x.shape[a] for a in reduction)
    x = self.to_canonical(x)
    return x.reshape(*x.shape[:len(batch)], rows, x.shape[-1])


IO = Axes(reduction=(0,), output=(1,))
OI = Axes(reduction=(1,), output=(0,))
HWIO = Axes(reduction=(0, 1, 2), output=(3,))
OIHW = Axes(reduction=(2, 3, 1), output=(0,))


def with_axes(
    initializer: Callable[..., Any], axes: Axes) -> base.LeafInit:
  """Lets an initializer make kernels whose axes are laid out otherwise.

  Args:
    initializer: any Initializer that makes `(*spatial, in, out)` kernels.
    axes: where those axes are in the shapes to serve.

  Returns:
    An Initializer. Batch axes get independent kernels, one key each.

  Example:
    >>> import jax, structinit_jax as si
    >>> packing = si.with_axes(si.grassmann.packing(), si.axes.OIHW)
    >>> packing(jax.random.key(0), (32, 3, 3, 3)).shape
    (32, 3, 3, 3)
  """

  def split(
      shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    depth = len(axes.split(len(shape))[0])
    canonical = axes.canonical_shape(shape)
    return canonical[:depth], canonical[depth:]

  def sample(key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    batch, one = split(shape)
    if not batch:
      return axes.from_canonical(initializer(key, one, dtype), shape)
    keys = jax.random.split(key, math.prod(batch))
    # One kernel after another, so that a layer does not depend on the depth.
    kernels = jax.lax.map(lambda k: initializer(k, one, dtype), keys)
    return axes.from_canonical(kernels.reshape(*batch, *one), shape)

  def structure(key: base.Key, shape: tuple[int, ...]) -> dict[str, Any]:
    if not hasattr(initializer, 'aux'):
      return {}
    batch, one = split(shape)
    if not batch:
      facts = dict(initializer.aux(key, one))
      if 'mask' in facts:
        facts['mask'] = axes.from_canonical(facts['mask'], shape)
      return facts
    keys = jax.random.split(key, math.prod(batch))
    kinds = [*initializer.aux(keys[0], one)] if len(keys) else []
    facts = {}
    if 'mask' in kinds:
      mask = jax.vmap(lambda k: initializer.aux(k, one)['mask'])(keys)
      facts['mask'] = axes.from_canonical(mask.reshape(*batch, *one), shape)
      kinds.remove('mask')
    if kinds:
      each = [initializer.aux(k, one) for k in keys]
      facts |= {kind: tuple(fact[kind] for fact in each) for kind in kinds}
    return facts

  return base.LeafInit(f'with_axes({initializer!r}, {axes})', sample, structure)
