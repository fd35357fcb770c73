"""Names and keys of leaves, for any pytree of shapes."""

import collections
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


def _names(paths: Sequence[tuple[Any, ...]]) -> list[str]:
  # Flax boxes a parameter (Linen metadata, NNX variables); the box is a node
  # with `value` as its one child, and no part of the parameter's name.
  children = collections.Counter(path[:-1] for path in paths)
  children.update(path[:n] for path in paths for n in range(len(path) - 1))
  names = []
  for path in paths:
    boxed = (len(path) > 1 and children[path[:-1]] == 1
             and path[-1] == jax.tree_util.GetAttrKey('value'))
    names.append(jax.tree_util.keystr(
        path[:-1] if boxed else path, simple=True, separator='/'))
  return names


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
  names = _names([path for path, _ in pairs])
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
