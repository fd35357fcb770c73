"""A table of what an InitFn does to every leaf."""

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import combine
from structinit_jax import tree

__all__ = ['describe']


def describe(
    init_fn: base.InitFn, shapes: base.PyTree, *, key: base.Key | None = None
) -> str:
  """Returns a table: every leaf, what makes it, and what it gives.

  Args:
    init_fn: an InitFn or StructuredInit.
    shapes: tree of `jax.ShapeDtypeStruct`.
    key: PRNG key of a sample to measure; without one nothing is sampled, but
      every initializer is still checked against the shape it is to serve.

  Returns:
    A text table with one line a leaf: name, dtype and shape, the initializer
    where `init_fn` came from `si.partition`, and with a key the mean and
    standard deviation of the sample.

  Raises:
    ValueError: as `init_fn` does, for a leaf it cannot make.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> init_fn = si.partition([('.*', si.zeros)])
    >>> shapes = {'bias': jax.ShapeDtypeStruct((4,), jnp.float32)}
    >>> print(si.describe(init_fn, shapes))
    leaf  shape       initializer
    bias  float32[4]  zeros
    >>> print(si.describe(init_fn, shapes, key=jax.random.key(0)))
    leaf  shape       initializer  mean  std
    bias  float32[4]  zeros           0    0
  """
  names, structs, _ = tree.flatten_with_names(shapes)
  if key is None:
    jax.eval_shape(init_fn, jax.random.key(0), shapes)
  rules = getattr(init_fn, 'rules', ())
  chosen = jax.tree.leaves(combine.labels(
      shapes, [(pattern, i) for i, (pattern, _) in enumerate(rules)]
  )) if rules else []
  columns = {
      'leaf': names,
      'shape': [f'{s.dtype}[{",".join(map(str, s.shape))}]' for s in structs],
      'initializer': [_label(rules[i][1]) for i in chosen] or [''] * len(names),
  }
  if key is not None:
    leaves = jax.tree.leaves(init_fn(key, shapes))
    values = [leaf.astype(jnp.float32) for leaf in leaves]
    columns['mean'] = [f'{float(x.mean()):.3g}' for x in values]
    columns['std'] = [f'{float(x.std()):.3g}' for x in values]
  cells = []
  for title, column in columns.items():
    width = max(map(len, [title, *column]))
    align = str.rjust if title in ('mean', 'std') else str.ljust
    cells.append([align(cell, width) for cell in (title, *column)])
  return '\n'.join('  '.join(row).rstrip() for row in zip(*cells, strict=True))


def _label(maker: object) -> str:
  if isinstance(maker, base.LeafInit):
    return maker.label
  name = getattr(maker, '__qualname__', type(maker).__name__)
  return name.split('.<locals>')[0]
