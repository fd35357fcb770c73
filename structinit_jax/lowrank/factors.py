"""Two factors in place of a kernel."""

from collections.abc import Callable
import functools
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import descent
from structinit_jax import linalg
from structinit_jax.lowrank import duals
from structinit_jax.lowrank import objectives
from structinit_jax.lowrank import solvers

__all__ = ['METHODS', 'NORMS', 'Factors', 'factorize', 'fits']

METHODS = (
    'baseline', 'spectral', 'randomized', 'rescaled', 'exact', 'relu_svd',
    'adam', 'adam_warm')
NORMS = ('best', 'kept')
_OF_NORMS = ('rescaled', 'exact', 'relu_svd')
_LINEAR = ('spectral', 'randomized')
_HOMOGENEOUS = ('relu', 'linear', jax.nn.relu)
# Restarts matter where singular vectors are stationary or few; in a wide layer
# their gain is below a thousandth.
_SMALL, _RESTARTS = 64, 16
_STEPS, _ADAM_STEPS = 500, 1000
# Variance 1 / fan_in, cut at two standard deviations.
lecun_normal = jax.nn.initializers.lecun_normal()


class Factors(NamedTuple):
  """Factors of a kernel, `kernel ~ u @ v`.

  Attributes:
    u: matrix (in, rank).
    v: matrix (rank, out).
  """

  u: jax.Array
  v: jax.Array


def _balance(basis: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns U sqrt(S) and sqrt(S) V^T of `basis @ v`, (d, r) and (r, ...)."""
  flat = v.reshape(len(v), -1)
  squares, turn = jnp.linalg.eigh(linalg.matmul(flat, flat.T))
  floor = jnp.finfo(flat.dtype).eps * jnp.maximum(squares.max(), 1e-30)
  root = jnp.maximum(squares, floor)[::-1] ** 0.25
  # Of many columns a decomposition's are off by more than one rounding.
  basis, turn = map(linalg.newton_schulz, (basis, turn[:, ::-1]))
  return (linalg.matmul(basis, turn) * root[None],
          (linalg.matmul(turn.T, flat) / root[:, None]).reshape(v.shape))


def _adam(
    key: base.Key, start: tuple[jax.Array, jax.Array], w: jax.Array,
    activation: Callable[[jax.Array], jax.Array], *, steps: int, batch: int,
    learning_rate: float,
) -> tuple[jax.Array, jax.Array]:
  """Algorithms 1 and 2: Adam on Gaussian inputs drawn anew at every step."""
  d, windows, _ = w.shape

  def outputs(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return activation(jnp.einsum('bkd,dkn->bn', x, kernel))

  def loss(
      key: base.Key, factors: tuple[jax.Array, jax.Array]) -> jax.Array:
    u, v = factors
    x = jax.random.normal(key, (batch, windows, d), w.dtype)
    inner = jnp.einsum('bkd,dr->bkr', x, u)
    other = activation(jnp.einsum('bkr,rkn->bn', inner, v))
    return ((outputs(x, w) - other)**2).sum(1).mean()

  return descent.descend(
      key, start, loss, steps=steps, learning_rate=learning_rate)[0]


def _fit(
    key: base.Key, w: jax.Array, rank: int, inputs: base.Key, *, method: str,
    activation: objectives.Activation, restarts: int | None, steps: int,
    tolerance: float | None, batch: int, learning_rate: float, norms: str,
) -> tuple[jax.Array, jax.Array]:
  d, windows, n = w.shape
  if method == 'baseline':
    one, other = jax.random.split(key)
    return (lecun_normal(one, (d, rank), w.dtype),
            lecun_normal(other, (rank, windows * n), w.dtype)
            .reshape(rank, windows, n) / math.sqrt(windows))
  dual = duals.dual(activation)
  if norms == 'kept':
    dual = dual.keeping_norms()
  if tolerance is None:
    tolerance = 10 * float(jnp.finfo(w.dtype).eps)
  if method == 'exact':
    if restarts is None:
      restarts = _RESTARTS if min(d, windows * n) <= _SMALL else 0
    found = solvers.solve(
        key, w, rank, dual, restarts=restarts, steps=steps,
        tolerance=tolerance)
    return _balance(found.basis, solvers.columns(found, w))
  if method == 'relu_svd':
    basis = solvers.subsets(w, rank, dual)
    found = solvers.evaluate(basis, w, dual)
    return _balance(basis, solvers.columns(found, w))
  if method == 'adam':
    start = _fit(
        key, w, rank, inputs, method='baseline', activation=activation,
        restarts=restarts, steps=steps, tolerance=tolerance, batch=batch,
        learning_rate=learning_rate, norms=norms)
  else:
    basis = (solvers.sketch if method == 'randomized' else solvers.top)(w, rank)
    v = linalg.matmul(basis.T, w.reshape(d, -1)).reshape(rank, windows, n)
    if method == 'rescaled':
      v = solvers.columns(solvers.evaluate(basis, w, dual), w)
    start = _balance(basis, v)
  if method.startswith('adam'):
    return _adam(inputs, start, w, duals.function(activation), steps=steps,
                 batch=batch, learning_rate=learning_rate)
  return start


def _fit_at_scale(
    key: base.Key, w: jax.Array, rank: int, inputs: base.Key, *, method: str,
    activation: objectives.Activation, **options: Any,
) -> tuple[jax.Array, jax.Array]:
  """Returns the factors at a scale where no square overflows or vanishes."""
  fit = functools.partial(_fit, method=method, activation=activation, **options)
  if not (method in _LINEAR
          or (method in _OF_NORMS and activation in _HOMOGENEOUS)):
    return fit(key, w, rank, inputs)
  _, exponent = jnp.frexp(jnp.abs(w).max())
  half = jnp.ldexp(jnp.ones((), w.dtype), exponent // 2)  # exact to divide by
  u, v = fit(key, w / half / half, rank, inputs)
  return half * u, half * v


@functools.partial(jax.jit, static_argnames=(
    'rank', 'method', 'activation', 'restarts', 'steps', 'tolerance', 'batch',
    'learning_rate', 'norms'))
def fits(
    keys: base.Key | None, w: jax.Array, rank: int,
    inputs: base.Key | None = None, **options: Any,
) -> tuple[jax.Array, jax.Array]:
  """Returns factors (count, d, rank) and (count, rank, windows, n).

  Args:
    keys: PRNG keys (count,); None if the options draw nothing.
    w: matrices (count, d, windows, n).
    rank: of the factors.
    inputs: PRNG key of Adam's inputs, which all matrices see.
    **options: as `check_options` returns them.

  Returns:
    The factors, of all matrices at once.
  """
  return jax.vmap(
      lambda key, w, inputs: _fit_at_scale(key, w, rank, inputs, **options),
      in_axes=(None if keys is None else 0, 0, None))(keys, w, inputs)


def check_options(
    method: str, activation: objectives.Activation, *, restarts: Any,
    steps: Any, tolerance: Any, batch: Any, learning_rate: Any, norms: str,
) -> dict[str, Any]:
  """Returns the options of `fits`, or says which of them cannot be."""
  if method not in METHODS:
    raise ValueError(
        f'method {method!r} is unknown; use {", ".join(METHODS)}')
  if method == 'relu_svd' and activation not in ('relu', jax.nn.relu):
    raise ValueError(
        f"method='relu_svd' is of the ReLU, not of {activation!r}; use "
        "method='exact'")
  duals.dual(activation)
  if norms not in NORMS:
    raise ValueError(f'norms {norms!r} are unknown; use {", ".join(NORMS)}')
  if norms != 'best' and method not in _OF_NORMS:
    raise ValueError(
        f"norms={norms!r} are of {', '.join(_OF_NORMS)}, not of {method!r}")
  if steps is None:
    steps = _ADAM_STEPS if method.startswith('adam') else _STEPS
  if restarts is not None:
    restarts = base.integer('restarts', restarts, 0, 10**6)
  if tolerance is not None:
    tolerance = base.positive('tolerance', tolerance, or_zero=True)
  return {
      'method': method, 'activation': activation, 'restarts': restarts,
      'steps': base.integer('steps', steps, 0), 'tolerance': tolerance,
      'batch': base.integer('batch', batch, 1),
      'learning_rate': base.positive(
          'learning_rate', learning_rate, or_zero=True),
      'norms': norms}


def factorize(
    key: base.Key, kernel: jax.Array, rank: int, *, method: str = 'exact',
    activation: objectives.Activation = 'relu',
    covariance: jax.Array | None = None, restarts: int | None = None,
    steps: int | None = None, tolerance: float | None = None,
    batch: int = 1024, learning_rate: float = 0.01, norms: str = 'best',
) -> Factors:
  r"""Returns two factors of a kernel, the closest past the activation.

  They are balanced, $U = Q \sqrt S$ and $V = \sqrt S R^T$ with orthonormal Q
  and R, but for 'baseline' and after Adam.

  * 'exact' (default): minimises `objective` by an iteration that only descends,
    from the singular vectors on; `solvers` says how.
  * 'spectral': the truncated singular value decomposition.
  * 'randomized': nearly that, from a few products with a random sketch, for
    large kernels whose singular values fall.
  * 'rescaled': the same subspace, columns of the best norms.
  * 'relu_svd': Algorithm 3, the best of all sets of `rank` singular vectors, if
    there are no more than 2^14 of them, else 'rescaled'.
  * 'adam', 'adam_warm': Algorithms 1 and 2, Adam on Gaussian inputs from
    'baseline' and from 'spectral'.
  * 'baseline': factors drawn as kernels are; of the kernel only the shape.

  Args:
    key: a JAX PRNG key.
    kernel: matrix W (in, out).
    rank: from 1 to min(in, out).
    method: one of the above.
    activation: as of `dual`: 'relu', 'gelu', 'linear', 'swish', 'tanh' or an
      elementwise function.
    covariance: of the inputs, (in, in); None is the identity.
    restarts: of 'exact', from random subspaces beside the singular vectors; 16
      by default if min(in, out) is at most 64, else 0.
    steps: iterations at most; 500 by default, 1,000 of Adam.
    tolerance: at which 'exact' stops: the gain of a step relative to the value;
      ten roundings by default.
    batch: inputs of a step of Adam.
    learning_rate: of Adam, at the first step of a cosine.
    norms: of the columns. 'best' minimises the error, for which outputs shrink
      where little of a column is in the subspace; with 'kept' they have those
      of the kernel, so that outputs have its scale, and the subspace is the
      best one for that. Of 'rescaled', 'exact' and 'relu_svd'.

  Returns:
    Factors(u, v) of the kernel's dtype, (in, rank) and (rank, out).

  Raises:
    ValueError: if the kernel is no finite matrix, the rank does not fit it (the
      message says which do), or an option is unknown.

  Example:
    >>> import jax, structinit_jax as si
    >>> w = jax.random.normal(jax.random.key(0), (32, 64)) / 32**.5
    >>> for method in ('spectral', 'rescaled', 'exact'):
    ...   u, v = si.lowrank.factorize(jax.random.key(1), w, 3, method=method)
    ...   print(method, round(float(si.lowrank.objective(w, u, v)), 2))
    spectral 22.02
    rescaled 21.38
    exact 21.35

  Source: Vodrahalli et al. (2022), definition 2.1 and Algorithms 1 to 3; the
    method 'exact' is this library's.
  """
  base.check_key(key)
  given, kernel = kernel, objectives.check_matrix('kernel', kernel)
  dtype = jnp.asarray(given).dtype
  rank = check_rank(kernel.shape, rank)
  options = check_options(
      method, activation, restarts=restarts, steps=steps, tolerance=tolerance,
      batch=batch, learning_rate=learning_rate, norms=norms)
  check_finite('kernel', kernel)
  w, back = kernel, None
  if covariance is not None:
    root, inverse = objectives.root(covariance, len(kernel))
    if rank < min(kernel.shape):  # of full rank the kernel itself is closest
      w = linalg.matmul(root.astype(kernel.dtype), kernel)
      back = inverse
  one, other = jax.random.split(key)
  u, v = (x[0] for x in fits(
      one[None], w[None, :, None], rank, other, **options))
  if back is not None and method != 'baseline':
    u = linalg.matmul(back.astype(u.dtype), u)
  check_found('kernel', u, v)
  return Factors(u.astype(dtype), v[:, 0].astype(dtype))


def check_rank(shape: base.Shape, rank: Any) -> int:
  """Returns the rank, or says which ranks a matrix of this shape has."""
  most = min(shape)
  if most < 1:
    raise ValueError(f'kernel of shape {tuple(shape)} has no entries')
  rank = base.integer('rank', rank)
  if not 1 <= rank <= most:
    raise ValueError(
        f'kernel of shape {tuple(shape)} has no factors of rank {rank}; the '
        f'nearest that works is {min(max(rank, 1), most)}, ranks are from 1 to '
        f'{most}')
  return rank


def check_found(name: str, u: jax.Array, v: jax.Array) -> None:
  """Checks that the factors of a kernel are finite, if they are known yet."""
  for last, x in (('u', u), ('v', v)):
    check_finite(
        f'{name!r} is not finite or too large for its dtype: its factor '
        f'{last!r}', x)


def check_finite(name: str, x: jax.Array) -> None:
  """Checks that an array has no NaN or infinity, where it has values yet."""
  if isinstance(x, jax.core.Tracer):
    return
  with jax.ensure_compile_time_eval():  # x may be a constant of a jit
    finite = bool(jnp.isfinite(x).all())
  if not finite:
    raise ValueError(f'{name} of shape {x.shape} has a NaN or infinite entry')
