"""Parameters of one function that make it compute what another one does."""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import descent
from structinit_jax import tree

__all__ = ['Approximation', 'approximate']


class Approximation(NamedTuple):
  """What `approximate` found.

  Attributes:
    params: of the function.
    losses: the error before every step, on that step's inputs (steps,).
  """

  params: base.PyTree
  losses: jax.Array


def approximate(
    key: base.Key, fn: Callable[..., Any], params: base.PyTree,
    target: Callable[..., Any], sample: Callable[[base.Key], Any], *,
    steps: int = 1000, learning_rate: float = 0.01,
) -> Approximation:
  r"""Finds parameters with which a function is the closest to another one.

  $\min_\theta E_x \| f(\theta, x) - g(x) \|^2$ by Adam on inputs drawn anew at
  every step. It serves what `factorize` has no closed form for: a layer of any
  structure, a network as a whole, attention by random features.

  Args:
    key: a JAX PRNG key.
    fn: f, of parameters and a batch of inputs.
    params: to start from; floating-point arrays.
    target: g, of a batch of inputs.
    sample: draws a batch: of a key, its arrays with a leading axis of examples.
    steps: of Adam.
    learning_rate: at the first step of a cosine.

  Returns:
    Approximation(params, losses); a loss is summed over the outputs of an
    example, and a mean over those.

  Raises:
    ValueError: if a parameter is not floating-point (the message names it), the
      outputs of the two differ in structure or shape, or an option is out of
      range.

  Example:
    >>> import flax.linen as nn, jax, structinit_jax as si
    >>> model = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)])
    >>> sample = lambda key: jax.random.normal(key, (128, 32))
    >>> full = model.init(jax.random.key(0), sample(jax.random.key(0)))
    >>> low = si.lowrank.lfai(rest=si.zeros)(
    ...     jax.random.key(1), si.lowrank.factor_shapes(full, rank_scale=0.25))
    >>> params, losses = si.lowrank.approximate(
    ...     jax.random.key(2), si.layers.factored(model.apply), low,
    ...     lambda x: model.apply(full, x), sample, steps=200)
    >>> bool(losses[-10:].mean() < 0.8 * losses[:10].mean())
    True

  Source: Vodrahalli et al. (2022), definition 2.2 and appendix B.
  """
  base.check_key(key)
  steps = base.integer('steps', steps, 1)
  learning_rate = base.positive('learning_rate', learning_rate, or_zero=True)
  names, leaves, _ = tree.flatten_with_names(params)
  for name, leaf in zip(names, leaves, strict=True):
    if not jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating):
      raise ValueError(
          f'leaf {name!r} of dtype {jnp.asarray(leaf).dtype} cannot be found '
          'by descent, which needs real floating-point numbers; let fn hold it')
  params = jax.tree.map(jnp.asarray, params)
  x = jax.eval_shape(sample, key)
  found, want = jax.eval_shape(fn, params, x), jax.eval_shape(target, x)
  if jax.tree.map(jnp.shape, found) != jax.tree.map(jnp.shape, want):
    raise ValueError(
        f'fn returns {jax.tree.map(jnp.shape, found)}, target '
        f'{jax.tree.map(jnp.shape, want)}: they have to be alike')

  def loss(key: base.Key, params: base.PyTree) -> jax.Array:
    x = sample(key)
    errors = jax.tree.map(
        lambda y, z: ((y - z)**2).reshape(len(y), -1).sum(1).mean(),
        fn(params, x), target(x))
    return jax.tree.reduce(jnp.add, errors)

  return Approximation(*jax.jit(functools.partial(
      descent.descend, loss=loss, steps=steps,
      learning_rate=float(learning_rate)))(key, params))
