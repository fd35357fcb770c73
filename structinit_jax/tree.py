"""Names and keys of leaves, for any pytree of shapes."""

from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
from typing import Any

import jax
import jax.numpy as jnp

from structinit_jax import base

__all__ = [
    'check_like', 'flatten_with_names', 'leaf_key', 'leaf_names', 'nest',
]


def _is_box(node: Any) -> bool:
  """Tells what Flax puts around a parameter: Linen metadata, NNX variables."""
  return any(
      kind.__module__.startswith('flax.')
      and kind.__name__ in ('AxisMetadata', 'Variable')
      for kind in type(node).__mro__)


def flatten_with_names(
    tree: base.PyTree,
) -> tuple[list[str], list[Any], Any]:
  """Flattens a tree into names, leaves and structure.

  Args:
    tree: any pytree.

  Returns:
    `(names, leaves, treedef)`; names are unique, "/"-joined paths.

  Raises:
    ValueError: if two leaves have the same name.
  """
  pairs, treedef = jax.tree_util.tree_flatten_with_path(tree)
  tops, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_box)
  boxes = {path for path, node in tops if _is_box(node)}
  names = [
      jax.tree_util.keystr(
          path[:-1] if path[:-1] in boxes else path, simple=True, separator='/')
      for path, _ in pairs]
  if len(set(names)) != len(names):
    twice = sorted({name for name in names if names.count(name) > 1})
    raise ValueError(f'leaves with the same name: {", ".join(twice)}')
  return names, [leaf for _, leaf in pairs], treedef


def leaf_names(tree: base.PyTree) -> list[str]:
  """Returns the "/"-joined name of every leaf, in flattening order.

  Args:
    tree: any pytree: Flax Linen, NNX, Equinox or Haiku parameters or shapes.

  Returns:
    One name a leaf. The box that Flax metadata and NNX variables put around
    an array (`.value`) is left out.

  Example:
    >>> import jax.numpy as jnp, structinit_jax as si
    >>> si.leaf_names({'stem': {'kernel': jnp.ones(2), 'bias': jnp.ones(1)}})
    ['stem/bias', 'stem/kernel']
  """
  return flatten_with_names(tree)[0]


def leaf_key(key: base.Key, name: str) -> base.Key:
  """Returns the PRNG key of the leaf called `name`.

  The key depends on nothing but `key` and `name`: 64 bits of SHA-256 of the
  name are folded in, so neither order nor neighbours matter.

  Args:
    key: a JAX PRNG key.
    name: the leaf's name.

  Returns:
    A key.
  """
  digest = hashlib.sha256(name.encode()).digest()
  for start in (0, 4):
    word = int.from_bytes(digest[start:start + 4], 'big')
    key = jax.random.fold_in(key, jnp.uint32(word))
  return key


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the nested dictionary whose leaf names are the given ones.

  Args:
    leaves: values by "/"-joined name.

  Returns:
    Nested dictionaries, one level a name part.

  Example:
    >>> from structinit_jax import tree
    >>> tree.nest({'a/kernel': 1, 'a/bias': 2})
    {'a': {'kernel': 1, 'bias': 2}}
  """
  out: dict[str, Any] = {}
  for name, leaf in leaves.items():
    *parents, last = name.split('/')
    node = out
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return out


def check_like(
    names: Sequence[str], leaves: Sequence[Any], shapes: Sequence[Any]
) -> None:
  """Checks that arrays have the promised shapes and dtypes.

  Args:
    names: leaf names, for the message.
    leaves: arrays.
    shapes: what they should look like (`.shape`, `.dtype`).

  Raises:
    ValueError: naming the first leaf that differs.
  """
  for name, leaf, want in zip(names, leaves, shapes, strict=True):
    shape, dtype = jnp.shape(leaf), getattr(leaf, 'dtype', type(leaf).__name__)
    if shape != want.shape or dtype != want.dtype:
      raise ValueError(
          f'leaf {name!r}: the initializer returned {dtype}{shape}, expected '
          f'{want.dtype}{want.shape}')
