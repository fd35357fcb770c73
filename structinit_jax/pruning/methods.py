"""Masks of kernels that have weights: by magnitude, by chance, by structure."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import axes as axes_lib
from structinit_jax import base
from structinit_jax import combine
from structinit_jax import masks
from structinit_jax import tree

__all__ = [
    'Method', 'dense', 'from_scratch', 'global_magnitude', 'local_magnitude',
    'local_random', 'prune', 'ramanujan',
]

Method = Callable[[base.Key, base.PyTree], base.PyTree]
_Axes = axes_lib.Axes | Mapping[int, axes_lib.Axes] | None


def _check_sparsity(sparsity: float) -> None:
  if not (isinstance(sparsity, numbers.Real) and 0 <= sparsity < 1):
    raise ValueError(
        f'sparsity {sparsity!r} must be a number, at least 0 and below 1: the '
        'fraction of the weights (of the kernels, in a convolution) to remove')


def _removed(sparsity: float, units: int, what: str) -> int:
  """Returns ceil(sparsity * units)."""
  # The product rounds, and 0.07 of 100 is 7, not 8.
  removed = math.ceil(float(sparsity) * units * (1 - 1e-12))
  if units and removed == units:
    near = math.floor(1e6 * (units - 1) / units) / 1e6
    raise ValueError(
        f'{what}: sparsity {sparsity} of {units} weights or kernels removes '
        f'all of them; the nearest that works is {near}')
  return removed


def _view(name: str, x: Any, axes: _Axes) -> axes_lib.Axes:
  shape = jnp.shape(x)
  if isinstance(axes, Mapping):
    axes = axes.get(len(shape))
  if len(shape) < 2:
    raise ValueError(
        f'leaf {name!r} of shape {shape} is no kernel (*spatial, in, out); '
        'give it a rule of its own, such as `si.pruning.dense`')
  try:
    base.compute_dtype(x.dtype)
  except ValueError as error:
    raise ValueError(f'leaf {name!r} of shape {shape}: {error}') from error
  if axes is None:
    last = len(shape) - 1
    axes = axes_lib.Axes(tuple(range(last)), (last,))
  return axes


def _unit_shape(
    shape: base.Shape, axes: axes_lib.Axes) -> tuple[int, int]:
  """Returns how many kernels there are, and the weights (or taps) of each."""
  batch, reduction, output = axes.split(len(shape))
  units = math.prod(shape[axis] for axis in (reduction[-1], *output))
  return math.prod(shape[axis] for axis in batch), units


def _norms(x: jax.Array, axes: axes_lib.Axes, dtype: Any) -> jax.Array:
  """Returns what orders the units as their L1 norms do, (batch, units)."""
  batch, reduction, _ = axes.split(x.ndim)
  canonical = axes.to_canonical(x.astype(dtype))
  taps = tuple(range(len(batch), len(batch) + len(reduction) - 1))
  norms = jnp.abs(canonical).sum(axis=taps).reshape(_unit_shape(x.shape, axes))
  # As integers, which sort faster: the order is the same without a sign, and
  # NaN is above infinity.
  return jax.lax.bitcast_convert_type(
      norms, jnp.uint64 if norms.dtype == jnp.float64 else jnp.uint32)


def _expand(
    kept: jax.Array, shape: base.Shape, axes: axes_lib.Axes) -> jax.Array:
  """Returns the mask of a kernel from that of its units (batch, units)."""
  batch, reduction, _ = axes.split(len(shape))
  canonical = axes.canonical_shape(shape)
  units = (*canonical[:len(batch)], *[1] * (len(reduction) - 1),
           *canonical[-2:])
  return axes.from_canonical(
      jnp.broadcast_to(kept.reshape(units), canonical), shape)


def _all_but_smallest(scores: jax.Array, removed: jax.Array) -> jax.Array:
  """Keeps all but the smallest of every row; of equal ones, the first go."""
  if not scores.size:
    return jnp.ones(scores.shape, bool)
  # By the last that goes: to sort values takes a fraction of an argsort.
  ascending = jnp.sort(scores, axis=-1)
  last = jnp.take(ascending, jnp.maximum(removed - 1, 0), axis=-1)[..., None]
  below, equal = scores < last, scores == last
  spare = removed - below.sum(axis=-1, keepdims=True)
  return ~(below | (equal & (jnp.cumsum(equal, axis=-1) <= spare)))


@functools.partial(jax.jit, static_argnames='axes')
def _largest(
    x: jax.Array, removed: jax.Array, *, axes: axes_lib.Axes) -> jax.Array:
  """Returns the mask of all but the smallest units of each kernel."""
  norms = _norms(x, axes, base.compute_dtype(x.dtype))
  return _expand(_all_but_smallest(norms, removed), x.shape, axes)


@functools.partial(jax.jit, static_argnames='axes')
def _largest_of_all(
    leaves: Sequence[jax.Array], removed: jax.Array, *,
    axes: tuple[axes_lib.Axes, ...]
) -> list[jax.Array]:
  """Returns the masks of all but the smallest units of all kernels."""
  double = any(x.dtype == jnp.float64 for x in leaves)
  dtype = jnp.dtype('float64' if double else 'float32')
  norms = [_norms(*pair, dtype) for pair in zip(leaves, axes, strict=True)]
  kept = _all_but_smallest(
      jnp.concatenate([norm.reshape(-1) for norm in norms]), removed)
  ends = np.cumsum([norm.size for norm in norms])
  return [
      _expand(part, x.shape, view) for part, x, view in zip(
          jnp.split(kept, ends[:-1]), leaves, axes, strict=True)]


@functools.partial(jax.jit, static_argnames=('shape', 'axes'))
def _random(
    key: base.Key, removed: jax.Array, *, shape: tuple[int, ...],
    axes: axes_lib.Axes
) -> jax.Array:
  """Returns a mask without `removed` random units of each kernel."""
  scores = jax.random.bits(key, _unit_shape(shape, axes), jnp.uint32)
  return _expand(_all_but_smallest(scores, removed), shape, axes)


def _by_layer(
    sparsity: float, axes: _Axes,
    mask: Callable[..., jax.Array],
) -> Method:
  """Returns the method that prunes leaf by leaf, all to one sparsity."""

  def method(key: base.Key, params: base.PyTree) -> base.PyTree:
    names, leaves, treedef = tree.flatten_with_names(params)
    found = []
    for name, x in zip(names, leaves, strict=True):
      view = _view(name, x, axes)
      removed = _removed(
          sparsity, _unit_shape(x.shape, view)[1],
          f'leaf {name!r} of shape {x.shape}')
      found.append(mask(key, name, x, removed, view))
    return treedef.unflatten(found)

  return method


def local_magnitude(sparsity: float, *, axes: _Axes = None) -> Method:
  r"""LMP: removes the smallest weights of every layer.

  Of K weights of a dense kernel the $\lceil s K \rceil$ smallest in absolute
  value go; of K = in * out kernels of a convolution those of the smallest L1
  norm over the taps, as a whole. Equal ones go in order.

  Args:
    sparsity: the fraction s to remove, below 1.
    axes: where the axes (*spatial, in, out) are, if not as Flax has them. All
      others are layers stacked by a scan, each pruned by itself. A dictionary
      has one Axes for every number of axes that needs it.

  Returns:
    A method `(key, params) -> masks`, for trees of kernels; see `prune` and
    `from_scratch`. It does not use the key.

  Raises:
    ValueError: for a sparsity out of range; by the method, for a leaf that is
      no kernel, or one that would lose all its weights.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> masks = si.pruning.local_magnitude(0.5)(jax.random.key(0), {
    ...     'a': jnp.array([[1., -4.], [3., 2.]]), 'b': jnp.array([[9., 8.]])})
    >>> masks['a'].tolist(), masks['b'].tolist()
    ([[False, True], [True, False]], [[True, False]])

  Source: Esguerra (2023), section 3.5.4.
  """
  _check_sparsity(sparsity)

  return _by_layer(
      sparsity, axes, lambda key, name, x, removed, view: _largest(
          x, removed, axes=view))


def global_magnitude(sparsity: float, *, axes: _Axes = None) -> Method:
  r"""GMP: removes the smallest weights of all layers together.

  One threshold for all leaves that the rule matches: of their K weights (of a
  convolution, kernels, by the L1 norm) the $\lceil s K \rceil$ smallest go.
  A layer can lose all it has.

  Args:
    sparsity: as of `local_magnitude`.
    axes: as of `local_magnitude`.

  Returns:
    A method, as `local_magnitude`.

  Raises:
    ValueError: as `local_magnitude`.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> masks = si.pruning.global_magnitude(0.5)(jax.random.key(0), {
    ...     'a': jnp.array([[1., -4.], [3., 2.]]), 'b': jnp.array([[9., 8.]])})
    >>> masks['a'].sum().item(), masks['b'].sum().item()
    (1, 2)

  Source: Esguerra (2023), section 3.5.4.
  """
  _check_sparsity(sparsity)

  def method(key: base.Key, params: base.PyTree) -> base.PyTree:
    del key  # nothing is drawn
    names, leaves, treedef = tree.flatten_with_names(params)
    views = [_view(*pair, axes) for pair in zip(names, leaves, strict=True)]
    if not leaves:
      return treedef.unflatten([])
    units = sum(math.prod(_unit_shape(x.shape, view))
                for x, view in zip(leaves, views, strict=True))
    removed = _removed(sparsity, units, f'leaves {", ".join(names)}')
    found = _largest_of_all(leaves, removed, axes=tuple(views))
    return treedef.unflatten(found)

  return method


def local_random(sparsity: float, *, axes: _Axes = None) -> Method:
  r"""LRP: removes random weights of every layer.

  Of K weights (of a convolution, kernels) of every layer $\lceil s K \rceil$
  go, every choice of them equally likely.

  Args:
    sparsity: as of `local_magnitude`.
    axes: as of `local_magnitude`.

  Returns:
    A method, as `local_magnitude`.

  Raises:
    ValueError: as `local_magnitude`.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> method = si.pruning.local_random(0.9)
    >>> method(jax.random.key(0), jnp.ones((8, 5))).sum().item()
    4

  Source: Esguerra (2023), section 3.5.4.
  """
  _check_sparsity(sparsity)

  # Another key than that of the leaf, which its weights came from.
  return _by_layer(
      sparsity, axes, lambda key, name, x, removed, view: _random(
          tree.leaf_key(key, f'{name}/mask'), removed, shape=x.shape,
          axes=view))


def mask_of(like: Any, key: base.Key, shape: tuple[int, ...]) -> jax.Array:
  """Returns the mask of the kernel that an Initializer makes of a key."""
  facts = like.aux(key, shape) if math.prod(shape) else {
      'mask': jnp.ones(shape, bool)}
  if 'mask' not in facts:
    raise ValueError(
        f'{like!r} has no mask for shape {shape}: its `aux` names '
        f'{", ".join(facts) or "nothing"}; use a sparse initializer, such as '
        'si.sao.orthogonal(degree=4)')
  return facts['mask']


def check_like(like: Any) -> None:
  if not hasattr(like, 'aux'):
    raise ValueError(
        f'{like!r} has no `aux`, hence no mask; use a sparse initializer, such '
        'as si.sao.orthogonal(degree=4)')


def ramanujan(like: Any) -> Method:
  """RG: keeps what another initializer would keep, whatever the weights.

  The thesis's RG-S and RG-T are the mask of SAO on weights that are not its
  own. With the same key this is the mask of `like` for the same leaf, so that
  both differ in the weights alone. The name is the thesis's; what the mask is
  says erratum 1 of `sao`.

  Args:
    like: an Initializer with masks: `si.sao.orthogonal(degree=4)`, or
      `si.with_axes` of it for stacked layers.

  Returns:
    A method, as `local_magnitude`.

  Raises:
    ValueError: for an initializer without masks; by the method, as `like`.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> method = si.pruning.ramanujan(si.sao.orthogonal(degree=2))
    >>> method(jax.random.key(0), jnp.ones((4, 2))).tolist()
    [[True, False], [True, False], [False, True], [False, True]]

  Source: Esguerra (2023), section 3.5.4.
  """
  check_like(like)

  def method(key: base.Key, params: base.PyTree) -> base.PyTree:
    names, leaves, treedef = tree.flatten_with_names(params)
    found = []
    for name, x in zip(names, leaves, strict=True):
      try:
        found.append(mask_of(like, tree.leaf_key(key, name), jnp.shape(x)))
      except ValueError as error:
        raise ValueError(
            f'leaf {name!r} of shape {jnp.shape(x)}: {error}') from error
    return treedef.unflatten(found)

  return method


def dense(key: base.Key, params: base.PyTree) -> base.PyTree:
  """The method that removes nothing: for biases, first and last layers.

  Args:
    key: not used.
    params: any tree.

  Returns:
    The tree with `True` in place of every leaf.

  Example:
    >>> import structinit_jax as si
    >>> si.pruning.dense(None, {'bias': 0.5})
    {'bias': True}
  """
  del key  # nothing is drawn
  return jax.tree.map(lambda _: True, params)


def prune(
    key: base.Key, params: base.PyTree, rules: Sequence[tuple[str, Method]]
) -> base.PyTree:
  """Prunes a model: the "-T" form, of weights that were trained.

  Train, `prune`, set the removed weights to zero by `masks.apply`, and train
  on with `masks.keep_masked` at the end of the optimizer.

  Args:
    key: a JAX PRNG key.
    params: the parameters of the model.
    rules: ordered pairs `(regex, method)`, as `partition` has them: the first
      whose expression matches the whole name of a leaf prunes it. A method is
      called once, with the nested dictionary of all leaves that its rule
      matched, so that a global threshold is one for all of them.

  Returns:
    Masks in the structure of `params`: boolean arrays, `True` for leaves that
    are not pruned.

  Raises:
    ValueError: for a leaf without a rule, a rule without a leaf, or what a
      method cannot prune; the message names the leaf.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> params = {'stem': {'kernel': jnp.ones((2, 8)), 'bias': jnp.ones(8)},
    ...           'block': {'kernel': jnp.ones((8, 8)), 'bias': jnp.ones(8)}}
    >>> masks = si.pruning.prune(jax.random.key(0), params, [
    ...     ('stem/.*|.*/bias', si.pruning.dense),
    ...     ('.*', si.pruning.local_magnitude(0.75))])
    >>> si.masks.sparsity(masks)
    {'block/kernel': 0.75, 'total': 0.75}

  Source: Esguerra (2023), section 3.5.4 and Figure 3.12.
  """
  names, leaves, treedef = tree.flatten_with_names(params)
  chosen = jax.tree.leaves(combine.labels(
      params, [(pattern, i) for i, (pattern, _) in enumerate(rules)]))
  found: dict[str, Any] = {}
  for i, (_, method) in enumerate(rules):
    matched = {name: leaf for name, leaf, j in zip(
        names, leaves, chosen, strict=True) if j == i}
    kept_names, kept, _ = tree.flatten_with_names(
        method(key, tree.nest(matched)))
    found.update(zip(kept_names, kept, strict=True))
  return treedef.unflatten([found[name] for name in names])


def from_scratch(
    method: Method, weights: base.Initializer) -> base.StructuredInit:
  """Prunes at initialization: the "-S" form, a rule of `partition`.

  A kernel is that of `weights` for the same key, where the mask keeps it, and
  0 elsewhere; nothing is rescaled.

  Args:
    method: what to keep, such as `local_magnitude(0.9)`.
    weights: the Initializer to start from. The thesis's is orthogonal: for
      dense layers `jax.nn.initializers.orthogonal()`, for convolutions
      `jax.nn.initializers.delta_orthogonal()`. For stacked layers
      `si.with_axes` of it, with `axes` of the method the same.

  Returns:
    A StructuredInit of trees of kernels; its `aux` holds the masks.

  Raises:
    ValueError: when called, for a leaf that cannot be made or pruned; the
      message names it.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> orthogonal = jax.nn.initializers.orthogonal()
    >>> init_fn = si.partition([
    ...     ('stem', orthogonal),
    ...     ('.*', si.pruning.from_scratch(
    ...         si.pruning.global_magnitude(0.75), orthogonal))])
    >>> shapes = {name: jax.ShapeDtypeStruct((8, 8), jnp.float32)
    ...           for name in ('stem', 'block_0', 'block_1')}
    >>> params, aux = init_fn.init_with_aux(jax.random.key(0), shapes)
    >>> aux['masks']['stem'], si.masks.sparsity(aux['masks'])['total']
    (True, 0.75)

  Source: Esguerra (2023), section 3.5.4 and Figure 3.12.
  """

  def init_with_aux(
      key: base.Key, shapes: base.PyTree) -> tuple[base.PyTree, base.Aux]:
    names, structs, treedef = tree.flatten_with_names(shapes)
    made = []
    for name, struct in zip(names, structs, strict=True):
      try:
        made.append(
            weights(tree.leaf_key(key, name), struct.shape, struct.dtype))
      except (ValueError, TypeError) as error:
        raise ValueError(
            f'leaf {name!r} of shape {tuple(struct.shape)}: {error}') from error
    params = treedef.unflatten(made)
    kept = method(key, params)
    return masks.apply(params, kept), {'masks': kept}

  def init(key: base.Key, shapes: base.PyTree) -> base.PyTree:
    return init_with_aux(key, shapes)[0]

  return base.StructuredInit(init, init_with_aux)
