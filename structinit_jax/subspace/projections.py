"""Random projections R^d -> R^D as linear operators, made from a key alone."""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any
from typing import NamedTuple

import jax
from jax import lax
from jax.experimental import sparse
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax.subspace import hadamard

__all__ = ['Projection', 'projection', 'runs']

_LEAST_BLOCK = 64  # smaller Hadamard blocks mix too little
_SHRINK = 16  # from the blocks of one size to those of the next
# Columns are made some at a time, of about this many bytes.
_CHUNK_BYTES = 2**23
MAX_BYTES = 2**33
_LEAST, _MOST = (float(x) for x in (
    np.finfo(np.float32).tiny, np.finfo(np.float32).max))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=['key'],
    meta_fields=['kind', 'size', 'dim', 'column_norm'])
@dataclasses.dataclass(frozen=True)
class Projection:
  r"""A fixed random matrix P (size, dim) that is made anew whenever it is used.

  Nothing but the key is stored. It is a pytree with the key as its leaf: an
  argument of jitted functions, mapped over by `jax.vmap` for many seeds.

  Attributes:
    key: the JAX PRNG key that it is made from.
    kind: see `projection`.
    size: D, the number of rows.
    dim: d, the number of columns.
    column_norm: the norm of every column.
  """

  key: base.Key
  kind: str
  size: int
  dim: int
  column_norm: float

  def apply(self, w: jax.Array) -> jax.Array:
    """Returns `P w`.

    Args:
      w: array (dim,); float32 or float64, others are computed in float32.

    Returns:
      Array (size,).

    Raises:
      ValueError: for another shape.
    """
    if jnp.shape(w) != (self.dim,):
      raise ValueError(
          f'w of shape {jnp.shape(w)} must have the {self.dim} entries of a '
          f'subspace of {self.dim} dimensions, shape ({self.dim},)')
    w = jnp.asarray(w)
    return _apply(self, w.astype(base.compute_dtype(w.dtype)))

  def transpose(self, g: jax.Array) -> jax.Array:
    """Returns `P^T g`, the exact adjoint of `apply`.

    Args:
      g: array (size,); float32 or float64, others are computed in float32.

    Returns:
      Array (dim,).

    Raises:
      ValueError: for another shape.
    """
    if jnp.shape(g) != (self.size,):
      raise ValueError(
          f'g of shape {jnp.shape(g)} must have an entry for each of the '
          f'{self.size} parameters, shape ({self.size},)')
    g = jnp.asarray(g)
    g = g.astype(base.compute_dtype(g.dtype))
    _, pull = jax.vjp(self.apply, jnp.zeros(self.dim, g.dtype))
    return pull(g)[0]

  def to_dense(self, max_bytes: int = MAX_BYTES) -> jax.Array:
    """Returns P, float32 (size, dim).

    Args:
      max_bytes: what it may take.

    Raises:
      ValueError: if P is larger.
    """
    _check_bytes(4 * self.size * self.dim, max_bytes,
                 f'the dense matrix ({self.size}, {self.dim})',
                 '`apply` and `transpose` need no matrix')
    rows = lax.map(self.apply, jnp.eye(self.dim, dtype=jnp.float32))
    return rows.T

  def to_bcoo(self, max_bytes: int = MAX_BYTES) -> sparse.BCOO:
    """Returns P with its nonzeros stored, a float32 `BCOO` sorted by rows.

    `jax.experimental.sparse.BCSR.from_bcoo` makes compressed rows of it.

    Args:
      max_bytes: what values and indices may take.

    Raises:
      ValueError: for a kind that is not sparse, or if it takes more.
    """
    entries = _KINDS[self.kind].entries
    if entries is None:
      raise ValueError(
          f'kind={self.kind!r} has hardly a zero to leave out; use to_dense')
    _check_bytes(12 * self.nonzeros, max_bytes,
                 f'P ({self.size}, {self.dim}) as a BCOO',
                 '`apply` and `transpose` need no matrix')
    rows, values = entries(self, _column_keys(self, jnp.arange(self.dim)))
    rows = jnp.broadcast_to(rows, values.shape)
    columns = jnp.broadcast_to(jnp.arange(self.dim)[:, None], rows.shape)
    indices = jnp.stack([rows, columns], axis=-1).reshape(-1, 2)
    scale = self.column_norm / math.sqrt(self.nonzeros // self.dim)
    values = values.reshape(-1).astype(jnp.float32) * scale
    return sparse.BCOO(
        (values, indices), shape=(self.size, self.dim),
        unique_indices=True).sort_indices()

  @property
  def block(self) -> int:
    """Rows of a block that can be made alone; 0 if there are no such blocks."""
    if self.kind != 'hadamard':
      return 0
    count, n = _blocks(self.size, self.dim)[0]
    return n if count > 1 and n >= self.dim else 0

  @property
  def nonzeros(self) -> int:
    """Entries that are not 0; of 'achlioptas' about, of 'hadamard' at most."""
    return _KINDS[self.kind].per_column(self.size, self.dim) * self.dim


class _Kind(NamedTuple):
  """How a kind is made.

  Attributes:
    core: `(projection, w) -> P w` with columns of norm 1.
    per_column: `(size, dim) -> ` the nonzeros of a column.
    bytes: `(size, dim) -> ` the working memory of float32 products in bytes,
      by XLA's account, rounded up.
    entries: `(projection, keys) -> rows, signs` of the columns of these keys,
      both (columns, nonzeros), or one row of rows for all; of sparse kinds.
    published: `(size, dim) -> ` the column norm of the report's code, if any.
  """

  core: Callable[[Projection, jax.Array], jax.Array]
  per_column: Callable[[int, int], int]
  bytes: Callable[[int, int], int]
  entries: Callable[
      [Projection, jax.Array], tuple[jax.Array, jax.Array]] | None = None
  published: Callable[[int, int], float] | None = None


@jax.jit
def _apply(projection: Projection, w: jax.Array) -> jax.Array:
  return _KINDS[projection.kind].core(projection, _scaled(projection, w))


def _scaled(projection: Projection, w: jax.Array) -> jax.Array:
  # Barriers keep XLA from merging this product with others before and after it,
  # so that it is rounded in the same way wherever it is used. What a core ends
  # with, signs and sums, is the same when fused.
  w = lax.optimization_barrier(w)
  return lax.optimization_barrier(w * projection.column_norm)


def runs(
    projection: Projection, w: jax.Array, starts: np.ndarray, stops: np.ndarray,
    chosen: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Makes the blocks of `P w` that hold some runs of its entries.

  Args:
    projection: of a kind that is made of blocks, `projection.block > 0`.
    w: as of `apply`.
    starts: of the runs, integers (choices, runs).
    stops: of the runs, likewise.
    chosen: the row of these; may be traced, so that every device makes others.

  Returns:
    Entries of `P w`, and where among them each run starts, int32 (runs,).
  """
  n = projection.block
  count = _blocks(projection.size, projection.dim)[0][0]
  needed = [
      np.unique(np.concatenate([
          np.arange(start // n, min(count, -(-stop // n)))
          for start, stop in zip(*row, strict=True)]))
      for row in zip(starts, stops, strict=True)]
  # Ascending, and filled up in front: runs that cross into the next block, or
  # from the last one to the smaller blocks behind it, stay runs.
  most = max(1, *map(len, needed))
  which = np.zeros((len(starts), most), np.int32)
  where = np.empty(starts.shape, np.int32)
  for i, (row, some) in enumerate(zip(starts, needed, strict=True)):
    which[i, most - len(some):] = some
    place = most - len(some) + np.searchsorted(some, row // n)
    where[i] = np.where(
        row < count * n, place * n + row % n, row + (most - count) * n)
  w = jnp.asarray(w)
  w = _scaled(projection, w.astype(base.compute_dtype(w.dtype)))
  return (_hadamard(projection, w, jnp.asarray(which)[chosen]),
          jnp.asarray(where)[chosen])


def _blocks(size: int, dim: int) -> list[tuple[int, int]]:
  """Returns `(count, n)`: rows as blocks of n = 2^k, the largest first."""
  n = min(max(_LEAST_BLOCK, 1 << (dim - 1).bit_length()),
          1 << (size.bit_length() - 1))
  found = []
  while size:
    count, size = divmod(size, n)
    if count:
      found.append((count, n))
    n = max(1, n // _SHRINK)
  return found


def _hadamard(
    p: Projection, w: jax.Array, which: jax.Array | None = None) -> jax.Array:
  """Blocks S' H S of all coordinates, or of as many as a block has rows.

  Where these are fewer than d, blocks take turns, so some coordinates are in
  one block more than others: each is scaled by how many there are. Of the
  largest blocks, those of `which` alone are made, if it is given.
  """
  blocks = _blocks(p.size, p.dim)
  times = sum(count for count, n in blocks if n >= p.dim)
  more = sum(count * n for count, n in blocks if n < p.dim)
  times, more = times + more // p.dim, more % p.dim
  scale = [1 / math.sqrt(max(1, times + extra)) for extra in (1, 0)]
  is_more = jnp.arange(p.dim) < more
  bits = iter(hadamard.random_bits(
      p.key, [count * n for count, n in blocks for _ in range(2)]))
  parts, first = [], 0
  for i, (count, n) in enumerate(blocks):
    inner, outer = next(bits), next(bits)
    if i == 0 and which is not None:
      inner, outer = (
          words.reshape(count, -1)[which].reshape(-1, 1)
          for words in (inner, outer))
      count = len(which)
    root = 1 / math.sqrt(n)
    x = w * jnp.where(is_more, scale[0] * root, scale[1] * root).astype(w.dtype)
    if n >= p.dim:
      x = jnp.pad(x, (0, n - p.dim))
      x = jnp.broadcast_to(lax.optimization_barrier(x), (count, n))
    else:
      x = x[(first + jnp.arange(count * n)) % p.dim].reshape(count, n)
      first = (first + count * n) % p.dim
    x = hadamard.transform(hadamard.flip(inner, x))
    parts.append(hadamard.flip(outer, x).reshape(-1))
  return jnp.concatenate(parts)


def _fastfood_blocks(size: int, dim: int) -> tuple[int, int]:
  """Returns `(count, n)`: blocks of n = 2^k rows, the last one truncated."""
  n = max(_LEAST_BLOCK, 1 << (dim - 1).bit_length())
  return -(-size // n), n


def _fastfood(p: Projection, w: jax.Array) -> jax.Array:
  """Blocks H G Q H S: signs S, a permutation Q, a Gaussian diagonal G.

  Entries of H are +1 and -1, so all columns of a block have the norm of G
  times n. Blocks share Q.
  """
  count, n = _fastfood_blocks(p.size, p.dim)
  keys = jax.random.split(p.key, 3)
  bits = hadamard.random_bits(keys[1], [count * n, p.size])
  gaussian = jax.random.normal(keys[0], (count, n), w.dtype)
  # Of the last block only some rows are left, and that much of its norm.
  rows = np.full((count, 1), n)
  rows[-1] -= count * n - p.size
  norm = jnp.sqrt(jnp.sum(
      gaussian**2 * rows.astype(w.dtype), keepdims=True))
  x = jnp.broadcast_to(jnp.pad(w, (0, n - p.dim)), (count, n))
  x = hadamard.transform(hadamard.flip(bits[0], x))
  order = jax.random.permutation(keys[2], n)
  x = x.at[:, order].get(unique_indices=True, mode='promise_in_bounds')
  x = hadamard.transform(x * (gaussian / norm))
  return hadamard.flip(bits[1], x.reshape(-1)[:p.size])


def _srht_block(size: int) -> int:
  """Returns the rows of the Hadamard matrix that holds so many."""
  return 1 << (size - 1).bit_length()


def _srht(p: Projection, w: jax.Array) -> jax.Array:
  """S' H S of one block as large as P, at d of its columns."""
  n = _srht_block(p.size)
  where, how = jax.random.split(p.key)
  bits = hadamard.random_bits(how, [p.dim, p.size])
  x = jnp.zeros(n, w.dtype).at[_strata(where, n, p.dim)].set(
      hadamard.flip(bits[0], w * (1 / math.sqrt(p.size))),
      unique_indices=True, indices_are_sorted=True)
  return hadamard.flip(bits[1], hadamard.transform(x[None])[0, :p.size])


def _identity(p: Projection, w: jax.Array) -> jax.Array:
  return jnp.zeros(p.size, w.dtype).at[_strata(p.key, p.size, p.dim)].set(
      w, unique_indices=True, indices_are_sorted=True)


def _strata(key: base.Key, size: int, count: int) -> jax.Array:
  """Draws `count` ascending numbers below `size`, one of every equal part."""
  each, extra = divmod(size, count)
  part = jnp.arange(count, dtype=jnp.int32)
  first = part * each + jnp.minimum(part, extra)
  width = each + (part < extra).astype(jnp.int32)
  # The bias of the modulo is below width / 2^32.
  bits = jax.random.bits(key, (count,), jnp.uint32)
  return first + (bits % width.astype(jnp.uint32)).astype(jnp.int32)


def _orthonormal(p: Projection, w: jax.Array) -> jax.Array:
  return linalg.matmul(linalg.haar(p.key, (p.size, p.dim), w.dtype), w)


def _column_keys(p: Projection, columns: jax.Array) -> jax.Array:
  return jax.vmap(functools.partial(jax.random.fold_in, p.key))(
      columns.astype(jnp.uint32))


def _chunk(dim: int, bytes_each: int) -> int:
  """Returns how many columns of so many bytes are made at a time."""
  return max(1, min(dim, _CHUNK_BYTES // bytes_each))


def _scan(
    p: Projection, w: jax.Array, bytes_each: int,
    add: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
) -> jax.Array:
  """Adds up columns, some at a time: `add(theta, keys, w)`."""
  chunk = _chunk(p.dim, bytes_each)
  count = -(-p.dim // chunk)
  w = jnp.pad(w, (0, count * chunk - p.dim)).reshape(count, chunk)

  # Made again in the backward pass: stored, they were all of P.
  @jax.checkpoint
  def step(theta: jax.Array, now: Any) -> tuple[jax.Array, None]:
    first, some = now
    return add(theta, _column_keys(p, first + jnp.arange(chunk)), some), None

  first = jnp.arange(count) * chunk
  return lax.scan(step, jnp.zeros(p.size, w.dtype), (first, w))[0]


def _dense(
    draw: Callable[[base.Key, tuple[int, ...], Any], jax.Array]
) -> Callable[[Projection, jax.Array], jax.Array]:
  """Returns the core of independent entries, columns normalised exactly."""

  def core(p: Projection, w: jax.Array) -> jax.Array:
    def add(theta: jax.Array, keys: jax.Array, w: jax.Array) -> jax.Array:
      columns = jax.vmap(lambda key: draw(key, (p.size,), w.dtype))(keys)
      scale = lax.rsqrt(jnp.sum(columns**2, axis=1))
      return theta + linalg.matmul(w * scale, columns)

    return _scan(p, w, p.size * w.dtype.itemsize, add)

  return core


def _ternary(
    key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
  """Entries +1, -1 and 0, with probabilities 1/6, 1/6 and 2/3; not all 0."""
  which, sign = jax.random.split(key)
  bits = jax.random.bits(which, shape, jnp.uint32)
  kept = bits <= jnp.maximum(np.uint32(2**32 // 3), bits.min())
  (words,) = hadamard.random_bits(sign, [math.prod(shape)])
  return jnp.where(kept, hadamard.signs(words, shape, dtype), 0)


def _sparse(
    per_column: Callable[[int, int], int],
    published: Callable[[int, int], float] | None = None,
    nested: bool = False, positive: bool = False,
) -> _Kind:
  """Returns a kind of columns with so many nonzeros, one in every part.

  `nested` draws their rows by one key for all columns, the report's defect. Of
  `positive` columns that are twice as many rows, of which each has half.
  """
  shared = nested and not positive

  def entries(
      p: Projection, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    count = per_column(p.size, p.dim)
    shape = len(keys), count
    where, sign = jax.vmap(jax.random.split, out_axes=1)(keys)

    @jax.vmap
    def signs(key: base.Key) -> jax.Array:
      (words,) = hadamard.random_bits(key, [count])
      return hadamard.signs(words, (count,), jnp.int32)

    if nested and positive:
      most = min(2 * count, p.size)
      pairs = 2 * jnp.arange(count, dtype=jnp.int32)[None]
      pick = pairs + (1 + signs(sign)) // 2
      return (_strata(p.key, p.size, most)[jnp.minimum(pick, most - 1)],
              jnp.ones(shape, jnp.int32))
    rows = jax.vmap(lambda key: _strata(key, p.size, count))(
        p.key[None] if nested else where)
    return rows, jnp.ones(shape, jnp.int32) if positive else signs(sign)

  def core(p: Projection, w: jax.Array) -> jax.Array:
    count = per_column(p.size, p.dim)

    def add(theta: jax.Array, keys: jax.Array, w: jax.Array) -> jax.Array:
      rows, values = entries(p, keys)
      values, w = values.astype(w.dtype), w * (1 / math.sqrt(count))
      if shared:
        return theta.at[rows[0]].add(
            linalg.matmul(w, values), unique_indices=True,
            indices_are_sorted=True)
      return theta.at[rows].add(
          values * w[:, None], mode='promise_in_bounds')

    # XLA would add these sums to a constant that they are added to.
    return lax.optimization_barrier(
        _scan(p, w, 4 * count * w.dtype.itemsize, add))

  def needed(size: int, dim: int) -> int:
    each = 16 * per_column(size, dim)
    return 8 * (size + dim) + 3 * _chunk(dim, each) * each // 2

  return _Kind(core, per_column, needed, entries, published)


def _by_dim(size: int, dim: int) -> int:
  """Returns the nonzeros of a column of density 1 / sqrt(dim)."""
  return max(1, min(size, round(size / math.sqrt(dim))))


def _half(size: int, dim: int) -> int:
  return max(1, _by_dim(size, dim) // 2)


def _by_size(size: int, dim: int) -> int:
  del dim
  return _by_dim(size, size)


def _all(size: int, dim: int) -> int:
  del dim
  return size


def _gain(size: int, dim: int) -> float:
  return math.sqrt(size / dim)


def _per_number(factor: int) -> Callable[[int, int], int]:
  return lambda size, dim: factor * (size + dim)


def _dense_bytes(size: int, dim: int) -> int:
  each = 4 * size
  return 8 * (size + dim) + 9 * _chunk(dim, each) * each // 2


def _fastfood_bytes(size: int, dim: int) -> int:
  count, n = _fastfood_blocks(size, dim)
  return 24 * count * n + 9 * n


def _srht_bytes(size: int, dim: int) -> int:
  return 12 * _srht_block(size) + 5 * (size + dim)


_KINDS = {
    'hadamard': _Kind(_hadamard, _all, _per_number(17)),
    'gaussian': _Kind(
        _dense(jax.random.normal), _all, _dense_bytes, published=_gain),
    'orthonormal': _Kind(
        _orthonormal, _all, lambda size, dim: 12 * size * dim),
    'achlioptas': _Kind(
        _dense(_ternary), lambda size, dim: max(1, round(size / 3)),
        _dense_bytes),
    'very_sparse': _sparse(_by_size),
    'fastfood': _Kind(_fastfood, _all, _fastfood_bytes),
    'srht': _Kind(_srht, _all, _srht_bytes),
    'identity': _Kind(_identity, lambda size, dim: 1, _per_number(8)),
}
for _name, _count, _norm, _positive in (
    ('sparse', _by_dim, lambda size, dim: 1.0, False),
    ('sparse2full', _by_dim, _gain, False),
    ('sparse2', _half, lambda size, dim: math.sqrt(size / (2 * dim)), True),
    ('sparse_original', _by_size, _gain, False)):
  for _nested in (False, True):
    _KINDS[_name + '_nested' * _nested] = _sparse(
        _count, _norm, _nested, _positive)


def _check_bytes(
    needed: int, max_bytes: int, what: str, instead: str) -> None:
  if needed > base.positive('max_bytes', max_bytes):
    raise ValueError(
        f'{what} needs {needed} bytes of memory ({needed / 2**30:.3g} GiB), '
        f'more than max_bytes={max_bytes}; {instead}')


def projection(
    kind: str, key: base.Key, size: int, dim: int, *,
    column_norm: float | None = 1.0, max_bytes: int = MAX_BYTES,
) -> Projection:
  r"""Makes a random projection P (size, dim) = (D, d), as an operator.

  With columns of norm 1, and so $E |P w|^2 = |w|^2$ (equality for orthonormal
  ones):

  * 'hadamard': orthonormal columns for every size, in O(D log d) operations.
    Rows are cut into blocks of n rows, n the power of 2 that holds d: each is
    $S' H S / \sqrt{n}$ with a Hadamard matrix H and random signs S, S'.
    What is left over becomes smaller blocks, of some coordinates each.
  * 'gaussian': independent normal entries, columns normalised.
  * 'orthonormal': Q of a Gaussian matrix; it alone is made whole.
  * 'achlioptas': entries +1, -1, 0 with probabilities 1/6, 1/6, 2/3,
    normalised.
  * 'very_sparse': $\sqrt{D}$ entries a column, of random sign.
  * 'fastfood': blocks $S' H G Q H S$ with a Gaussian diagonal G and a
    permutation Q. Columns of a truncated last block have that norm on average.
  * 'srht': d columns of one $S' H S$ of more than D rows.
  * 'identity': d of the parameters themselves, others stay.
  * the report's: 'sparse' and 'sparse2full', density $1/\sqrt{d}$; 'sparse2',
    half of that, and positive; 'sparse_original', density $1/\sqrt{D}$. Each
    also with its sampler's defect, as 'sparse_nested' and so on: all columns
    have their nonzeros in the same rows, of 'sparse2' each in half of them.

  A sparse column has one nonzero in each of as many equal parts of the rows as
  it has nonzeros: the number is exact, no row is hit twice.

  Args:
    kind: one of these.
    key: a JAX PRNG key.
    size: D.
    dim: d <= D.
    column_norm: the norm of every column. What a learning rate means depends on
      it. None is that of the report's code: $\sqrt{D/d}$ for 'gaussian',
      'sparse2full' and 'sparse_original', $\sqrt{D/2d}$ for 'sparse2', 1 for
      'sparse'; others have none.
    max_bytes: what the working memory of a product may be, in bytes, for
      float32.

  Returns:
    A Projection.

  Raises:
    ValueError: for an unknown kind, sizes that do not fit, a norm that is not
      positive, or if more memory is needed than allowed.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> p = si.subspace.projection('hadamard', jax.random.key(0), 1000, 20)
    >>> dense = p.to_dense()
    >>> bool(abs(dense.T @ dense - jnp.eye(20)).max() < 1e-5)
    True
    >>> theta = p.apply(jnp.ones(20))
    >>> bool(abs(p.transpose(theta) - 1).max() < 1e-5)
    True

  Source: Li, Farkhoor, Liu, Yosinski (2018); Le, Sarlos, Smola (2013) for
    'fastfood'; Achlioptas (2003); Li, Hastie, Church (2006) for 'very_sparse';
    Ailon and Chazelle (2006) and Tropp (2011) for Hadamard matrices with random
    signs; Minut for the variants. The blocks of 'hadamard' are this library's.
  """
  if not isinstance(kind, str) or kind not in _KINDS:
    raise ValueError(f'kind {kind!r} is unknown; use {", ".join(_KINDS)}')
  base.check_key(key)
  size = base.integer('size', size, 1)
  dim = base.integer('dim', dim)
  if not 1 <= dim <= size:
    raise ValueError(
        f'dim={dim} must lie between 1 and the {size} parameters; the nearest '
        f'that works is {min(max(dim, 1), size)}')
  if size >= 2**31:
    raise ValueError(
        f'size={size} must be below 2^31; project the layers one by one '
        '(per_layer)')
  known = _KINDS[kind]
  if column_norm is None:
    if known.published is None:
      raise ValueError(
          f'column_norm=None is for the kinds of the report, not for {kind!r}; '
          'give a number, such as 1.0')
    column_norm = known.published(size, dim)
  norm = base.positive('column_norm', column_norm)
  if not _LEAST <= norm <= _MOST:
    raise ValueError(
        f'column_norm={column_norm} must lie between {_LEAST:.2g} and '
        f'{_MOST:.2g}, as float32 does')
  instead = 'allow that much, or project the layers one by one (per_layer)'
  if kind == 'orthonormal':
    instead = ("kind='hadamard' has orthonormal columns, too, and needs memory "
               'in proportion to size + dim')
  _check_bytes(known.bytes(size, dim), max_bytes,
               f'kind={kind!r} of size={size} and dim={dim}', instead)
  return Projection(key, kind, size, dim, norm)
