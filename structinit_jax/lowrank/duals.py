r"""What an activation makes of correlated Gaussians: its dual kernel.

$K(a, b, \rho) = E\, f(a z_1) f(b z_2)$ for standard Gaussians of correlation
$\rho$. With inputs x ~ N(0, I) a unit sees $\langle x, w \rangle$, so K of the
norms and the cosine of two columns says all of how far their outputs differ.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ['Dual', 'dual']

_NODES, _TERMS = 128, 64
_NEWTON_STEPS = 8


@dataclasses.dataclass(frozen=True)
class Dual:
  """The dual kernel of an activation.

  Attributes:
    product: `(a, b, rho) -> E f(a z1) f(b z2)`, elementwise, differentiable.
    best_norm: `(a, rho, b) -> b`: the norm of a column at that cosine to one
      of norm a whose outputs come closest to the latter's; b is where to start.
  """

  product: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
  best_norm: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

  def error(self, a: jax.Array, b: jax.Array, rho: jax.Array) -> jax.Array:
    """Returns `E (f(a z1) - f(b z2))^2`."""
    one = jnp.ones_like(rho)
    return (self.product(a, a, one) + self.product(b, b, one)
            - 2 * self.product(a, b, rho))

  def keeping_norms(self) -> 'Dual':
    """Returns the same kernel, for columns that keep their norms."""
    return dataclasses.replace(self, best_norm=lambda a, rho, b: a)

  def slope(self, a: jax.Array, b: jax.Array, rho: jax.Array) -> jax.Array:
    """Returns the derivative of `product` by the cosine."""
    return jax.jvp(lambda rho: self.product(a, b, rho), (rho,),
                   (jnp.ones_like(rho),))[1]


@jax.custom_jvp
def _arc(rho: jax.Array) -> jax.Array:
  """`h(rho) = (sqrt(1 - rho^2) + (pi - arccos rho) rho) / pi`."""
  root = jnp.sqrt(jnp.maximum((1 - rho) * (1 + rho), 0))
  return (root + (math.pi - jnp.arctan2(root, rho)) * rho) / math.pi


@_arc.defjvp
def _arc_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  # The chain of derivatives above divides by the root, 0 at +-1.
  (rho,), (t,) = primals, tangents
  return _arc(rho), (1 - jnp.arccos(jnp.clip(rho, -1, 1)) / math.pi) * t


_LINEAR = Dual(lambda a, b, rho: a * b * rho, lambda a, rho, b: a * rho)
_RELU = Dual(lambda a, b, rho: a * b * _arc(rho) / 2,
             lambda a, rho, b: a * _arc(rho))


def _gelu(a: jax.Array, b: jax.Array, rho: jax.Array) -> jax.Array:
  c = a * b * rho
  one, other = 1 + a**2, 1 + b**2
  # one * other - c^2, without the difference of what is nearly equal.
  square = 1 + a**2 + b**2 + (a * b)**2 * (1 - rho) * (1 + rho)
  root = jnp.sqrt(square)
  return ((c**2 + (a * b)**2 * square) / (one * other * root)
          + c * jnp.arctan2(c, root)) / (2 * math.pi) + c / 4


def _newton(
    product: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """Maximises `2 K(a, b, rho) - K(b, b, 1)` over b, from b on, never down."""

  def best_norm(a: jax.Array, rho: jax.Array, b: jax.Array) -> jax.Array:
    one = jnp.ones_like(b)

    def value(b: jax.Array) -> jax.Array:
      return 2 * product(a, b, rho) - product(b, b, one)

    def derivative(b: jax.Array) -> jax.Array:
      return jax.jvp(value, (b,), (one,))[1]

    def step(_: int, b: jax.Array) -> jax.Array:
      first, second = jax.jvp(derivative, (b,), (one,))
      move = jnp.where(second < 0, -first / jnp.where(second < 0, second, 1),
                       jnp.sign(first) * b / 2)
      new = jnp.clip(b + move, b / 2, 2 * b)
      # Values are flat at the maximum: there the slope tells it to a rounding.
      near = (second < 0) & (jnp.abs(move) < 0.01 * b) & (
          jnp.abs(derivative(new)) < jnp.abs(first))
      return jnp.where((value(new) > value(b)) | near, new, b)

    return jax.lax.fori_loop(0, _NEWTON_STEPS, step, b)

  return best_norm


@functools.cache
def _hermite_matrix() -> tuple[np.ndarray, np.ndarray]:
  """Returns nodes x and `w He_k(x) / sqrt(k!)`, rows nodes, columns k."""
  nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
  columns = [np.ones(_NODES), nodes]
  for k in range(1, _TERMS - 1):
    columns.append(
        (nodes * columns[k] - math.sqrt(k) * columns[k - 1])
        / math.sqrt(k + 1))
  weights = weights / weights.sum()
  return nodes, weights[:, None] * np.stack(columns, 1)


def _series(activation: Callable[[jax.Array], jax.Array]) -> Dual:
  """Returns the dual of any smooth function, by Hermite coefficients."""

  def coefficients(a: jax.Array) -> jax.Array:
    nodes, matrix = (jnp.asarray(x, a.dtype) for x in _hermite_matrix())
    return jnp.matmul(activation(jnp.multiply.outer(a, nodes)), matrix,
                      precision=jax.lax.Precision.HIGHEST)

  def product(a: jax.Array, b: jax.Array, rho: jax.Array) -> jax.Array:
    terms = coefficients(a) * coefficients(b)
    # A loop: unrolled, what differentiates it twice takes minutes to trace for
    # a network of many shapes.
    return jax.lax.scan(
        lambda found, term: (found * rho + term, None), jnp.zeros_like(rho),
        jnp.moveaxis(terms, -1, 0), reverse=True)[0]

  return Dual(product, _newton(product))


_DUALS = {'relu': _RELU, 'linear': _LINEAR, 'gelu': Dual(_gelu, _newton(_gelu))}
_FUNCTIONS = {'swish': jax.nn.swish, 'silu': jax.nn.silu, 'tanh': jnp.tanh}


def dual(activation: str | Callable[[jax.Array], jax.Array]) -> Dual:
  """Returns the dual kernel of an activation.

  Args:
    activation: 'relu', 'gelu' (the exact one, x times the normal distribution
      function), 'linear', which have closed forms; 'swish', 'silu', 'tanh' or
      an elementwise function, whose kernel is a Hermite series of 64 terms by
      128 nodes. The series takes a smooth function, and the error grows with
      the norms: of swish it is below 1e-9 up to 2 and 1e-4 up to 4, of tanh
      below 1e-5 and 1e-3; with a kink it is 1e-2. `jax.nn.relu` is 'relu'.

  Returns:
    A Dual.

  Raises:
    ValueError: if it is none of them.

  Example:
    >>> import jax.numpy as jnp
    >>> from structinit_jax.lowrank import duals
    >>> one, cosine = jnp.float32(1), jnp.float32(0.5)
    >>> round(float(duals.dual('relu').product(one, one, cosine)), 4)
    0.3045

  Source: Y. Cho and L. Saul, Kernel methods for deep learning (2009), of the
    ReLU; R. Tsuchida, T. Pearce et al., Avoiding kernel fixed points (2021), of
    GELU; A. Daniely, R. Frostig, Y. Singer, Toward deeper understanding of
    neural networks (2016), of Hermite series.
  """
  known = 'relu' if activation is jax.nn.relu else activation
  if isinstance(known, str) and known in _DUALS:
    return _DUALS[known]
  if isinstance(activation, str):
    if activation not in _FUNCTIONS:
      raise ValueError(
          f'activation {activation!r} is unknown; use '
          f'{", ".join([*_DUALS, *_FUNCTIONS])} or an elementwise function')
    activation = _FUNCTIONS[activation]
  if not callable(activation):
    raise ValueError(
        f'activation {activation!r} must be a name or an elementwise function')
  return _cached_series(activation)


@functools.lru_cache
def _cached_series(activation: Any) -> Dual:
  return _series(activation)


def function(
    activation: str | Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
  """Returns the activation itself.

  Args:
    activation: as of `dual`.

  Returns:
    The elementwise function.

  Raises:
    ValueError: if it is unknown.
  """
  dual(activation)
  if not isinstance(activation, str):
    return activation
  return {
      'relu': jax.nn.relu, 'linear': lambda x: x,
      'gelu': functools.partial(jax.nn.gelu, approximate=False), **_FUNCTIONS
  }[activation]
