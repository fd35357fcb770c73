"""Which kernels of a tree become factors, and of which ranks."""

from collections.abc import Mapping
import re
from typing import Any

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import tree
from structinit_jax.lowrank import forms
from structinit_jax.lowrank import ranks

__all__ = ['factor_shapes', 'find', 'join']

# Kernels of three axes that are no convolutions, as Flax names them, and how
# many of their axes are inputs.
_ATTENTION = ((r'(.*/)?(query|key|value)/kernel', 1), (r'(.*/)?out/kernel', 2))


def join(parent: str, last: str) -> str:
  """Returns the name of a leaf in a place of the tree."""
  return f'{parent}/{last}' if parent else last


def find(
    params: base.PyTree, *, select: str, kind: str
) -> dict[str, forms.Form]:
  """Returns the forms, at rank 1, of the kernels that may become factors.

  Args:
    params: parameters or their shapes.
    select: regular expression of the names of the kernels.
    kind: of convolutions.

  Returns:
    Forms by the name of what the kernel is in. A convolution of one input
    channel, which is what a depthwise one is, is none of them.
  """
  names, leaves, _ = tree.flatten_with_names(params)
  try:
    pattern = re.compile(select)
  except (re.error, TypeError) as error:
    raise ValueError(
        f'select={select!r} is no regular expression: {error}') from None
  found = {}
  for name, leaf in zip(names, leaves, strict=True):
    parent, _, last = name.rpartition('/')
    shape = tuple(jnp.shape(leaf))
    if last != 'kernel' or len(shape) < 2 or 0 in shape or not (
        pattern.fullmatch(name)):
      continue
    if taken := {join(parent, 'u'), join(parent, 'v')} & set(names):
      raise ValueError(
          f'leaf {name!r} cannot become factors beside {min(taken)!r}; leave '
          'it out of select')
    inputs = 0
    if len(shape) == 3:
      inputs = next(
          (n for pattern, n in _ATTENTION if re.fullmatch(pattern, name)), 0)
    if len(shape) > 2 and not inputs and shape[-2] == 1:
      continue
    found[parent] = forms.of_kernel(shape, 1, kind=kind, inputs=inputs)
  return found


def factor_shapes(
    shapes: base.PyTree, *, rank_scale: float | None = None,
    rank: int | None = None, budget: float | None = None,
    uses: Mapping[str, int] | None = None, select: str = '.*',
    kind: str = 'separable',
) -> dict[str, Any]:
  """Returns the shapes of a network whose kernels are factors.

  For `lfai`; `layers.factored` applies a Flax model with such parameters. A
  kernel is replaced if that saves parameters.

  Args:
    shapes: nested dictionaries of parameters or of their shapes, as of Flax. A
      leaf `kernel` of two axes is dense, of more a convolution
      `(*spatial, in, out)`, but for Flax's attention: `query`, `key`, `value`,
      `out`.
    rank_scale: ranks relative to the smaller side of the matrix; give this,
      `rank` or `budget`.
    rank: one rank for all, at most the smaller side.
    budget: share of the weights of the selected kernels, between 0 and 1, that
      the factors may have together; it is spent at one rank scale.
    uses: how often an example meets a kernel, by the name of what it is in,
      pixels of a convolution's output; 1 for others. A budget is then one of
      multiplications.
    select: regular expression of the names of the kernels to replace.
    kind: of convolutions, 'separable' or 'pointwise'.

  Returns:
    Nested dictionaries of `jax.ShapeDtypeStruct`, with `u` and `v` in place of
    `kernel`.

  Raises:
    ValueError: for an unknown option, a budget that rank 1 exceeds, or `uses`
      of no kernel.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> full = {'hidden': {'kernel': jnp.ones((64, 32)), 'bias': jnp.ones(32)}}
    >>> low = si.lowrank.factor_shapes(full, rank_scale=0.25)
    >>> jax.tree.map(lambda x: x.shape, low)
    {'hidden': {'bias': (32,), 'u': (64, 8), 'v': (8, 32)}}

  Source: Vodrahalli et al. (2022), section 4; Khodak et al. (2021), section 3.
  """
  found = find(shapes, select=select, kind=kind)
  choose = ranks.chooser(
      rank_scale=rank_scale, rank=rank, budget=budget, uses=uses)
  chosen = choose({name: (form.matrix, None) for name, form in found.items()})
  names, leaves, _ = tree.flatten_with_names(shapes)
  made = dict(zip(names, leaves, strict=True))
  for name, size in chosen.items():
    dtype = made.pop(join(name, 'kernel')).dtype
    form = found[name].of_rank(size)
    made[join(name, 'u')] = jax.ShapeDtypeStruct(form.u, dtype)
    made[join(name, 'v')] = jax.ShapeDtypeStruct(form.v, dtype)
  return tree.nest({
      name: jax.ShapeDtypeStruct(
          jnp.shape(made[name]), jnp.result_type(made[name]))
      for name in sorted(made)})
