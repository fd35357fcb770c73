"""Training in a subspace: as coordinates, or below any optimizer."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from structinit_jax import base
from structinit_jax import tree
from structinit_jax.subspace import plans
from structinit_jax.subspace import projections
from structinit_jax.subspace import sharding

__all__ = [
    'Subspace', 'WithinState', 'check_like', 'reparameterize', 'within',
]

Rules = Sequence[tuple[str, str]]
_EVERYTHING = (('.*', plans.PROJECT),)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=['key', 'origin', 'w'],
    meta_fields=['plan'])
@dataclasses.dataclass(frozen=True)
class Subspace:
  """Parameters as a point of a random subspace: what `reparameterize` returns.

  It is a pytree, an argument of jitted functions like any other.

  Attributes:
    key: the JAX PRNG key of the projections.
    origin: the parameters at w = 0.
    w: what to train, `{'projected': {group: (d,)}, 'trained': {leaf: array}}`:
      coordinates by group, 'all' or the name of a layer, and the leaves that
      are trained as they are.
    plan: which leaf is what; static.
  """

  key: base.Key
  origin: base.PyTree
  w: plans.Coordinates
  plan: plans.Plan

  def expand(
      self, w: plans.Coordinates | None = None, shardings: base.PyTree = None,
  ) -> base.PyTree:
    """Returns the parameters at `w`, the origin plus `P w`.

    Differentiable, and the same bits under jit or not, in every process and on
    any number of devices.

    Args:
      w: of the structure of `self.w`, the default.
      shardings: a tree like `origin`, of `jax.sharding.Sharding`s of the
        result, or None in place of some. Are they `NamedSharding`s of one mesh,
        a device makes the blocks of 'hadamard' that hold entries of its own,
        and nothing is sent. None for all: those of `origin`, where they are
        known, as they are outside of `jax.jit`, for a constant in it, and on a
        mesh of explicit axes; elsewhere XLA divides the work, less well.

    Returns:
      A tree like `origin`.

    Raises:
      ValueError: for a `w` of another structure, of other shapes or not
        floating-point, and for shardings that do not fit.
    """
    w = self.w if w is None else w
    check_like('w', w, self.w)
    for leaf in jax.tree.leaves(w):
      base.compute_dtype(getattr(leaf, 'dtype', type(leaf)))
    _, leaves, treedef = tree.flatten_with_names(self.origin)
    return treedef.unflatten(self.plan.shift(
        self.key, w, leaves, _flat_shardings(shardings, self.origin)))

  def project(self, grads: base.PyTree) -> plans.Coordinates:
    """Returns the gradient by `w` of a gradient by the parameters, `P^T g`.

    Args:
      grads: a tree like `origin`.

    Returns:
      A tree like `w`.

    Raises:
      ValueError: for a tree of another structure, or other shapes.
    """
    check_like('grads', grads, self.origin)
    return self.plan.project(self.key, tree.flatten_with_names(grads)[1])


def check_like(what: str, given: base.PyTree, like: base.PyTree) -> None:
  """Checks that a tree has the structure, and leaves the shapes, of another."""
  structure, wanted = jax.tree.structure(given), jax.tree.structure(like)
  if structure != wanted:
    raise ValueError(
        f'{what} of structure {structure} must be of the structure {wanted}')
  for name, x, want in zip(*tree.flatten_with_names(given)[:2],
                           jax.tree.leaves(like), strict=True):
    if np.shape(x) != want.shape:
      raise ValueError(
          f'leaf {name!r} of {what} has shape {np.shape(x)}; it must be '
          f'{want.shape}')


def _flat_shardings(
    shardings: base.PyTree, params: base.PyTree) -> list[Any] | None:
  """Returns the shardings of all leaves, checked, or None."""
  if shardings is None:
    return None
  names, leaves, treedef = tree.flatten_with_names(params)
  found, structure = jax.tree.flatten(shardings, is_leaf=lambda x: x is None)
  if structure != treedef:
    raise ValueError(
        f'shardings of structure {structure} must be like the parameters, '
        f'{treedef}')
  for name, leaf, where in zip(names, leaves, found, strict=True):
    sharding.check(name, leaf.shape, where)
  return found


def reparameterize(
    key: base.Key, params: base.PyTree, dim: int, *,
    projection: str = 'hadamard', per_layer: bool | str = False,
    rules: Rules = _EVERYTHING, column_norm: float | None = 1.0,
    max_bytes: int = projections.MAX_BYTES,
) -> Subspace:
  r"""Makes parameters a function of few coordinates, $\theta_0 + P w$.

  Train `subspace.w` by any optimizer, through `subspace.expand`.

  Args:
    key: a JAX PRNG key, of the projections.
    params: the parameters to start from, the origin. Give zeros for a subspace
      through 0, and then a `w` that is drawn.
    dim: d, the coordinates of all projections together.
    projection: the kind; see `projection`.
    per_layer: whether every layer has a subspace of its own, and how `dim` is
      divided: 'equal', 'proportional' to their sizes (or True), or to the
      square roots of these, 'sqrt'. A layer is the leaves of one parent.
    rules: ordered pairs (regex of a leaf's name, role): 'project', 'train' (as
      it is) or 'freeze'. The first full match counts.
    column_norm: of P; see `projection`.
    max_bytes: as of `projection`, for each.

  Returns:
    A Subspace, with `w = 0`: `expand()` gives `params`.

  Raises:
    ValueError: for an empty tree, a `dim` that does not fit (the message names
      the nearest), parameters that are not floating-point, rules that do not
      fit, or a projection that needs too much memory.

  Example:
    >>> import jax, jax.numpy as jnp, optax, structinit_jax as si
    >>> params = {'kernel': jnp.ones((30, 10)), 'bias': jnp.zeros(10)}
    >>> subspace = si.subspace.reparameterize(jax.random.key(0), params, 20)
    >>> loss = lambda w: sum(jnp.sum((x - 0.5)**2)
    ...                      for x in jax.tree.leaves(subspace.expand(w)))
    >>> grads = jax.grad(loss)(subspace.w)
    >>> {name: g.shape for name, g in grads['projected'].items()}
    {'all': (20,)}

  Source: Li, Farkhoor, Liu, Yosinski, Measuring the intrinsic dimension of
    objective landscapes (2018), equation 2; Minut for one projection a layer.
  """
  base.check_key(key)
  plan = plans.plan(
      params, dim, projection=projection, per_layer=per_layer, rules=rules,
      column_norm=column_norm, max_bytes=max_bytes)
  names, leaves, treedef = tree.flatten_with_names(params)
  for name, leaf in zip(names, leaves, strict=True):
    if isinstance(leaf, jax.ShapeDtypeStruct):
      raise ValueError(
          f'leaf {name!r} is a shape, no array: make the parameters first')
  leaves = [jnp.asarray(leaf) for leaf in leaves]
  params = treedef.unflatten(leaves)
  return Subspace(key, params, plan.zeros(leaves), plan)


class WithinState(NamedTuple):
  """State of `within`.

  Attributes:
    key: of the projections.
    w: the coordinates so far; as `Subspace.w`.
    inner: state of the optimizer.
  """

  key: base.Key
  w: plans.Coordinates
  inner: optax.OptState


def within(
    key: base.Key, optimizer: optax.GradientTransformation, dim: int, *,
    projection: str = 'hadamard', per_layer: bool | str = False,
    rules: Rules = _EVERYTHING, column_norm: float | None = 1.0,
    max_bytes: int = projections.MAX_BYTES, shardings: base.PyTree = None,
) -> optax.GradientTransformationExtraArgs:
  """Keeps any training loop in a random subspace.

  The optimizer sees the gradient by the coordinates, and its update of them is
  mapped to the parameters: the steps of `reparameterize`, of a model that knows
  nothing of it. Parameters are sums of rounded updates here, so they are in
  the subspace to their precision; `Subspace.expand` is, to the last bit.

  Args:
    key: a JAX PRNG key, of the projections. It is in the state, so `init` may
      be mapped over keys.
    optimizer: of the coordinates; weight decay pulls these, and so the
      parameters, to where they started. Further arguments of its `update`, such
      as a loss, reach it as they are: a line search, which asks for a function
      of the coordinates, is for `reparameterize`.
    dim: as of `reparameterize`; so are the others.
    projection: the kind.
    per_layer: how `dim` is divided.
    rules: what is projected.
    column_norm: of P.
    max_bytes: as of `projection`, for each.
    shardings: of the parameters and their updates, as of `Subspace.expand`.

  Returns:
    An optax transformation; its state has the coordinates, `state.w`.

  Raises:
    ValueError: as by `reparameterize`, from its `init`; from its `update` for
      gradients that are not like the parameters it is given.

  Example:
    >>> import jax, jax.numpy as jnp, optax, structinit_jax as si
    >>> params = {'kernel': jnp.ones((30, 10))}
    >>> optimizer = si.subspace.within(
    ...     jax.random.key(0), optax.sgd(0.1, momentum=0.9), dim=5)
    >>> state = optimizer.init(params)
    >>> updates, state = optimizer.update(params, state, params)
    >>> updates['kernel'].shape, state.w['projected']['all'].shape
    ((30, 10), (5,))

  Source: this library; Li et al. (2018) for what is trained.
  """
  base.check_key(key)
  if not isinstance(optimizer, optax.GradientTransformation):
    raise ValueError(
        f'optimizer={optimizer!r} must be an optax.GradientTransformation, '
        'such as optax.sgd(0.1)')
  inner_optimizer = optax.with_extra_args_support(optimizer)

  def plan_of(params: base.PyTree) -> plans.Plan:
    return plans.plan(
        params, dim, projection=projection, per_layer=per_layer, rules=rules,
        column_norm=column_norm, max_bytes=max_bytes)

  def init(params: base.PyTree) -> WithinState:
    _, leaves, _ = tree.flatten_with_names(params)
    w = plan_of(params).zeros([jnp.asarray(leaf) for leaf in leaves])
    # A copy: a state that is donated does not take the caller's key with it.
    return WithinState(jnp.copy(key), w, optimizer.init(w))

  def update(
      updates: base.PyTree, state: optax.OptState, params: base.PyTree = None,
      **extra: Any
  ) -> tuple[base.PyTree, optax.OptState]:
    if params is not None:
      check_like('updates', updates, params)
    now: Any = state
    plan = plan_of(updates)
    where = _flat_shardings(shardings, updates)
    _, grads, treedef = tree.flatten_with_names(updates)
    found: Any = inner_optimizer.update(
        plan.project(now.key, grads, where), now.inner, now.w, **extra)
    steps, inner = found
    moved = plan.shift(
        now.key, steps, [jnp.zeros_like(g) for g in grads], where)
    w: Any = optax.apply_updates(now.w, steps)
    return treedef.unflatten(moved), WithinState(now.key, w, inner)

  return optax.GradientTransformationExtraArgs(init, update)
