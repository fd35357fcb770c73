"""Projections onto sharded parameters: every device makes rows of its own."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from structinit_jax.subspace import projections

__all__ = ['apply', 'check', 'known', 'put']


def check(name: str, shape: tuple[int, ...], sharding: Any) -> None:
  """Checks that a value is a sharding for arrays of this shape, or None."""
  if sharding is None:
    return
  if not isinstance(sharding, jax.sharding.Sharding):
    raise ValueError(
        f'sharding of leaf {name!r} is {sharding!r}; it must be a '
        'jax.sharding.Sharding, such as a NamedSharding, or None')
  if isinstance(sharding, jax.sharding.NamedSharding):
    if jax.P.UNCONSTRAINED in sharding.spec:
      raise ValueError(
          f'sharding of leaf {name!r} leaves an axis open, {sharding.spec}; '
          'None is an axis that is not divided')
    if (isinstance(sharding.mesh, jax.sharding.AbstractMesh)
        and jax.sharding.get_abstract_mesh().empty):
      raise ValueError(
          f'sharding of leaf {name!r} is on {sharding.mesh}, without devices; '
          'give that of a Mesh, or set one by jax.set_mesh')
  try:
    sharding.shard_shape(shape)
  except (IndexError, ValueError) as error:  # a spec too long is the first
    raise ValueError(
        f'leaf {name!r} of shape {shape} cannot have the sharding {sharding}: '
        f'{error}') from error


def known(leaf: jax.Array) -> Any:
  """Returns the sharding of an array, as far as it is known under `jax.jit`."""
  if jax.sharding.get_abstract_mesh().manual_axes:
    return None  # inside a shard_map every device has what it is given
  leaf = jax.typeof(leaf) if isinstance(leaf, jax.core.Tracer) else leaf
  return getattr(leaf, 'sharding', None)


def put(leaf: jax.Array, sharding: Any) -> jax.Array:
  """Returns an array with a sharding; None leaves it where it is."""
  if sharding is None:
    return leaf
  if not isinstance(sharding, jax.sharding.NamedSharding) or not (
      isinstance(leaf, jax.core.Tracer)
      or isinstance(sharding.mesh, jax.sharding.AbstractMesh)):
    return jax.device_put(leaf, sharding)
  explicit = _explicit(sharding)
  auto = _part(sharding, jax.sharding.AxisType.Auto)
  if explicit is not None:
    leaf = jax.sharding.reshard(leaf, explicit)
  return leaf if auto is None else lax.with_sharding_constraint(leaf, auto)


def apply(
    projection: projections.Projection, w: jax.Array,
    shapes: Sequence[tuple[int, ...]], shardings: Sequence[Any],
) -> list[jax.Array]:
  """Returns `P w`, cut into arrays.

  Args:
    projection: of as many rows as the arrays have entries.
    w: array (dim,).
    shapes: of the arrays.
    shardings: of the arrays, or None. Where they are `NamedSharding`s of one
      mesh and the projection is made of blocks, a device makes those that hold
      entries of its own, without communication.

  Returns:
    Arrays of these shapes.
  """
  # What is on explicit axes is moved by request alone.
  explicit = [_explicit(sharding) for sharding in shardings]
  w = _everywhere(w, explicit)
  mesh, axes = _mesh(shardings) if projection.block else (None, ())
  if mesh is not None:
    specs = tuple(s.spec if isinstance(s, jax.sharding.NamedSharding)
                  else jax.P() for s in shardings)
    return _own(projection, w, tuple(shapes), specs, mesh, axes)
  theta = _everywhere(projection.apply(w), explicit)
  parts = [part.reshape(shape) for part, shape in zip(
      jnp.split(theta, _offsets(shapes)[1:]), shapes, strict=True)]
  return [part if sharding is None else jax.sharding.reshard(part, sharding)
          for part, sharding in zip(parts, explicit, strict=True)]


@functools.partial(
    jax.jit, static_argnames=('shapes', 'specs', 'mesh', 'axes'))
def _own(
    projection: projections.Projection, w: jax.Array,
    shapes: tuple[tuple[int, ...], ...], specs: tuple[jax.P, ...], mesh: Any,
    axes: tuple[str, ...],
) -> list[jax.Array]:
  """`apply` on the devices of a mesh, of which `axes` divide the arrays."""
  counts = [mesh.shape[axis] for axis in axes]
  positions = dict(zip(
      axes, np.indices(counts).reshape(len(counts), -1), strict=True))
  shares = [_share(shape, spec, positions, mesh.shape, projection.block)
            for shape, spec in zip(shapes, specs, strict=True)]
  starts = [offset + share.starts
            for offset, share in zip(_offsets(shapes), shares, strict=True)]
  stops = [start + share.length
           for start, share in zip(starts, shares, strict=True)]

  def own(
      projection: projections.Projection, w: jax.Array) -> list[jax.Array]:
    position = lax.axis_index(axes)
    entries, where = projections.runs(
        projection, w, np.concatenate(starts, axis=1),
        np.concatenate(stops, axis=1), position)
    cuts = np.cumsum([start.shape[1] for start in starts])[:-1]
    return [share.take(entries, some, position) for share, some
            in zip(shares, jnp.split(where, cuts.tolist()), strict=True)]

  # Not checked: what no axis divides is alike on all devices, made by each.
  return jax.shard_map(
      own, mesh=mesh, in_specs=jax.P(), out_specs=list(specs),
      check_vma=False)(projection, w)


def _offsets(shapes: Sequence[tuple[int, ...]]) -> list[int]:
  return np.cumsum([0, *map(math.prod, shapes)])[:-1].tolist()


def _explicit(sharding: Any) -> jax.sharding.NamedSharding | None:
  """Returns what a sharding says of explicit axes, if its mesh has any."""
  if not isinstance(sharding, jax.sharding.NamedSharding):
    return None
  return _part(sharding, jax.sharding.AxisType.Explicit)


def _part(
    sharding: jax.sharding.NamedSharding, kind: jax.sharding.AxisType
) -> jax.sharding.NamedSharding | None:
  """Returns what a sharding says of axes of a kind, if its mesh has any."""
  mesh = sharding.mesh
  asked = [name for name, each in zip(
      mesh.axis_names, mesh.axis_types, strict=True) if each == kind]
  if not asked:
    return None
  spec = [tuple(name for name in _names(sharding.spec, axis) if name in asked)
          for axis in range(len(sharding.spec))]
  return jax.sharding.NamedSharding(
      mesh, jax.P(*(names or None for names in spec)))


def _everywhere(x: jax.Array, explicit: Sequence[Any]) -> jax.Array:
  """Puts an array on all devices of a mesh with explicit axes, if there is."""
  for sharding in explicit:
    if sharding is not None:
      return jax.sharding.reshard(
          x, jax.sharding.NamedSharding(sharding.mesh, jax.P()))
  return x


def _mesh(shardings: Sequence[Any]) -> tuple[Any, tuple[str, ...]]:
  """Returns the mesh, or None, and those of its axes that divide an array."""
  named = [sharding for sharding in shardings
           if isinstance(sharding, jax.sharding.NamedSharding)]
  axes = dict.fromkeys(
      name for sharding in named for axis in range(len(sharding.spec))
      for name in _names(sharding.spec, axis))
  if not axes or any(s.mesh != named[0].mesh for s in named):
    return None, ()
  return named[0].mesh, tuple(axes)


def _names(spec: Any, axis: int) -> tuple[str, ...]:
  """Returns the mesh axes that divide an axis of an array."""
  names = spec[axis] if axis < len(spec) else None
  return (names,) if isinstance(names, str) else names or ()


@dataclasses.dataclass(frozen=True)
class _Share:
  """What of an array a device has.

  It is made as runs of entries, for some leading indices each: all that an axis
  behind these divides is made, and then a part of it kept.

  Attributes:
    shape: of the share.
    first: the index of its first entry, (devices, axes).
    made: the shape of what is made.
    starts: of the runs, entries of the array, (devices, runs).
    length: of the runs.
  """

  shape: tuple[int, ...]
  first: np.ndarray
  made: tuple[int, ...]
  starts: np.ndarray
  length: int

  def take(
      self, entries: jax.Array, where: jax.Array, position: jax.Array
  ) -> jax.Array:
    """Returns the share, of runs that start at `where` among the entries."""
    found = jax.vmap(lambda start: lax.dynamic_slice(
        entries, (start,), (self.length,)))(where).reshape(self.made)
    done = np.equal(self.made, self.shape)
    index = jnp.asarray(np.where(done, 0, self.first))[position]
    return lax.dynamic_slice(found, index, self.shape)


def _share(
    shape: tuple[int, ...], spec: Any, positions: Mapping[str, np.ndarray],
    counts: Mapping[str, int], block: int,
) -> _Share:
  """Returns what of an array a device has.

  Args:
    shape: of the array.
    spec: its `PartitionSpec`.
    positions: by mesh axis, indices along it, (devices,).
    counts: by mesh axis, devices along it.
    block: the least length of runs, if there are to be several.
  """
  share = list(shape)
  devices = len(next(iter(positions.values())))
  first = np.zeros((devices, len(shape)), np.int32)
  for axis in range(len(shape)):
    for name in _names(spec, axis):
      share[axis] //= counts[name]
      first[:, axis] = first[:, axis] * counts[name] + positions[name]
    first[:, axis] *= share[axis]
  # Along the last axis that is divided, if no block is made for less than that.
  run = max([0, *(axis for axis in range(len(shape))
                  if share[axis] < shape[axis]
                  and share[axis] * math.prod(shape[axis + 1:]) >= block)])
  made = (*share[:run + 1], *shape[run + 1:])
  strides = [math.prod(shape[axis + 1:]) for axis in range(run + 1)]
  starts = np.zeros((devices, 1), int)
  for axis, stride in enumerate(strides[:len(shape)]):
    leading = np.arange(made[axis] if axis < run else 1)
    at = (first[:, axis:axis + 1] + leading) * stride
    starts = (starts[:, :, None] + at[:, None]).reshape(devices, -1)
  return _Share(
      tuple(share), first, made, starts, math.prod(made[run:]))
