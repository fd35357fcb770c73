"""The dtype that a layer computes in."""

from typing import Any

import flax.linen as nn
import jax

from structinit_jax import base

__all__ = ['promote']


def promote(dtype: Any, *arrays: jax.Array | None) -> list[Any]:
  """Does what `flax.linen.dtypes.promote_dtype` does, of a dtype that is known.

  Args:
    dtype: a layer's, or None.
    *arrays: inputs and parameters; those that are None stay.

  Returns:
    The arrays in `dtype`, or, if it is None, in the one that all promote to.

  Raises:
    ValueError: if `dtype` is not a real floating-point dtype.

  Example:
    >>> import jax.numpy as jnp
    >>> from structinit_jax.layers import dtypes
    >>> x, bias = dtypes.promote('bfloat16', jnp.ones(2), None)
    >>> x.dtype.name, bias
    ('bfloat16', None)

  Source: this library.
  """
  if dtype is not None:
    base.compute_dtype(dtype)  # its errors
  return nn.dtypes.promote_dtype(*arrays, dtype=dtype)
