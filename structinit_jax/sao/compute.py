r"""Products and convolutions with sparse kernels, from their values alone.

With features as rows, the inputs of a 'debruijn' layer are its blocks' inputs
already: a reshape (b, d, batch), one batched product, a transpose. The other
kinds first rename or copy rows. Gradients of any order, forward and reverse,
`vmap` and `scan` work as for ordinary JAX. XLA's own transposes are as fast as
hand-written ones if the gather moves whole rows and says that it repeats none,
so the scatter behind it is a copy.

Images stay an axis of their own, the last, from one end of a convolution to the
other: merged with pixels they could not be sharded, and every device would
compute all of them.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import itertools
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax import windows
from structinit_jax.sao import topologies
from structinit_jax.sao import weighing

__all__ = ['conv', 'matmul', 'space_to_depth']

_Runs = Sequence[tuple[int, int]]  # count, size of a block
# Copies a convolution makes at a time: on CPU what its caches hold, and far
# below the 32 MiB from which glibc returns a buffer after every call, to be
# cleared page by page in the next.
_COPY_BYTES = {'cpu': 2**22}
_COPY_BYTES_ELSEWHERE = 2**28


def _take(x: jax.Array, rows: np.ndarray) -> jax.Array:
  return x.at[rows].get(unique_indices=True, mode='promise_in_bounds')


def _split(x: jax.Array, runs: _Runs, strided: bool) -> list[jax.Array]:
  """Cuts rows (n, ...) into blocks, (count, size, ...) for every run.

  Of equal blocks, row r of block p lies at `p * size + r`, or, `strided`, at
  `r * blocks + p`. What some have more comes last, a row each.
  """
  blocks = sum(count for count, _ in runs)
  least = min(size for _, size in runs)
  body, tail = x[:least * blocks], x[least * blocks:][:, None]
  if strided:
    body = body.reshape(least, blocks, *x.shape[1:]).swapaxes(0, 1)
  else:
    body = body.reshape(blocks, least, *x.shape[1:])
  found, first = [], 0
  for count, size in runs:
    part = body[first:first + count]
    if size > least:
      part = jnp.concatenate([part, tail[first:first + count]], axis=1)
    found.append(part)
    first += count
  return found


def _join(parts: Sequence[jax.Array], strided: bool) -> jax.Array:
  """Undoes `_split`."""
  least = min(part.shape[1] for part in parts)
  body = jnp.concatenate([part[:, :least] for part in parts])
  tail = [part[:, least] for part in parts if part.shape[1] > least]
  if strided:
    body = body.swapaxes(0, 1)
  return jnp.concatenate([lax.collapse(body, 0, 2), *tail])


def _inputs(x: jax.Array, topology: topologies.Topology) -> list[jax.Array]:
  """Returns what the blocks of every run take of rows: (count, d, ...)."""
  b = topology.blocks
  if topology.kind == 'weighing':
    x = x.reshape(b, len(x) // b, *x.shape[1:])
    # Of one column of `develop` every row is a permutation.
    return [jnp.concatenate(
        [_take(x, rows) for rows in weighing.develop(b)[0].T], axis=1)]
  order = topology.permutation
  if order is not None and not topology.transposed:
    x = _take(x, order)
  runs = [(count, d) for count, d, _ in topology.groups]
  return _split(x, runs, strided=topology.transposed)


def _outputs(
    parts: Sequence[jax.Array], topology: topologies.Topology) -> jax.Array:
  """Returns rows (m, ...) of the blocks' outputs, (count, c, ...)."""
  y = _join(parts, strided=not topology.transposed)
  order = topology.permutation
  if order is not None and topology.transposed:
    y = _take(y, np.argsort(order).astype(np.int32))
  return y


def _matrices(
    values: Sequence[jax.Array], topology: topologies.Topology, ndim: int,
    last: int = 1,
) -> list[jax.Array]:
  """Returns the matrix of every block, (count, taps * d, last * c).

  The taps of the last axis are among the columns if `last` is their number.
  """
  shapes = [x.shape for x in values]
  if [shape[-3:] for shape in shapes] != list(topology.groups) or any(
      len(shape) != ndim + 3 for shape in shapes):
    raise ValueError(
        f'values of shapes {shapes} are not those of {topology}: they need '
        f'{ndim} spatial axes, and then {topology.groups}')
  if topology.kind == 'weighing':
    ((_, d, c),), b = topology.groups, topology.blocks
    values = [x.reshape(*x.shape[:-3], b, -1, c) for x in values]
  found = []
  for x in values:
    *_, count, d, c = x.shape
    x = x.reshape(-1, last, count, d, c).transpose(2, 0, 3, 1, 4)
    found.append(x.reshape(count, -1, last * c))
  return found


def _transposed(matrix: jax.Array) -> jax.Array:
  return lax.stop_gradient(lax.optimization_barrier(matrix.mT))


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _product(
    matrix: jax.Array, transposed: jax.Array, rows: jax.Array, precision: Any
) -> jax.Array:
  """Multiplies (count, d, c) by (count, d, ...): (count, c, ...).

  XLA's CPU product takes a third longer for a left side that is contracted
  along its first axis, so the transposed matrices are there as well.
  """
  del matrix
  return jnp.einsum(
      'pcd,pd...->pc...', transposed, rows, precision=precision)


@_product.defjvp
def _product_jvp(
    precision: Any, primals: Sequence[jax.Array], tangents: Sequence[jax.Array],
) -> tuple[jax.Array, jax.Array]:
  # Of this one the backward pass is contracted along the last axis.
  plain = functools.partial(
      jnp.einsum, 'pdc,pd...->pc...', precision=precision)
  (matrix, _, rows), (d_matrix, _, d_rows) = primals, tangents
  return (_product(*primals, precision),
          plain(d_matrix, rows) + plain(matrix, d_rows))


def _check_inputs(
    x: jax.Array, axis: int, topology: topologies.Topology) -> None:
  if not -x.ndim <= axis < x.ndim:
    raise ValueError(f'x of shape {x.shape} has no axis {axis}')
  if x.shape[axis] != topology.shape[0]:
    raise ValueError(
        f'x of shape {x.shape}: axis {axis} has {x.shape[axis]} features; '
        f'{topology} takes {topology.shape[0]}')


def _promote(
    x: Any, values: Sequence[Any]) -> tuple[jax.Array, list[jax.Array]]:
  dtype = jnp.result_type(x, *values)
  return jnp.asarray(x, dtype), [jnp.asarray(v, dtype) for v in values]


def matmul(
    x: jax.Array, values: Sequence[jax.Array], topology: topologies.Topology,
    *, axis: int = -1, precision: Any = None,
) -> jax.Array:
  r"""Multiplies by a sparse kernel, `x @ to_dense(values, topology)`.

  It takes `2 nnz` operations a row instead of `2 n m`. Features are worked on
  as rows: with `axis=0` a stack of layers needs no transpose, with `axis=-1`
  each pays two.

  Args:
    x: array with the features, `in` of them, on `axis`.
    values: arrays (count, d, c), one for every run of `topology.groups`, as
      `orthogonal_values` and `from_dense` return them.
    topology: a Topology.
    axis: of the features.
    precision: as of `jax.lax.dot`.

  Returns:
    Array of x's shape, but `out` features.

  Raises:
    ValueError: for another number of features, or values of other shapes.

  Example:
    >>> import jax, structinit_jax as si
    >>> layer = si.sao.Topology((256, 128), 32)
    >>> values = si.sao.orthogonal_values(jax.random.key(0), layer)
    >>> x = jax.random.normal(jax.random.key(1), (5, 256))
    >>> y = si.sao.matmul(x, values, layer)
    >>> bool(abs(y - x @ si.sao.to_dense(values, layer)).max() < 1e-5)
    True
    >>> bool((si.sao.matmul(x.T, values, layer, axis=0) == y.T).all())
    True

  Source: this library; the masks are those of Esguerra (2023), Algorithm 1.
  """
  _check_inputs(x, axis, topology)
  x, values = _promote(x, values)
  matrices = _matrices(values, topology, 0)
  rows = jnp.moveaxis(x, axis, 0)
  parts = _inputs(rows.reshape(rows.shape[0], -1), topology)
  y = _outputs([
      _product(matrix, _transposed(matrix), part, precision)
      for matrix, part in zip(matrices, parts, strict=True)], topology)
  return jnp.moveaxis(
      y.reshape(topology.shape[1], *rows.shape[1:]), 0, axis)


def conv(
    x: jax.Array, values: Sequence[jax.Array], topology: topologies.Topology,
    *, bias: jax.Array | None = None, strides: int | Sequence[int] | None = 1,
    padding: int | str | Sequence[Sequence[int]] = 'SAME',
    dilation: int | Sequence[int] | None = 1, precision: Any = None,
) -> jax.Array:
  """Convolves with sparse kernels, from the values that exist.

  What `lax.conv_general_dilated` does with `to_dense(values, topology)`, in
  `density` times the operations: channels become rows, the taps of a block's
  channels its inputs, and one batched product is left. The patches are made of
  some images at a time, and again in the backward pass, so none are stored.

  Args:
    x: images (*batch, *spatial, in).
    values: arrays (*kernel, count, d, c), one for every run of
      `topology.groups`, as `delta_values` and `eco_values` return them; the
      axes of `kernel` are as many as those of `spatial`.
    topology: of the channels (in, out).
    bias: array (out,) to add while outputs are in the cache, or None; it is
      promoted with x and the values.
    strides: one for all spatial axes, or one each.
    padding: pairs, an int or a name, as of `flax.linen.Conv`; not 'REFLECT'.
      Negative pairs cut.
    dilation: of the kernel; one for all axes, or one each.
    precision: as of `jax.lax.dot`.

  Returns:
    Images (*batch, *spatial, out).

  Raises:
    ValueError: for another number of channels, values or a bias of other
      shapes, strides or a dilation that do not fit them, or a padding that is
      unknown.

  Example:
    >>> import jax, structinit_jax as si
    >>> layer = si.sao.Topology((64, 32), 16)
    >>> values = si.sao.delta_values(jax.random.key(0), layer, (3, 3))
    >>> x = jax.random.normal(jax.random.key(1), (2, 8, 8, 64))
    >>> y = si.sao.conv(x, values, layer)
    >>> z = jax.lax.conv_general_dilated(
    ...     x, si.sao.to_dense(values, layer), (1, 1), 'SAME',
    ...     dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    >>> y.shape, bool(abs(y - z).max() < 1e-5)
    ((2, 8, 8, 32), True)

  Source: this library; the kernels are those of Esguerra (2023), 3.4.4.
  """
  _check_inputs(x, -1, topology)
  if bias is None:
    x, values = _promote(x, values)
  else:
    x, (bias, *values) = _promote(x, [bias, *values])
    if bias.shape != topology.shape[1:]:
      raise ValueError(
          f'bias of shape {bias.shape}: {topology} makes {topology.shape[1]} '
          f'channels, so a bias has shape {topology.shape[1:]}')
  kernel = tuple(values[0].shape[:-3]) if len(values) else ()
  if not math.prod(kernel) or not kernel:
    raise ValueError(
        f'values of shapes {[v.shape for v in values]} have no taps: they are '
        '(*kernel, count, d, c); for (count, d, c) use matmul')
  ndim = len(kernel)
  if x.ndim <= ndim:
    raise ValueError(
        f'x of shape {x.shape}: kernels of shape {kernel} are for images '
        f'(*batch, *spatial, {topology.shape[0]}), {ndim} spatial axes')
  strides = windows.per_axis('strides', strides, ndim)
  dilation = windows.per_axis('dilation', dilation, ndim)
  spans = windows.spans(kernel, dilation)
  batch, spatial = x.shape[:-ndim - 1], x.shape[-ndim - 1:-1]
  pads = windows.pads(padding, spatial, spans, strides)
  out = tuple(
      (size + sum(pad) - span) // stride + 1 for size, pad, span, stride
      in zip(spatial, pads, spans, strides, strict=True))
  if min(out, default=1) < 1:
    raise ValueError(
        f'x of shape {x.shape}: a kernel that spans {spans} pixels '
        f'does not fit with padding={padding!r}; the smallest image that works '
        f'is {tuple(w - sum(p) for w, p in zip(spans, pads, strict=True))}')

  # A 3x3 kernel needs 3 copies of the inputs and 3 of the outputs; with all
  # taps at the inputs it were 9. With a stride most outputs would be dropped.
  inner = ndim - (strides[-1:] == (1,))
  wrap = windows.is_circular(padding)
  last = math.prod(kernel[inner:])
  columns = spatial[-1] if inner < ndim else out[-1]
  # Gradients are added up group after group: of 16 bits most would be lost.
  wide = base.compute_dtype(x.dtype) if jnp.issubdtype(
      x.dtype, jnp.floating) else x.dtype
  matrices = [(matrix.astype(wide), _transposed(matrix)) for matrix in
              _matrices(values, topology, ndim, last)]
  bias = None if bias is None else bias.astype(wide)
  taps = _taps(*(
      sizes[:inner] for sizes in (kernel, dilation, strides, out)))

  @jax.checkpoint
  def product(
      part: jax.Array, matrix: jax.Array, transposed: jax.Array) -> jax.Array:
    rest = part.shape[2 + inner:]
    rows = jnp.concatenate([
        lax.slice(part, (0, 0, *start, *(0 for _ in rest)),
                  (*part.shape[:2], *stop, *rest),
                  (1, 1, *strides[:inner], *(1 for _ in rest)))
        for start, stop in taps], axis=1)
    sizes = rows.shape[2:]
    if jax.device_count() == 1:  # nothing to shard, and faster on CPU
      rows = lax.collapse(rows, 2)
    z = _product(matrix.astype(rows.dtype), transposed, rows, precision)
    z = z.reshape(len(part), last, matrix.shape[-1] // last, *sizes)
    if inner == ndim:
      return z[:, 0]
    return functools.reduce(jnp.add, (
        _columns(y[:, 0], tap * dilation[-1] - pads[-1][0], out[-1], wrap)
        for tap, y in enumerate(lax.split(z, [1] * last, axis=1))))

  def copied(matrix: jax.Array) -> int:  # bytes, of a block and image
    return x.dtype.itemsize * math.prod(out[:-1]) * columns * sum(
        matrix.shape[1:])

  @jax.checkpoint
  def some(channels: jax.Array, bias: jax.Array | None) -> jax.Array:
    outer = [(0, 0), *pads[:inner], *[(0, 0)] * (ndim - inner + 1)]
    channels = windows.pad(channels, outer, padding)
    sizes = channels.shape[1:]
    products = []
    for (matrix, transposed), part in zip(
        matrices, _inputs(channels, topology), strict=True):
      chunk = _chunk(len(part), sizes[-1] * copied(matrix))
      products.append(_batched(product, chunk, part, matrix, transposed))
    y = _outputs(products, topology)
    if bias is not None:
      y = y.astype(wide) + jnp.expand_dims(bias, range(1, y.ndim))
    return y.astype(x.dtype)

  images = x.reshape(math.prod(batch), *x.shape[-ndim - 1:])
  devices = math.gcd(len(images), jax.device_count())
  size = devices * _chunk(
      len(images) // devices,
      sum(len(matrix) * copied(matrix) for matrix, _ in matrices))
  if size == len(images):
    y = some(_moved(images, (-1, 0), (0, -1)), bias)
    y = _moved(y, (-1, 0), (0, -1))
  else:  # a group takes every n-th image, and so some of every device's
    groups = images.reshape(size, -1, *images.shape[1:])
    y = lax.map(lambda part: some(part, bias),
                _moved(groups, (1, -1, 0), (0, 1, -1)))
    y = _moved(y, (0, 1, -1), (1, -1, 0))
  return y.reshape(*batch, *out, topology.shape[1])


def _moved(x: jax.Array, source: Any, target: Any) -> jax.Array:
  """Moves axes; not fused with what is around, many times slower on CPU."""
  x = jnp.moveaxis(lax.optimization_barrier(x), source, target)
  return lax.optimization_barrier(x)


def _batched(
    fn: Callable[..., jax.Array], size: int, *args: jax.Array) -> jax.Array:
  """Applies `fn` to `size` entries of the first axes at a time."""
  count = len(args[0])
  if size == count:
    return fn(*args)
  y = lax.map(lambda some: fn(*some), tuple(
      x.reshape(count // size, size, *x.shape[1:]) for x in args))
  return lax.collapse(y, 0, 2)


def _columns(x: jax.Array, first: int, size: int, wrap: bool) -> jax.Array:
  """Returns `size` columns of x (..., columns, k), from column `first` on.

  Outside there are zeros, or, if `wrap`, with as many columns, x again.
  """
  count = x.shape[-2]
  if wrap:
    return jnp.roll(x, -first, axis=-2)
  start, stop = (min(max(end, 0), count) for end in (first, first + size))
  low = min(max(-first, 0), size)
  shape = *x.shape[:-2], size, x.shape[-1]
  if not count:
    return jnp.zeros(shape, x.dtype)
  # Like x, so that they are sharded like x.
  zeros = jnp.broadcast_to(jnp.zeros_like(x[..., :1, :]), shape)
  return jnp.concatenate([
      zeros[..., :low, :], x[..., start:stop, :],
      zeros[..., :size - low - (stop - start), :]], axis=-2)


def _taps(
    kernel: Sequence[int], dilation: Sequence[int], strides: Sequence[int],
    out: Sequence[int],
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
  """Returns the start and stop of what every tap sees."""
  found = []
  for tap in itertools.product(*map(range, kernel)):
    start = tuple(t * step for t, step in zip(tap, dilation, strict=True))
    found.append((start, tuple(
        first + (size - 1) * stride + 1 for first, size, stride
        in zip(start, out, strides, strict=True))))
  return found


def _chunk(count: int, bytes_each: int) -> int:
  """Returns how many of `count` to work on at a time, a divisor of it."""
  limit = _COPY_BYTES.get(jax.default_backend(), _COPY_BYTES_ELSEWHERE)
  return max((size for size in range(1, count + 1)
              if count % size == 0 and size * bytes_each <= limit),
             default=min(count, 1))


def space_to_depth(x: jax.Array, size: int) -> jax.Array:
  """Moves squares of pixels into channels: a stride that loses nothing.

  An orthogonal convolution of the result is an orthogonal convolution of stride
  `size`; with an ordinary stride it is none.

  Args:
    x: images (..., height, width, channels).
    size: of the squares; it has to divide height and width.

  Returns:
    Array (..., height / size, width / size, size * size * channels).

  Raises:
    ValueError: if it does not; the message names the nearest image that works.
      For another size or other axes.

  Example:
    >>> import jax.numpy as jnp, structinit_jax as si
    >>> x = jnp.arange(16).reshape(4, 4, 1)
    >>> si.sao.space_to_depth(x, 2)[0].tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7]]

  Source: Esguerra (2023), section 3.4.4.2.
  """
  size = base.integer('size', size, 1)
  if x.ndim < 3:
    raise ValueError(
        f'x of shape {x.shape} is no image (..., height, width, channels), at '
        'least 3 axes')
  *batch, height, width, channels = x.shape
  if height % size or width % size:
    near = tuple(max(1, round(n / size)) * size for n in (height, width))
    raise ValueError(
        f'image of shape {x.shape}: {size} has to divide height and width; the '
        f'nearest that works is {near[0]}x{near[1]}')
  x = x.reshape(*batch, height // size, size, width // size, size, channels)
  x = jnp.moveaxis(x, -4, -3)
  return x.reshape(
      *batch, height // size, width // size, size * size * channels)
