"""Activations that keep what an orthogonal layer gives."""

import jax
import jax.numpy as jnp

__all__ = ['crelu', 'maxmin']


def crelu(x: jax.Array, axis: int = -1) -> jax.Array:
  """Concatenated ReLU, `[relu(x), relu(-x)]`: twice the features, no loss.

  It keeps norms, as one of the two is 0 everywhere. Before kernels [Q; -Q] it
  is the identity: layers of `looks_linear=True` start as linear ones.

  Args:
    x: an array.
    axis: of the features.

  Returns:
    An array with twice the features.

  Example:
    >>> import jax.numpy as jnp
    >>> from structinit_jax import layers
    >>> layers.crelu(jnp.array([1., -2.])).tolist()
    [1.0, 0.0, 0.0, 2.0]

  Source: Shang et al., Understanding and improving convolutional neural
    networks via concatenated rectified linear units, ICML 2016.
  """
  return jnp.concatenate([jax.nn.relu(x), jax.nn.relu(-x)], axis=axis)


def maxmin(x: jax.Array, axis: int = -1) -> jax.Array:
  """MaxMin, `[max(a, b), min(a, b)]` of the halves a and b of the features.

  It permutes the entries of a sample: norms are kept, and its Jacobian is
  orthogonal. Distances are not: deep stacks of it bring points together.

  Args:
    x: an array.
    axis: of the features, an even number.

  Returns:
    An array of the same shape.

  Raises:
    ValueError: for an odd number of features, or no such axis.

  Example:
    >>> import jax.numpy as jnp
    >>> from structinit_jax import layers
    >>> layers.maxmin(jnp.array([1., 5., 3., 4.])).tolist()
    [3.0, 5.0, 1.0, 4.0]

  Source: Anil, Lucas, Grosse, Sorting out Lipschitz function approximation,
    ICML 2019.
  """
  if not -x.ndim <= axis < x.ndim:
    raise ValueError(f'x of shape {x.shape} has no axis {axis}')
  size = x.shape[axis]
  if size % 2:
    raise ValueError(
        f'x of shape {x.shape}: maxmin needs an even number of features, got '
        f'{size} on axis {axis}; the nearest that work are {size - 1} and '
        f'{size + 1}')
  a, b = jnp.split(x, 2, axis)
  return jnp.concatenate([jnp.maximum(a, b), jnp.minimum(a, b)], axis=axis)
