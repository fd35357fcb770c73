"""Masks that travel beside the parameters: apply, keep, count.

A tree of masks has the structure of the parameters. A leaf is a boolean array
of the parameter's shape, or a scalar `True` for a leaf that is not masked.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from structinit_jax import base
from structinit_jax import tree

__all__ = ['apply', 'keep_masked', 'sparsity']


def _check(params: base.PyTree, masks: base.PyTree) -> None:
  names, leaves, treedef = tree.flatten_with_names(params)
  mask_names, mask_leaves, mask_treedef = tree.flatten_with_names(masks)
  if treedef != mask_treedef:
    odd = sorted(set(names) ^ set(mask_names))
    raise ValueError(
        'masks must mirror the parameters; leaves in one of the two only: '
        f'{", ".join(odd) or "none, but the containers differ"}')
  for name, leaf, mask in zip(names, leaves, mask_leaves, strict=True):
    if jnp.shape(mask) not in ((), leaf.shape):
      raise ValueError(
          f'mask of leaf {name!r} has shape {jnp.shape(mask)}; it must be '
          f'{leaf.shape}, or a scalar True for a leaf that is not masked')


def apply(params: base.PyTree, masks: base.PyTree) -> base.PyTree:
  """Sets masked-out entries to exactly zero.

  Args:
    params: tree of arrays.
    masks: tree of the same structure: boolean arrays, or scalar `True`.

  Returns:
    The masked parameters; NaN and infinity in a masked-out place become 0.

  Raises:
    ValueError: if the structures or a shape differ.

  Example:
    >>> import jax.numpy as jnp, structinit_jax as si
    >>> mask = jnp.array([True, False])
    >>> si.masks.apply({'w': jnp.ones(2)}, {'w': mask})['w'].tolist()
    [1.0, 0.0]
  """
  _check(params, masks)
  return jax.tree.map(
      lambda p, m: jnp.where(m, p, jnp.zeros((), p.dtype)), params, masks)


def keep_masked(masks: base.PyTree) -> optax.GradientTransformation:
  """Keeps masked-out parameters at exactly zero, whatever came before.

  Put it last in an `optax.chain`: it replaces the update of a masked-out
  entry by minus the entry, so momentum, weight decay and noise cannot revive
  it (an entry that is not finite needs `apply`). Its `update` needs `params`.

  Args:
    masks: tree of the parameters' structure: boolean arrays, or scalar `True`.

  Returns:
    A stateless gradient transformation.

  Example:
    >>> import jax.numpy as jnp, optax, structinit_jax as si
    >>> params, masks = {'w': jnp.ones(2)}, {'w': jnp.array([True, False])}
    >>> optimizer = optax.chain(
    ...     optax.sgd(0.1, momentum=0.9), si.masks.keep_masked(masks))
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> float(optax.apply_updates(params, updates)['w'][1])
    0.0
  """

  def init_fn(params: base.PyTree) -> optax.EmptyState:
    _check(params, masks)
    return optax.EmptyState()

  def update_fn(
      updates: base.PyTree, state: optax.OptState,
      params: base.PyTree = None,
  ) -> tuple[base.PyTree, optax.OptState]:
    if params is None:
      raise ValueError('keep_masked needs params: optimizer.update(g, s, p)')
    updates = jax.tree.map(
        lambda u, p, m: jnp.where(m, u, -p.astype(u.dtype)),
        updates, params, masks)
    return updates, state

  return optax.GradientTransformation(init_fn, update_fn)


def sparsity(masks: base.PyTree) -> dict[str, float]:
  """Returns the fraction of removed entries of every masked leaf.

  Args:
    masks: tree of boolean arrays, or scalar `True`.

  Returns:
    `{leaf name: 1 - nonzeros / size}` for the masked leaves, and under
    `'total'` the same over all of them (0.0 if there are none).

  Example:
    >>> import jax.numpy as jnp, structinit_jax as si
    >>> si.masks.sparsity({'w': jnp.array([True, False]), 'b': True})
    {'w': 0.5, 'total': 0.5}
  """
  names, leaves, _ = tree.flatten_with_names(masks)
  sizes: dict[str, Any] = {
      name: np.asarray(leaf) for name, leaf in zip(names, leaves, strict=True)
      if np.ndim(leaf)}
  out = {name: float(1 - mask.mean()) if mask.size else 0.0
         for name, mask in sizes.items()}
  size = sum(mask.size for mask in sizes.values())
  kept = sum(int(mask.sum()) for mask in sizes.values())
  out['total'] = 1 - kept / size if size else 0.0
  return out
