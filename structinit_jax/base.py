"""The two protocols and the types they share; no algorithm lives here.

An **Initializer** makes one leaf, `init(key, shape, dtype, out_sharding)`, and
is interchangeable with those of `jax.nn.initializers`. An **InitFn** makes a
whole tree, `params = init_fn(key, shapes)`, and a **StructuredInit** is an
InitFn that can also return the static structure (masks, ranks, packings) that
travels beside the parameters.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math
import operator
from typing import Any
from typing import Protocol
from typing import runtime_checkable

import jax
import jax.numpy as jnp

__all__ = [
    'Aux', 'InitFn', 'Initializer', 'Key', 'LeafInit', 'PyTree', 'Shape',
    'StructuredInit', 'compute_dtype', 'fan_in', 'integer', 'place', 'zeros',
]

PyTree = Any
Key = jax.Array
Shape = Sequence[int]
Aux = dict[str, Any]


@runtime_checkable
class Initializer(Protocol):
  """Makes one array; the protocol of `jax.nn.initializers`."""

  def __call__(
      self, key: Key, shape: Shape, dtype: Any = None, out_sharding: Any = None
  ) -> jax.Array:
    ...


@runtime_checkable
class InitFn(Protocol):
  """Makes a tree of arrays from a tree of `jax.ShapeDtypeStruct`.

  The result has exactly the structure, shapes and dtypes of `shapes`. The key
  of a leaf is `tree.leaf_key(key, name)`, so a leaf does not depend on which
  other leaves there are.
  """

  def __call__(self, key: Key, shapes: PyTree) -> PyTree:
    ...


@dataclasses.dataclass(frozen=True)
class StructuredInit:
  """An InitFn that also knows the static structure of what it makes.

  Attributes:
    init: `(key, shapes) -> params`; calling the object does the same.
    init_with_aux: `(key, shapes) -> (params, aux)`. `aux['masks']` mirrors
      `params`: a boolean array for a masked leaf, a scalar `True` for any
      other. Every other entry maps leaf names to what the leaf's initializer
      says of itself.
    rules: the `(regex, initializer)` pairs behind it, where there are any.
  """

  init: InitFn
  init_with_aux: Callable[[Key, PyTree], tuple[PyTree, Aux]]
  rules: tuple[tuple[str, Any], ...] = ()

  def __call__(self, key: Key, shapes: PyTree) -> PyTree:
    return self.init(key, shapes)


def compute_dtype(dtype: Any) -> Any:
  """Returns the dtype to compute in: float64 for float64, float32 otherwise.

  Args:
    dtype: the dtype of the result.

  Returns:
    A numpy dtype.

  Raises:
    ValueError: if `dtype` is not a real floating-point dtype.
  """
  try:
    dtype = jnp.dtype(dtype)
  except TypeError:
    raise ValueError(f'dtype {dtype!r} is unknown') from None
  if not jnp.issubdtype(dtype, jnp.floating):
    raise ValueError(
        f'dtype {dtype} is not a real floating-point dtype; use float32, '
        'bfloat16, float16 or float64')
  return jnp.dtype('float64' if dtype == jnp.float64 else 'float32')


def integer(name: str, value: Any) -> int:
  """Returns the Python integer of a value.

  Args:
    name: what to call it in an error.
    value: an integer of any type.

  Returns:
    The integer.

  Raises:
    ValueError: if it is none.

  Example:
    >>> import numpy as np
    >>> from structinit_jax import base
    >>> base.integer('num', np.int8(3))
    3

  Source: Python's `operator.index`.
  """
  try:
    return operator.index(value)
  except TypeError:
    raise ValueError(f'{name}={value!r} must be an integer') from None


def fan_in(shape: Shape) -> int:
  """Returns the number of inputs of one output unit of a Flax-shaped kernel.

  Args:
    shape: kernel shape `(..., in, out)`.

  Returns:
    The product of all axes but the last.
  """
  return math.prod(shape[:-1])


def place(x: jax.Array, out_sharding: Any) -> jax.Array:
  """Puts an array on `out_sharding`, under jit or not, on either mesh kind.

  Args:
    x: an array.
    out_sharding: None, a `jax.sharding.Sharding`, or a
      `jax.sharding.PartitionSpec` of the mesh set by `jax.set_mesh`.

  Returns:
    The same values, with that sharding.
  """
  if out_sharding is None:
    return x
  if isinstance(out_sharding, jax.sharding.PartitionSpec):
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
      raise ValueError(
          f'out_sharding={out_sharding} names mesh axes, but no mesh is set: '
          'pass a NamedSharding, or enter `jax.set_mesh(mesh)`')
    types = mesh.axis_types
  elif isinstance(out_sharding, jax.sharding.NamedSharding):
    types = out_sharding.mesh.axis_types
  else:
    return jax.device_put(x, out_sharding)
  if any(t == jax.sharding.AxisType.Explicit for t in types):
    return jax.sharding.reshard(x, out_sharding)
  return jax.lax.with_sharding_constraint(x, out_sharding)


@dataclasses.dataclass(frozen=True)
class LeafInit:
  """An Initializer made of a sampling rule and, maybe, static structure.

  It computes in float32 (float64 where float64 is asked for) and casts last,
  so that a bfloat16 kernel is the rounding of the float32 one.

  Attributes:
    label: how it prints, e.g. `grassmann.packing(layout='taps')`.
    sample: `(key, shape, dtype) -> Array`, `dtype` float32 or float64.
    structure: `(key, shape) -> dict` of static facts, e.g. `{'mask': ...}`.
  """

  label: str
  sample: Callable[[Key, tuple[int, ...], Any], jax.Array]
  structure: Callable[[Key, tuple[int, ...]], dict[str, Any]] | None = None

  def __call__(
      self, key: Key, shape: Shape, dtype: Any = None, out_sharding: Any = None
  ) -> jax.Array:
    dtype = jax.dtypes.canonicalize_dtype(float if dtype is None else dtype)
    x = self.sample(key, tuple(shape), compute_dtype(dtype))
    return place(x.astype(dtype), out_sharding)

  def aux(self, key: Key, shape: Shape) -> dict[str, Any]:
    """Returns the static structure of the leaf that this key makes."""
    return {} if self.structure is None else self.structure(key, tuple(shape))

  def __repr__(self) -> str:
    return self.label


zeros = LeafInit('zeros', lambda key, shape, dtype: jnp.zeros(shape, dtype))
