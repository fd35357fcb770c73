"""Which weights of a layer exist: disjoint blocks, and how they interleave."""

from collections.abc import Sequence
import contextlib
import dataclasses
import itertools
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax.sao import weighing

__all__ = [
    'Topology', 'block_graph', 'layers_to_reach', 'ramanujan_gap',
    'reachability', 'spectrum', 'topology',
]

_KINDS = ('debruijn', 'random', 'thesis', 'weighing')
_PERMUTED = ('random', 'thesis')
_DRAWS = 32  # more than five misses are rare where the gap can be positive
_TOLERANCE = 0.02  # of a density: the error of a fraction of two digits
_CHUNK = 4096  # inputs followed at a time: 512 bytes a unit


@dataclasses.dataclass(frozen=True)
class Topology:
  r"""The static structure of a sparse layer: which entries of a kernel exist.

  A kernel (n, m) = (in, out) is $P_{in} \, diag(V_0 .. V_{b-1}) \, P_{out}$.
  Sizes are split as equally as they can be: with $d = \lfloor n/b \rfloor$
  and $c = \lfloor m/b \rfloor$ every block has d inputs and c outputs, the
  first $n \bmod b$ an input more, the first $m \bmod b$ an output more.

      input r of block p is unit p d + r, or b d + p for r = d,
      output q of block p is unit q b + p,

  so `kernel[p * d + r, q * b + p] = V_p[r, q]`: for equal splits output i takes
  the inputs $(d i + r) \bmod n$, r < d, a generalised de Bruijn digraph. That
  is 'debruijn'. 'random' renames the inputs, unit `permutation[p * d + r]`.
  'thesis' does so on the larger side: with m > n inputs are strided,
  `r * b + p`, and outputs `permutation[...]`.

  'weighing' has no disjoint blocks: of a weighing matrix W of order b every
  entry becomes a block of n/b inputs and m/b outputs. Output q * b + i takes
  the inputs `j * (n // b) + r` of all j with `W[j, i] != 0`.

  It is frozen and hashable: a static field of a module, a static argument of
  `jax.jit`. It stores a permutation, if any, and no other index.

  Attributes:
    shape: `(in, out)`.
    blocks: their number b; for 'weighing' the order of W.
    kind: 'debruijn', 'random', 'thesis' or 'weighing'.
    order: the permutation as the bytes of an int32 array; see `topology`.
  """

  shape: tuple[int, int]
  blocks: int
  kind: str = 'debruijn'
  order: bytes = dataclasses.field(default=b'', repr=False)

  def __post_init__(self) -> None:
    object.__setattr__(self, 'shape', _check_shape(self.shape))
    _check_kind(self.kind)
    object.__setattr__(self, 'blocks', base.integer('blocks', self.blocks))
    n, m = self.shape
    if not 1 <= self.blocks <= min(n, m):
      raise ValueError(
          f'kernel of shape {self.shape}: {self.blocks} blocks; the nearest '
          f'number that works is {max(1, min(self.blocks, n, m))}')
    if self.kind == 'weighing' and self.blocks not in weighing.orders(
        math.gcd(n, m)):
      raise ValueError(
          f'kernel of shape {self.shape}: {self.blocks} has to be a product of '
          '7s and 13s that divides both sizes')
    if not isinstance(self.order, bytes) or (self.order and (
        self.kind not in _PERMUTED or len(self.order) != 4 * self._permuted)):
      raise ValueError(
          f'kernel of shape {self.shape}: the order is not that of '
          f'kind={self.kind!r}; `topology` draws it')
    if self.order and not np.array_equal(
        np.sort(np.frombuffer(self.order, np.int32)),
        np.arange(self._permuted)):
      raise ValueError(
          f'kernel of shape {self.shape}: the order is no permutation of '
          f'{self._permuted} units, as int32; `topology` draws it')

  @property
  def transposed(self) -> bool:
    """Whether outputs, not inputs, are the contiguous side."""
    return self.kind == 'thesis' and self.shape[1] > self.shape[0]

  @property
  def _permuted(self) -> int:
    return self.shape[1] if self.transposed else self.shape[0]

  @property
  def _weight(self) -> int:
    return weighing.weight(self.blocks) if self.kind == 'weighing' else 1

  @property
  def permutation(self) -> np.ndarray | None:
    """The units that stand for the contiguous ones, int32, or None."""
    if self.kind not in _PERMUTED:
      return None
    check_drawn(self)
    return np.frombuffer(self.order, np.int32)

  @property
  def groups(self) -> tuple[tuple[int, int, int], ...]:
    """`(count, d, c)` of the runs of blocks of one shape, three at most.

    For 'weighing', `count` is the number of nonzeros of W.
    """
    (n, m), b = self.shape, self.blocks
    if self.kind == 'weighing':
      return ((b * self._weight, n // b, m // b),)
    cuts = sorted({0, n % b, m % b, b})
    return tuple(
        (end - start, n // b + (start < n % b), m // b + (start < m % b))
        for start, end in itertools.pairwise(cuts))

  @property
  def degree(self) -> int:
    """Inputs of an output; where the split is not equal, one more of some."""
    return self._weight * (self.shape[0] // self.blocks)

  @property
  def nnz(self) -> int:
    """The number of weights."""
    return sum(math.prod(group) for group in self.groups)

  @property
  def density(self) -> float:
    """The fraction of the entries of a dense kernel that exist."""
    return self.nnz / math.prod(self.shape)

  @property
  def mask(self) -> jax.Array:
    """Which entries exist, boolean (in, out); made when asked for."""
    return mask(self, self.permutation)

  def coordinates(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Where the blocks lie, a pair for every run of `groups`.

    Returns:
      Pairs of int32 arrays, rows (count, d) and columns (count, c): entry
      (r, q) of block p of the run is `kernel[rows[p, r], columns[p, q]]`.
    """
    found = coordinates(self)
    permutation = self.permutation
    if permutation is None:
      return found
    if self.transposed:
      return tuple((rows, permutation[columns]) for rows, columns in found)
    return tuple((permutation[rows], columns) for rows, columns in found)

  def describe(self) -> dict[str, Any]:
    r"""Returns what the structure is and how well it connects.

    Returns:
      A dictionary: 'kind', 'shape', 'blocks', 'nnz', 'density'; 'degree', the
      least and most inputs of an output; 'out_degree', the same of an input;
      'spectrum', that of the mask (see `spectrum`); 'expansion',
      $1 - \sigma_2 / \sigma_1$, 0 for disjoint blocks; 'ramanujan_gap',
      $\sqrt{c-1} + \sqrt{d-1} - \sigma_2$ with the mean degrees c and d, not
      negative for a Ramanujan graph; 'thesis_gap', the thesis's
      $2 \sqrt{\sigma_1 - 1} - \lambda_2$, in which $\lambda_2$ is the second of
      the distinct values; 'layers_to_reach', how many such layers connect
      every input to every output (None if more than 64, or if n is not m).
    """
    n, m = self.shape
    degrees = [self._weight * size for _, size, _ in self.groups]
    out_degrees = [self._weight * size for _, _, size in self.groups]
    values = spectrum(self)
    first, second = _top_two(values)
    distinct = values[1][0] if len(values) > 1 else 0.0
    return {
        'kind': self.kind, 'shape': self.shape, 'blocks': self.blocks,
        'nnz': self.nnz, 'density': self.density,
        'degree': (min(degrees), max(degrees)),
        'out_degree': (min(out_degrees), max(out_degrees)),
        'spectrum': values,
        'expansion': 1 - second / first,
        'ramanujan_gap': _bound(self.nnz / n, self.nnz / m) - second,
        'thesis_gap': 2 * math.sqrt(first - 1) - distinct,
        'layers_to_reach': layers_to_reach([self] * 64) if n == m else None,
    }


def check_drawn(topology: Topology) -> None:
  """Raises ValueError for a topology whose permutation was not drawn."""
  if topology.kind in _PERMUTED and not topology.order:
    raise ValueError(
        f'{topology} has no permutation; make it by `topology(key, ...)`')


def check_topology(topology: Any, name: str = 'topology') -> None:
  """Raises ValueError for what is no Topology."""
  if not isinstance(topology, Topology):
    raise ValueError(
        f'{name}={topology!r} is no Topology; make one by '
        '`sao.topology(key, shape, degree=...)`')


def _check_shape(shape: base.Shape) -> tuple[int, int]:
  try:
    n, m = (base.integer('size', size, 1) for size in shape)
  except (TypeError, ValueError):
    raise ValueError(
        'a topology is that of a kernel (in, out), two sizes of at least 1; '
        f'got shape {shape!r}') from None
  return n, m


def _check_kind(kind: str) -> None:
  if kind not in _KINDS:
    raise ValueError(f'kind {kind!r} is unknown; use {", ".join(_KINDS)}')


def _is_finite(value: Any) -> bool:
  try:
    return isinstance(value, numbers.Real) and math.isfinite(value)
  except OverflowError:  # of an int that is no float
    return False


def check_request(
    degree: float | None, density: float | None, kind: str) -> None:
  """Checks what can be checked of a request without a shape."""
  _check_kind(kind)
  if (degree is None) == (density is None):
    raise ValueError(
        f'degree={degree} and density={density}: give one of the two')
  for name, value in (('degree', degree), ('density', density)):
    if value is not None and not _is_finite(value):
      raise ValueError(f'{name}={value!r} must be a finite number')


def check_range(degree: float | None, density: float | None) -> None:
  """Checks that some shape has what is asked for."""
  if degree is not None and not (degree >= 1 and int(degree) == degree):
    raise ValueError(
        f'degree={degree} must be a whole number; the nearest that works for '
        f'some shape is {max(1, round(degree))}')
  if density is not None and not 0 < density <= 1:
    raise ValueError(
        f'density={density} must be above 0 and at most 1 (dense); the nearest '
        'that works for every shape is 1' if density > 1 else
        f'density={density} must be above 0; the least that works is '
        '1 / min(in, out), of degree 1 in a square kernel')


def _options(
    shape: tuple[int, int], kind: str, *near: float) -> dict[int, float]:
  """Returns the density of every choice of blocks around `near`."""
  most = min(shape)
  if kind == 'weighing':
    return {k: weighing.weight(k) / k
            for k in weighing.orders(math.gcd(*shape))}
  around = {round_(b) for b in near for round_ in (math.floor, math.ceil)}
  return {b: 1 / b for b in {max(1, min(most, b)) for b in around}}


def plan(
    shape: base.Shape, degree: float | None, density: float | None, kind: str
) -> Topology:
  """Returns the topology that a request asks for, permutation not yet drawn."""
  check_request(degree, density, kind)
  shape = _check_shape(shape)
  n, m = shape
  if kind == 'weighing' and not weighing.orders(math.gcd(n, m)):
    near = min((tuple(max(p, round(size / p) * p) for size in shape)
                for p in (7, 13)),
               key=lambda sizes: abs(sizes[0] - n) + abs(sizes[1] - m))
    raise ValueError(
        f"kernel of shape {shape}: kind='weighing' needs 7 or 13 to divide "
        f'both sizes; the nearest shape that works is {near}')
  if density is not None:
    density = float(density)  # of 16 bits it would overflow
    near_blocks = 1 / density if density * n * m > 1 else n * m
    options = _options(shape, kind, near_blocks)
    request = f'density={density}'
    works = [b for b, value in options.items()
             if abs(value - density) <= _TOLERANCE * density]
    works.sort(key=lambda b: abs(options[b] - density))
  else:
    degree = degree or 0
    # The most blocks that leave every output enough inputs, and the fewest
    # that leave none too many.
    most = min(n // max(math.ceil(degree), 1) or 1, m)
    fewest = min(n // (max(math.floor(degree), 0) + 1) + 1, n, m)
    options = _options(shape, kind, most, fewest)
    request = f'degree={degree}'
    works = [b for b in sorted(options, reverse=True)
             if Topology(shape, b, kind).degree == degree]
  if works:
    return Topology(shape, works[0], kind)
  shown = ' and '.join(
      f'degree={Topology(shape, b, kind).degree} (density {options[b]:.4g})'
      for b in sorted(options, reverse=True))
  raise ValueError(
      f'kernel of shape {shape}: no kind={kind!r} topology has {request}; the '
      f'nearest that works: {shown}')


def _contiguous(size: int, blocks: int) -> np.ndarray:
  """Returns the block of every unit: runs of units, one each of the rest."""
  p = np.arange(blocks, dtype=np.int32)
  return np.concatenate([np.repeat(p, size // blocks), p[:size % blocks]])


def draw(key: base.Key, topology: Topology) -> jax.Array | None:
  """Draws the permutation of a topology, also under a trace; or None."""
  if topology.kind not in _PERMUTED:
    return None
  size = topology._permuted
  # Drawn now, inside of a jitted function too, unless the key is traced.
  with (contextlib.nullcontext() if isinstance(key, jax.core.Tracer) else
        jax.ensure_compile_time_eval()):
    order = jax.random.permutation(key, size).astype(jnp.int32)
    if topology.kind == 'random':
      return order
    # Algorithm 1: a random unit for every block, then what is left in order.
    labels = _contiguous(size, topology.blocks)
    by_block = np.argsort(labels, kind='stable').astype(np.int32)
    is_first = np.diff(labels[by_block], prepend=-1) > 0
    starts, rest = by_block[is_first], by_block[~is_first]
    return (jnp.zeros(size, jnp.int32)
            .at[starts].set(order[:topology.blocks])
            .at[rest].set(jnp.sort(order[topology.blocks:])))


def drawn(topology: Topology, permutation: jax.Array | None) -> Topology:
  """Returns the topology with its permutation, as a static object."""
  if permutation is None:
    return topology
  return dataclasses.replace(
      topology, order=np.asarray(permutation, np.int32).tobytes())


def coordinates(
    topology: Topology) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
  """Returns `Topology.coordinates` before the permutation."""
  (n, m), b = topology.shape, topology.blocks
  if topology.kind == 'weighing':
    rows = weighing.develop(b)[0].reshape(-1, 1)
    columns = np.repeat(np.arange(b, dtype=np.int32), topology._weight)
    return ((rows * (n // b) + np.arange(n // b, dtype=np.int32),
             columns[:, None] + b * np.arange(m // b, dtype=np.int32)),)
  each = (m if topology.transposed else n) // b
  found, first = [], 0
  for count, d, c in topology.groups:
    p = np.arange(first, first + count, dtype=np.int32)[:, None]
    inner, strided = (np.arange(k, dtype=np.int32) for k in (
        (c, d) if topology.transposed else (d, c)))
    pair = (np.where(inner < each, p * each + inner, b * each + p),
            p + b * strided)
    found.append(pair[::-1] if topology.transposed else pair)
    first += count
  return tuple(found)


def _labels(topology: Topology) -> tuple[np.ndarray, np.ndarray]:
  """Returns the block of every input and output, before the permutation."""
  (n, m), b = topology.shape, topology.blocks
  sides = (n, m)[::-1] if topology.transposed else (n, m)
  labels = (_contiguous(sides[0], b),
            np.arange(sides[1], dtype=np.int32) % b)
  return labels[::-1] if topology.transposed else labels


def mask(topology: Topology, permutation: Any) -> jax.Array:
  """Returns the mask of a topology whose permutation may be traced."""
  rows, columns = (jnp.asarray(side) for side in _labels(topology))
  if permutation is not None and topology.transposed:
    columns = jnp.zeros_like(columns).at[permutation].set(columns)
  elif permutation is not None:
    rows = jnp.zeros_like(rows).at[permutation].set(rows)
  if topology.kind == 'weighing':
    b = topology.blocks
    support = np.zeros((b, b), bool)
    support[weighing.develop(b)[0], np.arange(b)[:, None]] = True
    return jnp.asarray(support)[rows][:, columns]
  return rows[:, None] == columns[None, :]


def topology(
    key: base.Key, shape: base.Shape, *, degree: int | None = None,
    density: float | None = None, kind: str = 'debruijn',
    previous: Topology | None = None,
) -> Topology:
  r"""Makes the structure of a sparse layer that can be exactly orthogonal.

  * 'debruijn': output i takes the inputs $(d i + r) \bmod n$, r < d. L such
    layers of equal splits connect every input to every output iff
    $\prod_l d_l \ge n_0$. So do $\lceil \log_d n \rceil$ layers (n, n) of
    degree d for any n, and where d divides n none can do with fewer. A product
    with the kernel needs no index.
  * 'random': the inputs permuted at random. After `previous` the permutation
    is the first of 32 draws that makes the graph between the blocks of both
    layers Ramanujan, or the one nearest to it; see `ramanujan_gap`.
  * 'thesis': Algorithm 1 of the thesis: every block takes one random unit of
    the larger side, then what is left, in order.
  * 'weighing': the support of a weighing matrix of order $k = 7^a 13^b$ and
    weight $w = 4^a 9^b$, every entry a block (n/k, m/k): one connected
    expander, of density w/k.

  The degree is that of the outputs: each has `degree` inputs, some one more
  where b blocks cannot split n equally. Of all numbers of blocks that do, it
  is the largest. The thesis counts on the smaller side instead; for m > n its
  degree is m / b.

  Args:
    key: a JAX PRNG key; 'debruijn' and 'weighing' do not use it.
    shape: kernel shape (in, out).
    degree: inputs of an output, a whole number.
    density: one over a whole number b <= min(in, out), the blocks, or w/k for
      'weighing'; within 2 %, so that 0.33 is a third. Give it or `degree`.
    kind: 'debruijn', 'random', 'thesis' or 'weighing'.
    previous: for 'random', the topology of the layer before.

  Returns:
    A Topology.

  Raises:
    ValueError: for an unknown kind, a degree or density that the shape does
      not have (the message names the nearest), a `previous` that does not fit,
      or, where a permutation is drawn, a key that is traced or none.

  Example:
    >>> import jax, structinit_jax as si
    >>> layer = si.sao.topology(jax.random.key(0), (256, 256), degree=4)
    >>> layer.nnz, layer.density, si.sao.layers_to_reach([layer] * 9)
    (1024, 0.015625, 4)
    >>> layer.mask.sum(axis=0).tolist() == [4] * 256
    True

  Source: Esguerra (2023), section 3.4.1 and Algorithm 1; Imase and Itoh,
    Design to minimize diameter on building-block network, IEEE Trans. Comput.
    30 (1981) for the generalised de Bruijn digraph; Marcus, Spielman,
    Srivastava (2015) for biregular Ramanujan graphs.
  """
  found = plan(shape, degree, density, kind)
  if previous is not None:
    check_topology(previous, 'previous')
    if kind != 'random' or previous.kind == 'weighing':
      raise ValueError(
          "previous is for kind='random' after a layer of disjoint blocks, not "
          f'for kind={kind!r} after kind={previous.kind!r}')
    _check_chain([previous, found])
  if kind not in _PERMUTED:
    return found
  if isinstance(key, jax.core.Tracer):
    raise ValueError(
        f'kind={kind!r} draws a static permutation from the key, which cannot '
        'be traced: call `topology` outside of jit and vmap')
  base.check_key(key)
  first = drawn(found, draw(key, found))
  if previous is None:
    return first
  best, gap = first, ramanujan_gap(previous, first)
  for i in range(1, _DRAWS):
    if gap >= 0:
      break
    other = drawn(found, draw(jax.random.fold_in(key, i), found))
    other_gap = ramanujan_gap(previous, other)
    if other_gap > gap:
      best, gap = other, other_gap
  return best


def spectrum(topology: Topology) -> tuple[tuple[float, int], ...]:
  r"""Returns the singular values of the mask, in closed form.

  A block of ones (d, c) has $\sqrt{c d}$ once and 0 else, so the largest value
  of disjoint blocks has their number as its multiplicity. The support N of
  W(7, 4) has $N^T N = 2 I + 2 J$, hence 4 and six times $\sqrt 2$, that of
  W(13, 9) $3 I + 6 J$; a Kronecker product multiplies values.

  Args:
    topology: a Topology.

  Returns:
    Pairs `(value, multiplicity)`, values descending; the multiplicities sum
    to min(in, out).

  Example:
    >>> import structinit_jax as si
    >>> si.sao.spectrum(si.sao.Topology((8, 8), 2))
    ((4.0, 2), (0.0, 6))

  Source: the thesis, section 4.1.1, counts every value once.
  """
  squares: dict[int, int] = {}
  if topology.kind == 'weighing':
    ((_, d, c),) = topology.groups
    squares = {d * c: 1}
    for prime in weighing.factors(topology.blocks):
      w = weighing.weight(prime)
      parts = ((w * w, 1), (w * (prime - w) // (prime - 1), prime - 1))
      powers, squares = squares, {}
      for value, times in powers.items():
        for factor, copies in parts:
          squares[value * factor] = (
              squares.get(value * factor, 0) + times * copies)
  else:
    for count, d, c in topology.groups:
      squares[d * c] = squares.get(d * c, 0) + count
  zeros = min(topology.shape) - sum(squares.values())
  if zeros:
    squares[0] = zeros
  return tuple((math.sqrt(value), squares[value])
               for value in sorted(squares, reverse=True))


def _top_two(values: tuple[tuple[float, int], ...]) -> tuple[float, float]:
  first = values[0][0]
  if values[0][1] > 1:
    return first, first
  return first, values[1][0] if len(values) > 1 else 0.0


def _bound(c: float, d: float) -> float:
  return math.sqrt(c - 1) + math.sqrt(d - 1)


def _check_chain(topologies: Sequence[Topology]) -> None:
  if not topologies:
    raise ValueError('a chain of layers has at least one topology; got none')
  for i, (one, other) in enumerate(itertools.pairwise(topologies)):
    if one.shape[1] != other.shape[0]:
      raise ValueError(
          f'topology {i} of shape {one.shape} has {one.shape[1]} outputs, and '
          f'topology {i + 1} of shape {other.shape} {other.shape[0]} inputs; '
          'they must be equal')


def block_graph(first: Topology, second: Topology) -> np.ndarray:
  """Returns how many neurons the blocks of two layers share.

  Vertices are the blocks of both layers, edges the neurons between them. If
  all blocks of `first` have d inputs and all of `second` c outputs, the
  singular values of the product of the masks are those of the graph times
  `sqrt(c d)`.

  Args:
    first: a topology of disjoint blocks.
    second: that of the next layer.

  Returns:
    Counts, int (blocks of first, blocks of second).

  Raises:
    ValueError: if sizes differ, or a topology is of kind 'weighing'.

  Example:
    >>> import structinit_jax as si
    >>> layer = si.sao.Topology((4, 4), 2)
    >>> si.sao.block_graph(layer, layer).tolist()
    [[1, 1], [1, 1]]

  Source: this library; of disjoint blocks it is the thesis's mask contracted.
  """
  _check_chain([first, second])
  if 'weighing' in (first.kind, second.kind):
    raise ValueError("kind='weighing' has no disjoint blocks to make a graph")
  outputs = np.zeros(first.shape[1], np.int64)
  inputs = np.zeros(second.shape[0], np.int64)
  for topology, side, labels in ((first, 1, outputs), (second, 0, inputs)):
    start = 0
    for group in topology.coordinates():
      units = group[side]
      labels[units] = start + np.arange(len(units))[:, None]
      start += len(units)
  size = first.blocks * second.blocks
  return np.bincount(outputs * second.blocks + inputs, minlength=size).reshape(
      first.blocks, second.blocks)


def ramanujan_gap(first: Topology, second: Topology) -> float:
  r"""Returns how far below Ramanujan's bound the block graph stays.

  $\sqrt{c - 1} + \sqrt{d - 1} - \sigma_2$, with the mean outputs c of a block
  of `first`, the mean inputs d of one of `second`, and the second singular
  value of `block_graph`. The graph is Ramanujan iff the gap is not negative.

  Args:
    first: a topology of disjoint blocks.
    second: that of the next layer.

  Returns:
    The gap. It costs a dense SVD of `block_graph`.

  Raises:
    ValueError: as by `block_graph`.

  Example:
    >>> import structinit_jax as si
    >>> layer = si.sao.Topology((16, 16), 4)      # all blocks meet once
    >>> round(si.sao.ramanujan_gap(layer, layer), 4)
    3.4641

  Source: Marcus, Spielman, Srivastava (2015), for the bound of biregular
    graphs.
  """
  graph = block_graph(first, second).astype(np.float64)
  values = np.linalg.svd(graph, compute_uv=False)
  size = first.shape[1]
  gap = _bound(size / first.blocks, size / second.blocks) - (
      values[1] if len(values) > 1 else 0.0)
  # A graph on the bound, such as a cycle, is Ramanujan whatever the rounding.
  return 0.0 if abs(gap) < 1e-9 * values[0] else float(gap)


def _propagate(topology: Topology, reached: np.ndarray) -> np.ndarray:
  """Maps what reaches every input (n, k) to what reaches every output."""
  out = np.zeros((topology.shape[1], reached.shape[1]), reached.dtype)
  step = topology._weight
  for rows, columns in topology.coordinates():
    for t in range(step):  # the blocks of one step have no output in common
      union = np.bitwise_or.reduce(reached[rows[t::step]], axis=1)
      out[columns[t::step]] |= union[:, None]
  return out


def reachability(topologies: Sequence[Topology]) -> np.ndarray:
  """Returns which inputs of a chain of layers reach which outputs.

  Args:
    topologies: of consecutive layers.

  Returns:
    A NumPy boolean array (inputs of the first, outputs of the last).

  Raises:
    ValueError: if two sizes in a row differ, or there is no layer.

  Example:
    >>> import structinit_jax as si
    >>> layer = si.sao.Topology((8, 8), 4)
    >>> [float(si.sao.reachability([layer] * k).mean()) for k in (1, 2, 3)]
    [0.25, 0.5, 1.0]

  Source: Esguerra (2023), section 3.5.1.2.
  """
  _check_chain(topologies)
  reached = np.eye(topologies[0].shape[0], dtype=bool)
  for layer in topologies:
    reached = _propagate(layer, reached)
  return reached.T


def _bounds(
    topologies: Sequence[Topology]) -> tuple[int | None, int | None]:
  """Returns how few layers might reach everything, and how many surely do.

  Of the inputs that a block has, d are one interval, and so are the d k of k
  blocks in a row, the first after the last. Where the blocks of the layer
  before divide what they tile, b d, their images are blocks in a row again. So
  what an output sees grows by d a layer, and has to be all blocks of the first.
  """
  n = topologies[0].shape[0]
  fewest, most, seen = None, None, 1
  for depth, layer in enumerate(topologies, start=1):
    seen *= layer._weight * max(d for _, d, _ in layer.groups)
    if seen >= n:
      fewest = depth
      break
  blocks, seen = topologies[0].blocks, 1
  for depth, (before, layer) in enumerate(
      itertools.pairwise([topologies[0], *topologies]), start=1):
    if layer.kind != 'debruijn':
      break
    each = layer.shape[0] // layer.blocks
    if depth > 1:
      if each * layer.blocks % before.blocks:
        break
      seen *= each
    if seen >= blocks:
      most = depth
      break
  return fewest, most


def layers_to_reach(topologies: Sequence[Topology]) -> int | None:
  r"""Returns after how many layers every input reaches every output.

  No chain does with fewer layers than it takes to make
  $\prod_l d_l \ge n_0$, with the most inputs d_l of an output; 'debruijn' of
  equal splits needs no more, nor do layers (n, n) of one degree d, whether it
  divides n or not, need more than $\lceil \log_d n \rceil$. Where these
  bounds do not settle it, units are followed through the layers.

  Args:
    topologies: of consecutive layers.

  Returns:
    The least L such that the first L layers connect everything, or None.

  Raises:
    ValueError: if two sizes in a row differ, or there is no layer.

  Example:
    >>> import structinit_jax as si
    >>> si.sao.layers_to_reach([si.sao.Topology((10**6, 10**6), 10**5)] * 9)
    6

  Source: Imase and Itoh (1981), theorem 1, for square layers.
  """
  _check_chain(topologies)
  topologies = list(topologies)
  n, b = topologies[0].shape[0], topologies[0].blocks
  depth, most = _bounds(topologies)
  if depth is None:
    return None
  # Blocks without an input more reach least: they come first, and few of them
  # mostly show that it takes as many layers as it can.
  order = np.roll(np.arange(n)[::-1], -(n % b))
  first, size = 0, 8
  while first < n and depth != most:
    units = order[first:first + size]
    reached = np.zeros((n, len(units)), bool)
    reached[units, np.arange(len(units))] = True
    found = _depth(topologies[:most], ~np.packbits(~reached, axis=1))
    if found is None:
      return None
    depth = max(depth, found)
    first, size = first + size, min(2 * size, _CHUNK)
  return depth


def _depth(
    topologies: Sequence[Topology], reached: np.ndarray) -> int | None:
  """Returns after how many layers all bits (n, k) of uint8 are set."""
  for depth, layer in enumerate(topologies, start=1):
    reached = _propagate(layer, reached)
    if (reached == 255).all():
      return depth
  return None
