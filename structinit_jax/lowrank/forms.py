r"""Where the two factors of a kernel of any layer are.

A pair of leaves `u`, `v` stands for a kernel that is a matrix after a
transpose, and the shapes of the two say which:

* dense: u (in, r), v (r, out); attention: v (r, heads, size) or u (heads,
  size, r);
* convolution: u (*k, in, r), v (*l, r, out), two convolutions in a row whose
  windows together are that of the kernel, as no axis is above 1 in both:
  'separable', (1, kw) and (kh, 1), or 'pointwise', (kh, kw) and (1, 1).
"""

import dataclasses
import math

import jax
from jax import lax

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax.lowrank import factors

__all__ = ['FORMS', 'Form', 'form', 'merge', 'of_kernel']

FORMS = ('separable', 'pointwise')


@dataclasses.dataclass(frozen=True)
class Form:
  """How a pair of factors is a product of matrices.

  Attributes:
    u: shape of the first factor.
    v: shape of the second.
    kernel: shape of their product, the kernel of the full layer.
    count: matrices: feature groups of a convolution, 1 else.
    rows: inputs of a matrix, d.
    windows: of the second factor; their columns are of one output.
    rank: r.
  """

  u: tuple[int, ...]
  v: tuple[int, ...]
  kernel: tuple[int, ...]
  count: int
  rows: int
  windows: int
  rank: int

  @property
  def matrix(self) -> tuple[int, int]:
    """Shape of one of the matrices, windows among the columns."""
    return self.rows, math.prod(self.kernel) // (self.count * self.rows)

  def of_rank(self, rank: int) -> 'Form':
    """Returns the form of the same kernel with another rank."""
    groups = self.count if len(self.u) == len(self.v) else 1
    v = list(self.v)
    v[0 if len(self.u) != len(self.v) else -2] = rank
    return form((*self.u[:-1], groups * rank), v)

  @property
  def drawn(self) -> tuple[int, ...]:
    """Shape whose fan-in is that of the layer: attention's is a matrix."""
    return self.kernel if len(self.u) == len(self.v) else self.matrix

  def matrices(
      self, u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the factors as (count, d, r) and (count, r, windows, n)."""
    u = u.reshape(self.rows, self.count, self.rank)
    v = v.reshape(self.windows, self.rank, self.count, -1)
    return u.transpose(1, 0, 2), v.transpose(2, 1, 0, 3)

  def leaves(
      self, u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Inverts `matrices`."""
    return (u.transpose(1, 0, 2).reshape(self.u),
            v.transpose(2, 1, 0, 3).reshape(self.v))

  def _order(self) -> list[int]:
    """Axes of the kernel: rows of the matrix, windows of v, outputs."""
    ndim = len(self.kernel)
    if len(self.u) != len(self.v):
      return list(range(ndim))
    second = [i for i in range(ndim - 2) if self.v[i] > 1]
    return [*(i for i in range(ndim - 1) if i not in second), *second, ndim - 1]

  def to_matrices(self, kernel: jax.Array) -> jax.Array:
    """Returns the kernel as W (count, d, windows, n)."""
    w = kernel.transpose(self._order())
    w = w.reshape(self.rows, self.windows, self.count, -1)
    return w.transpose(2, 0, 1, 3)

  def from_matrices(self, w: jax.Array) -> jax.Array:
    """Inverts `to_matrices`."""
    order = self._order()
    w = w.transpose(1, 2, 0, 3).reshape([self.kernel[i] for i in order])
    return w.transpose([order.index(i) for i in range(len(order))])


def form(u: base.Shape, v: base.Shape) -> Form:
  """Returns the form of two factors, from their shapes.

  Args:
    u: shape of the first.
    v: shape of the second.

  Returns:
    A Form.

  Raises:
    ValueError: if they are no factors of a kernel.

  Example:
    >>> from structinit_jax.lowrank import forms
    >>> forms.form((1, 3, 16, 4), (3, 1, 4, 32)).kernel
    (3, 3, 16, 32)
    >>> forms.form((64, 4), (4, 8, 16)).kernel
    (64, 8, 16)

  Source: Khodak et al., Initialization and regularization of factorized neural
    layers (2021), of 'separable'.
  """
  u, v = base.sizes(u), base.sizes(v)
  fault = ValueError(
      f'u of shape {u} and v of shape {v} are no factors of a kernel: they '
      'have to be (in, r) and (r, out), or (*k, in, r) and (*l, r, out) with '
      'a 1 in k or in l for every spatial axis')
  if min(len(u), len(v)) < 2 or 0 in u + v:
    raise fault
  if len(u) == len(v):
    count, left = divmod(u[-1], v[-2])
    if left or v[-1] % count or (len(u) == 2 and count > 1) or any(
        1 not in pair for pair in zip(u[:-2], v[:-2], strict=True)):
      raise fault
    spatial = tuple(a * b for a, b in zip(u[:-2], v[:-2], strict=True))
    return Form(u, v, (*spatial, u[-2], v[-1]), count, math.prod(u[:-1]),
                math.prod(v[:-2]), v[-2])
  if u[-1] != v[0] or min(len(u), len(v)) > 2:
    raise fault
  return Form(u, v, (*u[:-1], *v[1:]), 1, math.prod(u[:-1]), 1, u[-1])


def of_kernel(
    kernel: base.Shape, rank: int, *, kind: str = 'separable', inputs: int = 0,
    feature_groups: int = 1,
) -> Form:
  """Returns the form of a kernel's factors.

  Args:
    kernel: shape `(*spatial, in, out)`, or of a fused attention kernel.
    rank: of the factors; of every feature group its own.
    kind: 'separable' (the last spatial axis first, then the others) or
      'pointwise' (all of them first), of convolutions.
    inputs: how many leading axes are inputs, of an attention kernel; 0 for
      `(*spatial, in, out)`.
    feature_groups: of a convolution.

  Returns:
    A Form.

  Raises:
    ValueError: for an unknown kind, or a rank or groups that do not fit.

  Example:
    >>> from structinit_jax.lowrank import forms
    >>> found = forms.of_kernel((3, 3, 16, 32), 4)
    >>> found.u, found.v
    ((1, 3, 16, 4), (3, 1, 4, 32))
    >>> found = forms.of_kernel((64, 8, 16), 4, inputs=1)
    >>> found.u, found.v
    ((64, 4), (4, 8, 16))

  Source: Khodak et al. (2021); H. Wang, S. Agarwal, D. Papailiopoulos,
    Pufferfish (2021), of 'pointwise'.
  """
  kernel = base.sizes(kernel)
  rank = base.integer('rank', rank)
  if kind not in FORMS:
    raise ValueError(f'kind {kind!r} is unknown; use {", ".join(FORMS)}')
  if len(kernel) < 2:
    raise ValueError(
        f'kernel of shape {kernel} needs at least an input and an output axis')
  if kernel[-1] % feature_groups:
    raise ValueError(
        f'kernel of shape {kernel}: feature_groups={feature_groups} has to '
        f'divide the outputs, {kernel[-1]}')
  if inputs:
    u, v = kernel[:inputs], kernel[inputs:]
    factors.check_rank((math.prod(u), math.prod(v)), rank)
    return form((*u, rank), (rank, *v))
  *spatial, n_in, n_out = kernel
  ones = [1] * len(spatial)
  if kind == 'pointwise' or not spatial:
    first, second = spatial, ones
  else:
    first, second = [*ones[1:], spatial[-1]], [*spatial[:-1], 1]
  factors.check_rank((
      math.prod(first) * n_in, math.prod(second) * (n_out // feature_groups)),
                     rank)
  return form((*first, n_in, feature_groups * rank), (*second, rank, n_out))


def merge(u: jax.Array, v: jax.Array) -> jax.Array:
  """Returns the kernel that a pair of factors is.

  Args:
    u: first factor.
    v: second factor.

  Returns:
    Array of the full layer's shape; the factorised layer computes what the full
    one does with it.

  Raises:
    ValueError: if they are no factors of a kernel.

  Example:
    >>> import jax.numpy as jnp, structinit_jax as si
    >>> si.lowrank.merge(jnp.ones((1, 3, 8, 2)), jnp.ones((3, 1, 2, 4))).shape
    (3, 3, 8, 4)

  Source: Khodak et al. (2021), section 3.
  """
  found = form(u.shape, v.shape)
  one, other = found.matrices(u, v)
  product = linalg.matmul(one, lax.collapse(other, 2))
  return found.from_matrices(
      product.reshape(found.count, found.rows, found.windows, -1))
