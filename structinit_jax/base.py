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
    'StructuredInit', 'check_key', 'compute_dtype', 'dtypes', 'fan_in',
    'integer', 'place', 'positive', 'sizes', 'zeros',
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
  if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize > 8:
    raise ValueError(
        f'dtype {dtype} is not a real floating-point dtype of JAX; use '
        'float32, bfloat16, float16 or float64')
  return jnp.dtype('float64' if dtype == jnp.float64 else 'float32')


def dtypes(dtype: Any) -> tuple[Any, Any]:
  """Returns the dtype of a result and that to compute it in.

  Args:
    dtype: a real floating-point dtype; None is the default one. Without x64,
      float64 is float32.

  Returns:
    Two numpy dtypes.

  Raises:
    ValueError: if it is none.
  """
  if dtype is None:
    dtype = float
  compute_dtype(dtype)
  dtype = jax.dtypes.canonicalize_dtype(dtype)
  return dtype, compute_dtype(dtype)


def integer(
    name: str, value: Any, least: int | None = None, most: int | None = None
) -> int:
  """Returns the Python integer of a value.

  Args:
    name: what to call it in an error.
    value: an integer of any type.
    least: what it has to be at least, if anything.
    most: what it has to be at most, if anything.

  Returns:
    The integer.

  Raises:
    ValueError: if it is none, or out of range.

  Example:
    >>> import numpy as np
    >>> from structinit_jax import base
    >>> base.integer('num', np.int8(3), least=2)
    3

  Source: Python's `operator.index`.
  """
  try:
    if isinstance(value, bool):  # an option that was taken for another
      raise TypeError
    found = operator.index(value)
  except TypeError:
    raise ValueError(f'{name}={value!r} must be an integer') from None
  if least is not None and found < least:
    raise ValueError(f'{name}={found} must be at least {least}')
  if most is not None and found > most:
    raise ValueError(f'{name}={found} must be at most {most}')
  return found


def positive(name: str, value: Any, *, or_zero: bool = False) -> float:
  """Returns the Python float of a positive, finite number.

  Args:
    name: what to call it in an error.
    value: a number of any real type.
    or_zero: whether 0 will do.

  Returns:
    The float.

  Raises:
    ValueError: if it is none.

  Example:
    >>> from structinit_jax import base
    >>> base.positive('gain', 2)
    2.0

  Source: this library.
  """
  try:
    found = math.nan if isinstance(value, bool) else float(value)
  except (OverflowError, TypeError, ValueError):
    found = math.nan
  if not (0 < found < math.inf or (or_zero and found == 0)):
    kind = 'finite float of at least 0' if or_zero else 'positive, finite float'
    raise ValueError(f'{name}={value!r} must be a {kind}')
  return found


def check_key(key: Any) -> None:
  """Checks that a value is one JAX PRNG key, of either kind.

  Args:
    key: the value.

  Raises:
    ValueError: if it is none.

  Example:
    >>> import jax
    >>> from structinit_jax import base
    >>> base.check_key(jax.random.key(0))

  Source: the type of `jax.random.key` and that of `jax.random.PRNGKey`.
  """
  dtype = getattr(key, 'dtype', None)
  if dtype is None or not (
      jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
    raise ValueError(
        f'key={key!r} is no JAX PRNG key; make one by jax.random.key(seed)')
  if key.ndim != int(dtype == jnp.uint32):
    raise ValueError(
        f'key of shape {key.shape} is not one key: use jax.vmap over several')


def sizes(shape: Shape) -> tuple[int, ...]:
  """Returns a shape as a tuple of Python integers.

  Args:
    shape: sizes of any integer type.

  Returns:
    The sizes.

  Raises:
    ValueError: if one is no integer, or negative.
  """
  try:
    return tuple(integer('size', size, 0) for size in shape)
  except (TypeError, ValueError) as error:
    raise ValueError(
        f'shape {shape!r} must be a sequence of integers of at least 0'
    ) from error


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
    dtype, compute = dtypes(dtype)
    x = self.sample(key, sizes(shape), compute)
    return place(x.astype(dtype), out_sharding)

  def aux(self, key: Key, shape: Shape) -> dict[str, Any]:
    """Returns the static structure of the leaf that this key makes."""
    return {} if self.structure is None else self.structure(key, sizes(shape))

  def __repr__(self) -> str:
    return self.label


zeros = LeafInit('zeros', lambda key, shape, dtype: jnp.zeros(shape, dtype))
