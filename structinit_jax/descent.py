"""Descent of a sampled loss, jitted as one scan."""

from collections.abc import Callable
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from structinit_jax import base

__all__ = ['descend']


def descend(
    key: base.Key, params: base.PyTree,
    loss: Callable[[base.Key, base.PyTree], jax.Array], *, steps: int,
    learning_rate: float, decay: bool = True,
) -> tuple[base.PyTree, jax.Array]:
  """Minimises a sampled loss by Adam.

  Args:
    key: a JAX PRNG key; every step has its own.
    params: to start from.
    loss: of a key and parameters.
    steps: to make.
    learning_rate: of the first step.
    decay: whether it falls to 0 as a cosine.

  Returns:
    The parameters, and the loss before every step.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from structinit_jax import descent
    >>> x, losses = descent.descend(
    ...     jax.random.key(0), jnp.ones(2), lambda key, x: (x**2).sum(),
    ...     steps=100, learning_rate=0.1)
    >>> bool(abs(x).max() < 0.01), losses.shape
    (True, (100,))

  Source: D. Kingma and J. Ba, Adam, ICLR 2015; I. Loshchilov and F. Hutter,
    SGDR, ICLR 2017, of the cosine.
  """
  optimizer = optax.scale_by_adam()
  angles = jnp.linspace(0, math.pi if decay else 0, steps, dtype=float)
  rates = learning_rate * (1 + jnp.cos(angles)) / 2

  def step(
      carry: Any, inputs: tuple[base.Key, jax.Array]
  ) -> tuple[Any, jax.Array]:
    (params, state), (key, rate) = carry, inputs
    value, slope = jax.value_and_grad(functools.partial(loss, key))(params)
    with jax.numpy_dtype_promotion('standard'):  # optax raises floats to ints
      updates, state = optimizer.update(slope, state)
    params = jax.tree.map(
        lambda p, u: p - rate.astype(p.dtype) * u, params, updates)
    return (params, state), value

  (params, _), losses = jax.lax.scan(
      step, (params, optimizer.init(params)),
      (jax.random.split(key, steps), rates))
  return params, losses
