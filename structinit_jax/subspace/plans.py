"""Which parameters of a tree are projected, in which groups, to what size."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax import combine
from structinit_jax import tree
from structinit_jax.subspace import projections
from structinit_jax.subspace import sharding

__all__ = ['Coordinates', 'Group', 'Plan', 'plan']

Coordinates = dict[str, dict[str, jax.Array]]
FREEZE, PROJECT, TRAIN = 'freeze', 'project', 'train'
_ROLES = FREEZE, PROJECT, TRAIN
_WEIGHTS = {
    'equal': lambda size: 1.0,
    'proportional': float,
    'sqrt': math.sqrt,
}
_ALL = 'all'


@dataclasses.dataclass(frozen=True)
class Group:
  """Leaves that one projection makes.

  Attributes:
    name: of the layer, or 'all'.
    leaves: their indices.
    size: of all of them.
    dim: of the subspace.
  """

  name: str
  leaves: tuple[int, ...]
  size: int
  dim: int


@dataclasses.dataclass(frozen=True)
class Plan:
  """What becomes of every leaf; hashable, so static under `jax.jit`.

  Attributes:
    names: of all leaves.
    shapes: of all leaves.
    roles: 'project', 'train' or 'freeze', of all leaves.
    groups: of projected leaves.
    kind: of the projections.
    column_norm: of the projections; None is the report's.
    max_bytes: what a projection may take.
  """

  names: tuple[str, ...]
  shapes: tuple[tuple[int, ...], ...]
  roles: tuple[str, ...]
  groups: tuple[Group, ...]
  kind: str
  column_norm: float | None
  max_bytes: int

  def projections(self, key: base.Key) -> list[projections.Projection]:
    """Returns the projection of every group."""
    return [
        projections.projection(
            self.kind, tree.leaf_key(key, group.name), group.size, group.dim,
            column_norm=self.column_norm, max_bytes=self.max_bytes)
        for group in self.groups]

  def _like_w(
      self, projected: Sequence[jax.Array], leaves: Sequence[jax.Array]
  ) -> Coordinates:
    names = [group.name for group in self.groups]
    return {
        'projected': dict(zip(names, projected, strict=True)),
        'trained': {name: leaf for name, leaf, role in zip(
            self.names, leaves, self.roles, strict=True) if role == TRAIN}}

  def zeros(self, leaves: Sequence[jax.Array]) -> Coordinates:
    """Returns the coordinates of `leaves` in the subspace through them."""
    # Copies: coordinates that are donated do not take parameters with them.
    return self._like_w(
        [jnp.zeros(group.dim, _dtype(group, leaves)) for group in self.groups],
        [jnp.array(leaf) if role == TRAIN else leaf
         for leaf, role in zip(leaves, self.roles, strict=True)])

  def _apply(
      self, group: Group, shardings: Sequence[Any]
  ) -> Callable[[Any, jax.Array], list[jax.Array]]:
    """Returns `(projection, w) -> P w` as the leaves of a group."""
    return functools.partial(
        sharding.apply, shapes=[self.shapes[i] for i in group.leaves],
        shardings=[shardings[i] for i in group.leaves])

  def project(
      self, key: base.Key, leaves: Sequence[jax.Array],
      shardings: Sequence[Any] | None = None,
  ) -> Coordinates:
    """Returns the gradient by coordinates, from that by every leaf."""
    if shardings is None:
      shardings = [sharding.known(leaf) for leaf in leaves]
    projected = []
    for group, projection in zip(
        self.groups, self.projections(key), strict=True):
      dtype = _dtype(group, leaves)
      _, pull = jax.vjp(
          functools.partial(self._apply(group, shardings), projection),
          jnp.zeros(group.dim, dtype))
      projected += pull([
          jnp.asarray(leaves[i], dtype) for i in group.leaves])
    return self._like_w(projected, leaves)

  def shift(
      self, key: base.Key, w: Coordinates, leaves: Sequence[jax.Array],
      shardings: Sequence[Any] | None = None,
  ) -> list[jax.Array]:
    """Returns the leaves at `w`, if at 0 they are `leaves`."""
    where = ([sharding.known(leaf) for leaf in leaves] if shardings is None
             else shardings)
    moved = [
        jnp.asarray(w['trained'][name], leaf.dtype) if role == TRAIN else leaf
        for name, leaf, role in zip(
            self.names, leaves, self.roles, strict=True)]
    for group, projection in zip(
        self.groups, self.projections(key), strict=True):
      parts = self._apply(group, where)(
          projection, w['projected'][group.name])
      for i, part in zip(group.leaves, parts, strict=True):
        leaf = leaves[i]
        moved[i] = (leaf.astype(part.dtype) + part).astype(leaf.dtype)
    if shardings is None:
      return moved
    return [sharding.put(leaf, wanted)
            for leaf, wanted in zip(moved, shardings, strict=True)]


def _dtype(group: Group, leaves: Sequence[Any]) -> Any:
  """Returns what a group is computed in: that of its widest leaf."""
  return jax.dtypes.canonicalize_dtype(functools.reduce(
      jnp.promote_types,
      (base.compute_dtype(leaves[i].dtype) for i in group.leaves)))


def _divide(dim: int, sizes: Sequence[int], rule: str) -> list[int]:
  """Divides `dim` over layers: at least 1 and at most all of each.

  Of what is left after one each, a layer gets its share of the weights, but
  never more than it has; what that leaves goes to the others alike. Fractions
  go to the largest remainders.
  """
  room = np.array(sizes, float) - 1
  weights = np.array([_WEIGHTS[rule](size) for size in sizes])
  left, share = float(dim - len(sizes)), np.zeros(len(sizes))
  free = room > 0
  while left > 0 and free.any():
    share[free] = left * weights[free] / weights[free].sum()
    full = free & (share >= room)
    if not full.any():
      break
    share[full] = room[full]
    left -= room[full].sum()
    free &= ~full
  whole = np.floor(share + 1e-9)
  order = np.argsort(whole - share, kind='stable')
  extra = dim - len(sizes) - int(whole.sum())
  whole[[i for i in order if whole[i] < room[i]][:extra]] += 1
  return [1 + int(count) for count in whole]


def plan(
    params: base.PyTree, dim: int, *, projection: str,
    per_layer: bool | str, rules: Sequence[tuple[str, str]],
    column_norm: float | None, max_bytes: int,
) -> Plan:
  """Returns what `reparameterize` and `within` do with a tree; see there."""
  names, leaves, _ = tree.flatten_with_names(params)
  if not names:
    raise ValueError('the tree has no parameters to project')
  roles = _roles(params, rules)
  for name, leaf, role in zip(names, leaves, roles, strict=True):
    dtype = getattr(leaf, 'dtype', None)
    if dtype is None and not isinstance(leaf, int | float | complex):
      raise ValueError(
          f'leaf {name!r} is no array, but {type(leaf).__name__}: pass the '
          'arrays of the model alone, by eqx.partition or nnx.split')
    if role != FREEZE and (
        dtype is None or not jnp.issubdtype(dtype, jnp.floating)):
      raise ValueError(
          f'leaf {name!r} of dtype {dtype or type(leaf).__name__}: only real '
          f"floating-point parameters can be trained; add a rule ({name!r}, "
          "'freeze') before the others")
  members: dict[str, list[int]] = {}
  for i, (name, leaf) in enumerate(zip(names, leaves, strict=True)):
    if roles[i] == PROJECT and math.prod(leaf.shape):
      layer = (name.rpartition('/')[0] or name) if per_layer else _ALL
      members.setdefault(layer, []).append(i)
  if not members:
    raise ValueError(
        'no rule projects a parameter: at least one leaf must have the role '
        "'project'")
  sizes = [sum(math.prod(leaves[i].shape) for i in indices)
           for indices in members.values()]
  dim = base.integer('dim', dim)
  if not len(sizes) <= dim <= sum(sizes):
    raise ValueError(
        f'dim={dim} must lie between {len(sizes)}'
        f'{" (one a layer)" if per_layer else ""} and the {sum(sizes)} '
        'parameters that are projected; the nearest that works is '
        f'{min(max(dim, len(sizes)), sum(sizes))}')
  rule = (per_layer if isinstance(per_layer, str)
          else 'proportional' if per_layer else 'equal')
  if not isinstance(per_layer, bool | str) or rule not in _WEIGHTS:
    raise ValueError(
        f'per_layer={per_layer!r} must be False, True or one of '
        f'{", ".join(map(repr, _WEIGHTS))}')
  groups = tuple(
      Group(name, tuple(indices), size, part)
      for (name, indices), size, part in zip(
          members.items(), sizes, _divide(dim, sizes, rule), strict=True))
  found = Plan(
      tuple(names), tuple(tuple(jnp.shape(leaf)) for leaf in leaves),
      tuple(roles), groups, projection, column_norm, max_bytes)
  jax.eval_shape(found.projections, jax.random.key(0))  # what it refuses
  return found


def _roles(
    params: base.PyTree, rules: Sequence[tuple[str, str]]) -> list[str]:
  found = jax.tree.leaves(combine.labels(params, rules))
  for rule in rules:
    if rule[1] not in _ROLES:
      raise ValueError(
          f"rule {rule!r}: a role is 'project', 'train' or 'freeze'")
  return found
