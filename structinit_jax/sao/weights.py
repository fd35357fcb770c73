"""Exactly orthogonal weights on a topology, stored without the zeros.

Weights are `values`, a tuple with one array `(*spatial, count, d, c)` for every
run of blocks of one shape (`Topology.groups`): a single array where b divides
both sizes, three at most. `to_dense` and `from_dense` map them to and from a
dense kernel `(*spatial, in, out)`.
"""

from collections.abc import Sequence
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax import windows
from structinit_jax.sao import topologies
from structinit_jax.sao import weighing

__all__ = [
    'delta_values', 'eco_values', 'from_dense', 'orthogonal_values', 'to_dense',
]

Values = tuple[jax.Array, ...]
_FREQUENCIES = ('real', 'complex')
_ROWS = 64  # summed at a time; see `_defect`


def check_frequencies(frequencies: str) -> None:
  if frequencies not in _FREQUENCIES:
    raise ValueError(
        f'frequencies {frequencies!r} are unknown; use '
        f'{" or ".join(_FREQUENCIES)}')


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
  """Batched product, also of matrices too small for XLA's to be worth it."""
  if b.shape[-2] * b.shape[-1] <= 64:
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)
  return linalg.matmul(a, b)


def _defect(x: jax.Array) -> jax.Array:
  """Returns `I - x^H x`, to float32's last digits.

  Sums of more than some 64 products lose them: of 512, a few 1e-7 remain.
  """
  *batch, m, n = x.shape
  identity = jnp.broadcast_to(jnp.eye(n, dtype=x.dtype), (*batch, n, n))
  if m <= _ROWS:
    return identity - _product(x.mT.conj(), x)
  pad = [(0, 0)] * len(batch) + [(0, -m % _ROWS), (0, 0)]
  rows = jnp.pad(x, pad).reshape(*batch, -1, _ROWS, n)
  return jax.lax.scan(
      lambda left, part: (left - _product(part.mT.conj(), part), None),
      identity, jnp.moveaxis(rows, -3, 0))[0]


def _haar(
    key: base.Key, shape: tuple[int, ...], dtype: Any, unitary: bool
) -> jax.Array:
  """Samples Haar matrices whose columns (rows, if wide) are orthonormal.

  One step of Newton and Schulz takes float32 QR's error of 1e-6 to 1e-7. It is
  written as a correction, so that the last addition is all that rounds, the
  same however the compiler fuses it.
  """
  *batch, m, n = shape
  tall = (*batch, max(m, n), min(m, n))
  if unitary:
    pair = jax.random.normal(key, (2, *tall), dtype)
    q, r = jnp.linalg.qr(jax.lax.complex(pair[0], pair[1]))
    diagonal = jnp.diagonal(r, axis1=-2, axis2=-1)
    x = q * jnp.sign(diagonal)[..., None, :]
  else:
    x = linalg.haar(key, tall, dtype)
  x = x + 0.5 * _product(x, _defect(x))
  return x if m >= n else x.mT


def _blocks(
    key: base.Key, topology: topologies.Topology, batch: int, tied: bool,
    dtype: Any, unitary: bool = False,
) -> Values:
  """Samples the blocks of `batch` independent orthogonal matrices."""
  if topology.kind == 'weighing':
    return (_weighing_blocks(key, topology, batch, tied, dtype, unitary),)
  found = []
  for i, (count, d, c) in enumerate(topology.groups):
    drawn = _haar(jax.random.fold_in(key, i), (batch, 1 if tied else count, d,
                  c), dtype, unitary)
    found.append(jnp.broadcast_to(drawn, (batch, count, d, c)))
  return tuple(found)


def _weighing_blocks(
    key: base.Key, topology: topologies.Topology, batch: int, tied: bool,
    dtype: Any, unitary: bool,
) -> jax.Array:
  r"""Samples $W_{ji} A_j B_i / \sqrt w$, orthogonal since W, A and B are."""
  order, ((_, d, c),) = topology.blocks, topology.groups
  rows, signs = weighing.develop(order)
  size, count = max(d, c), 1 if tied else order
  left_key, right_key = jax.random.split(key)
  left = _haar(left_key, (batch, count, d, size), dtype, unitary)
  right = _haar(right_key, (batch, count, size, c), dtype, unitary)
  left, right = (
      jnp.broadcast_to(x, (batch, order, *x.shape[2:])) for x in (left, right))
  scale = jnp.asarray(
      signs.reshape(1, -1, 1, 1) / math.sqrt(signs.shape[1]), left.dtype)
  products = linalg.matmul(
      left[:, rows.reshape(-1)], jnp.repeat(right, signs.shape[1], axis=1))
  return products * scale


@functools.partial(
    jax.jit, static_argnames=('topology', 'gain', 'tied', 'dtype'))
def _orthogonal(
    key: base.Key, *, topology: topologies.Topology, gain: float, tied: bool,
    dtype: Any
) -> Values:
  return tuple(gain * x[0] for x in _blocks(key, topology, 1, tied, dtype))


def _finish(values: Values, dtype: Any) -> Values:
  return tuple(x.astype(dtype) for x in values)


def _undrawn(topology: topologies.Topology) -> topologies.Topology:
  """Returns what blocks depend on, so that permutations compile once."""
  topologies.check_topology(topology)
  return topologies.Topology(
      topology.shape, topology.blocks,
      'weighing' if topology.kind == 'weighing' else 'debruijn')


def orthogonal_values(
    key: base.Key, topology: topologies.Topology, *, gain: float = 1.0,
    tied: bool = False, dtype: Any = None,
) -> Values:
  r"""Samples the weights of an exactly orthogonal sparse layer.

  Every block is Haar distributed with orthonormal columns (rows, if it has
  more of them), so the kernel K has $K^T K = gain^2 I$, or $K K^T$ if out > in:
  all min(in, out) singular values are the gain. Blocks of 'weighing' are
  $W_{ji} A_j B_i / \sqrt w$ with Haar A and B.

  Args:
    key: a JAX PRNG key.
    topology: a Topology.
    gain: the singular values.
    tied: whether all blocks of one shape hold the same values, as in the
      thesis's SAO 2.
    dtype: of the result; computed in float32 (float64 for float64).

  Returns:
    A tuple of arrays (count, d, c), one for every run of `topology.groups`.

  Raises:
    ValueError: for a dtype that is not a real floating-point dtype, or what is
      no key, no Topology or no positive gain.

  Example:
    >>> import jax, structinit_jax as si
    >>> layer = si.sao.Topology((64, 64), 16)
    >>> values = si.sao.orthogonal_values(jax.random.key(0), layer)
    >>> [x.shape for x in values]
    [(16, 4, 4)]
    >>> kernel = si.sao.to_dense(values, layer)
    >>> bool(abs(kernel.T @ kernel - jax.numpy.eye(64)).max() < 1e-6)
    True

  Source: Esguerra (2023), Algorithm 2, whose blocks are not Haar distributed.
  """
  base.check_key(key)
  dtype, compute = base.dtypes(dtype)
  return _finish(_orthogonal(
      key, topology=_undrawn(topology), gain=base.positive('gain', gain),
      tied=tied, dtype=compute), dtype)


def delta_values(
    key: base.Key, topology: topologies.Topology, spatial: Sequence[int], *,
    gain: float = 1.0, tied: bool = False, dtype: Any = None,
) -> Values:
  r"""Samples the weights of a sparse delta-orthogonal convolution.

  An orthogonal layer at the tap that a 'SAME' convolution aligns with its
  output, `(k - 1) // 2`; 0 at all others. A kept kernel trains in all its taps,
  a removed one in none. As the convolution is a product with one matrix at
  every position, its singular values are the gain with any padding.

  Args:
    key: a JAX PRNG key.
    topology: of the channels (in, out); in may exceed out.
    spatial: kernel sizes, any number of them.
    gain: the singular values.
    tied: as of `orthogonal_values`.
    dtype: as of `orthogonal_values`.

  Returns:
    A tuple of arrays (*spatial, count, d, c), one for every run of
    `topology.groups`.

  Raises:
    ValueError: for other sizes; as by `orthogonal_values`.

  Example:
    >>> import jax, structinit_jax as si
    >>> layer = si.sao.Topology((32, 16), 4)
    >>> values = si.sao.delta_values(jax.random.key(0), layer, (3, 3))
    >>> [x.shape for x in values]
    [(3, 3, 4, 8, 4)]

  Source: Esguerra (2023), section 3.4.4.1; Xiao et al., Dynamical isometry and
    a mean field theory of CNNs, ICML 2018, algorithm 1.
  """
  spatial = windows.kernel_sizes('spatial', spatial)
  centre = tuple((k - 1) // 2 for k in spatial)
  values = orthogonal_values(key, topology, gain=gain, tied=tied, dtype=dtype)
  return tuple(jnp.zeros((*spatial, *x.shape), x.dtype).at[centre].set(x)
               for x in values)


@functools.lru_cache(maxsize=16)
def _frequencies(
    spatial: tuple[int, ...], kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the inverse DFT of matrices that are given up to conjugation.

  Frequencies p and -p carry conjugate matrices; of every pair one is free.

  Returns:
    Float64 arrays (taps, free): what the real matrices of frequencies with
    p = -p (for `kind='real'` all) are multiplied with, the real parts of the
    others, and their imaginary parts.
  """
  taps = np.stack(np.unravel_index(np.arange(math.prod(spatial)), spatial), 1)
  sizes = np.array(spatial)
  own, pairs = [], []
  for p in taps.tolist():
    minus = ((-np.array(p)) % sizes).tolist()
    if p <= minus:
      (own if p == minus else pairs).append(p)

  def phases(frequencies: list[list[int]]) -> np.ndarray:
    points = np.array(frequencies).reshape(-1, len(spatial))
    return 2 * np.pi * (taps[:, None] * points[None] / sizes).sum(-1)

  fixed = np.cos(phases(own)) / len(taps)
  cosines = 2 * np.cos(phases(pairs)) / len(taps)
  if kind == 'real':
    return np.concatenate([fixed, cosines], axis=1), cosines[:, :0], (
        cosines[:, :0])
  return fixed, cosines, -2 * np.sin(phases(pairs)) / len(taps)


@functools.partial(jax.jit, static_argnames=(
    'topology', 'spatial', 'frequencies', 'gain', 'tied', 'dtype'))
def _eco(
    key: base.Key, *, topology: topologies.Topology, spatial: tuple[int, ...],
    frequencies: str, gain: float, tied: bool, dtype: Any
) -> Values:
  parts = _frequencies(spatial, frequencies)
  own, pairs = parts[0].shape[1], parts[1].shape[1]
  own_key, pair_key = jax.random.split(key)
  drawn = _blocks(own_key, topology, own, tied, dtype)
  if pairs:
    free = _blocks(pair_key, topology, pairs, tied, dtype, True)
    drawn = tuple(jnp.concatenate([x, z.real, z.imag])
                  for x, z in zip(drawn, free, strict=True))
  inverse = jnp.asarray(np.concatenate(parts, axis=1), dtype)
  taps = (linalg.matmul(inverse, x.reshape(len(x), -1)) for x in drawn)
  return tuple(gain * x.reshape(*spatial, *group)
               for x, group in zip(taps, topology.groups, strict=True))


def eco_values(
    key: base.Key, topology: topologies.Topology, spatial: Sequence[int], *,
    frequencies: str = 'real', gain: float = 1.0, tied: bool = False,
    dtype: Any = None,
) -> Values:
  r"""Samples the weights of a sparse, explicitly orthogonal convolution.

  For every frequency p of the grid `spatial` an orthogonal matrix P[p] on the
  one topology, $W = DFT^{-1} P$. Applied with circular padding and dilation
  n / k to an image of n positions, k | n, the convolution has P[u mod k] at
  frequency u, and so all its singular values are the gain.

  * `frequencies='real'`, the thesis's: real matrices with P[-p] = P[p]. Every
    kernel is even, W[-s] = W[s].
  * `frequencies='complex'`: unitary matrices with P[-p] the conjugate of P[p],
    real where p = -p: no such restriction.

  Args:
    key: a JAX PRNG key.
    topology: of the channels (in, out). Blocks are rectangular where the
      thesis pads (in < out) or slices (in > out) a square matrix: the same
      block by block, but no channel is lost.
    spatial: kernel sizes k, any number of them; each has to divide the size of
      the image.
    frequencies: 'real' or 'complex'.
    gain: the singular values.
    tied: as of `orthogonal_values`.
    dtype: as of `orthogonal_values`.

  Returns:
    A tuple of arrays (*spatial, count, d, c), one for every run of
    `topology.groups`.

  Raises:
    ValueError: for unknown frequencies; as by `delta_values`.

  Example:
    >>> import jax, structinit_jax as si
    >>> layer = si.sao.Topology((8, 8), 2)
    >>> values = si.sao.eco_values(jax.random.key(0), layer, (3, 3))
    >>> kernel = si.sao.to_dense(values, layer)
    >>> jax.numpy.linalg.svdvals(jax.numpy.fft.fft2(kernel, axes=(0, 1))
    ...                          ).round(4).min()
    Array(1., dtype=float32)

  Source: Esguerra (2023), section 3.4.4.2; Yu et al., Constructing orthogonal
    convolutions in an explicit manner, ICLR 2022.
  """
  check_frequencies(frequencies)
  base.check_key(key)
  dtype, compute = base.dtypes(dtype)
  return _finish(_eco(
      key, topology=_undrawn(topology),
      spatial=windows.kernel_sizes('spatial', spatial),
      frequencies=frequencies, gain=base.positive('gain', gain), tied=tied,
      dtype=compute), dtype)


def _places(
    topology: topologies.Topology, permutation: jax.Array | np.ndarray | None
) -> list[tuple[Any, Any]]:
  """Returns rows (count, d, 1) and columns (count, 1, c) in the kernel."""
  found: list[tuple[Any, Any]] = []
  for rows, columns in topologies.coordinates(topology):
    if permutation is not None and topology.transposed:
      columns = permutation[columns]
    elif permutation is not None:
      rows = permutation[rows]
    found.append((rows[:, :, None], columns[:, None, :]))
  return found


def scatter(
    values: Sequence[jax.Array], topology: topologies.Topology,
    permutation: jax.Array | np.ndarray | None,
) -> jax.Array:
  """Returns `to_dense` for a permutation that may be traced."""
  if [x.shape[-3:] for x in values] != list(topology.groups):
    raise ValueError(
        f'values of shapes {[x.shape for x in values]} are not those of '
        f'{topology}; their last three axes have to be {topology.groups}')
  spatial = values[0].shape[:-3]
  kernel = jnp.zeros((*spatial, *topology.shape), values[0].dtype)
  places = _places(topology, permutation)
  for x, (rows, columns) in zip(values, places, strict=True):
    kernel = kernel.at[..., rows, columns].set(x, unique_indices=True)
  return kernel


def to_dense(
    values: Sequence[jax.Array], topology: topologies.Topology) -> jax.Array:
  """Returns the dense kernel of sparse weights.

  Args:
    values: arrays (*spatial, count, d, c), one for every run of
      `topology.groups`.
    topology: a Topology.

  Returns:
    The kernel (*spatial, in, out), 0 where the mask is False.

  Raises:
    ValueError: for values of other shapes.

  Example:
    >>> import jax.numpy as jnp, structinit_jax as si
    >>> si.sao.to_dense([jnp.ones((2, 1, 2))], si.sao.Topology((2, 4), 2)
    ...                 ).tolist()
    [[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]

  Source: Esguerra (2023), Algorithm 2.
  """
  return scatter(values, topology, topology.permutation)


def from_dense(kernel: jax.Array, topology: topologies.Topology) -> Values:
  """Returns the sparse weights of a dense kernel; drops what the mask removes.

  Args:
    kernel: array (*spatial, in, out).
    topology: a Topology of shape (in, out).

  Returns:
    A tuple of arrays (*spatial, count, d, c), one for every run of
    `topology.groups`: `to_dense` makes the masked kernel of them.

  Raises:
    ValueError: for a kernel of another shape.

  Example:
    >>> import jax.numpy as jnp, structinit_jax as si
    >>> [x.tolist() for x in si.sao.from_dense(
    ...     jnp.arange(8).reshape(2, 4), si.sao.Topology((2, 4), 2))]
    [[[[0, 2]], [[5, 7]]]]

  Source: the inverse of `to_dense`.
  """
  if kernel.shape[-2:] != topology.shape:
    raise ValueError(
        f'kernel of shape {kernel.shape}: the topology is one of kernels '
        f'(*spatial, {topology.shape[0]}, {topology.shape[1]})')
  return tuple(kernel[..., rows, columns] for rows, columns in _places(
      topology, topology.permutation))
