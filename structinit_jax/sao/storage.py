"""Sparse layers in a file: the weights, and no index for a de Bruijn layer.

The thesis stores nnz + n + 1 numbers a layer, CSR 2 nnz + n + 1. Here it is
nnz, plus the permutation for kinds that have one. Layers of one structure
share it. A file holds

    magic       8 bytes, with the version of the format
    size        of the whole file, 8 bytes
    length      of the header, 4 bytes
    header      JSON: the topologies, and every layer's name, dtype and taps
    orders      the permutations, int32
    values      of every layer, block after block
    digest      SHA-256 of all before, 32 bytes

in little-endian order, and nothing that could be executed.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import json
import math
import os
import pathlib
import secrets
import struct
from typing import Any

import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax.sao import topologies
from structinit_jax.sao import weights

__all__ = ['load', 'save']

_MAGIC = b'SAOFILE2'
_PREFIX = struct.Struct('<8sQI')
_DIGEST = hashlib.sha256().digest_size

Layer = tuple[topologies.Topology, Sequence[Any]]


def _check_layer(
    name: str, layer: Layer
) -> tuple[topologies.Topology, np.dtype, tuple[int, ...], list[np.ndarray]]:
  """Returns the topology, and the dtype, taps and arrays of the values."""
  if not isinstance(name, str):
    raise ValueError(
        f'layer {name!r}: a name must be a str, such as {str(name)!r}')
  try:
    topology, values = layer
    topologies.check_topology(topology)
    arrays = [np.asarray(x) for x in values]
  except (TypeError, ValueError) as error:
    raise ValueError(
        f'layer {name!r} must be a pair (topology, values), a Topology and a '
        f'sequence of arrays: {error}') from error
  arrays = [x.astype(x.dtype.newbyteorder('<'), copy=False) for x in arrays]
  shapes = [x.shape for x in arrays]
  if [shape[-3:] for shape in shapes] != list(topology.groups) or len(
      {(x.dtype, x.shape[:-3]) for x in arrays}) != 1:
    raise ValueError(
        f'layer {name!r}: values of {[x.dtype.name for x in arrays]} of shapes '
        f'{shapes} are not those of {topology}; they have to be of one dtype, '
        f'and their shapes (*spatial, *group) of the groups {topology.groups}')
  try:
    base.compute_dtype(arrays[0].dtype)
  except ValueError as error:
    raise ValueError(f'layer {name!r}: {error}') from error
  topologies.check_drawn(topology)
  return topology, arrays[0].dtype, shapes[0][:-3], arrays


def _encode(layers: Mapping[str, Layer]) -> bytes:
  places: dict[topologies.Topology, int] = {}
  entries, payload = [], []
  if not isinstance(layers, Mapping):
    raise ValueError(
        f'layers of type {type(layers).__name__} must be a dict of pairs '
        '(topology, values)')
  for name, layer in layers.items():
    topology, dtype, spatial, arrays = _check_layer(name, layer)
    place = places.setdefault(topology, len(places))
    entries.append([name, place, dtype.name, list(spatial)])
    payload.extend(x.tobytes() for x in arrays)
  header = json.dumps({
      'topologies': [
          [*t.shape, t.blocks, t.kind, len(t.order) // 4] for t in places],
      'layers': entries}, separators=(',', ':')).encode()
  body = b''.join([header, *(t.order for t in places), *payload])
  size = _PREFIX.size + len(body) + _DIGEST
  data = _PREFIX.pack(_MAGIC, size, len(header)) + body
  return data + hashlib.sha256(data).digest()


def save(
    path: str | os.PathLike[str], layers: Mapping[str, Layer]) -> None:
  """Writes sparse layers to a file, without their zeros.

  The file appears whole or not at all: it is written beside its place, and
  then renamed.

  Args:
    path: where to; a file that is there is replaced.
    layers: by name, a str, `(topology, values)`, values as of
      `orthogonal_values`, in any real floating-point dtype, or stacked along
      leading axes. Of either byte order; little-endian ones come back.

  Raises:
    ValueError: for values that are not those of the topology, or what is no
      such dictionary.
    OSError: if the file cannot be written.

  Example:
    >>> import jax, os, tempfile, structinit_jax as si
    >>> layer = si.sao.Topology((256, 256), 64)
    >>> values = si.sao.orthogonal_values(jax.random.key(0), layer)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = os.path.join(folder, 'model.sao')
    ...   si.sao.save(file, {'block': (layer, values)})
    ...   size = os.path.getsize(file)
    ...   topology, again = si.sao.load(file)['block']
    >>> topology == layer, (again[0] == values[0]).all().item()
    (True, True)
    >>> size < 4 * layer.nnz + 200, 4 * (2 * layer.nnz + 256 + 1)    # CSR
    (True, 9220)

  Source: Esguerra (2023), section 4.5, which stores n + 1 indices.
  """
  path = pathlib.Path(path)
  data = _encode(layers)
  temporary = path.with_name(f'.{path.name}.{secrets.token_hex(8)}')
  try:
    with open(temporary, 'xb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def load(
    path: str | os.PathLike[str]
) -> dict[str, tuple[topologies.Topology, weights.Values]]:
  """Reads the layers that `save` wrote, bit for bit.

  Args:
    path: the file.

  Returns:
    By name, `(topology, values)`. Values are NumPy arrays, so that float64
    stays what it is while x64 is off; every function here takes them.

  Raises:
    ValueError: for a file that is damaged, or none of `save`; the message
      names the file and what is wrong with it.
    OSError: if the file cannot be read.

  Example:
    >>> import jax, os, tempfile, structinit_jax as si
    >>> layer = si.sao.Topology((8, 4), 2)
    >>> values = si.sao.orthogonal_values(jax.random.key(0), layer)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = os.path.join(folder, 'model.sao')
    ...   si.sao.save(file, {'block': (layer, values)})
    ...   sorted(si.sao.load(file))
    ['block']

  Source: as `save`.
  """
  data = pathlib.Path(path).read_bytes()
  try:
    return _decode(data)
  except ValueError as error:
    raise ValueError(f'{os.fspath(path)}: {error}') from error


def _decode(data: bytes) -> dict[str, tuple[topologies.Topology, Any]]:
  if data[:len(_MAGIC)] != _MAGIC[:len(data)] or not data:
    raise ValueError(
        f'not a file of `sao.save`: it starts with {data[:len(_MAGIC)]!r}, '
        f'not with {_MAGIC!r}')
  if len(data) < _PREFIX.size:
    raise ValueError(f'cut off after {len(data)} bytes, in the first lengths')
  _, size, length = _PREFIX.unpack_from(data)
  if len(data) != size:
    what = 'cut off' if len(data) < size else 'followed by something else'
    raise ValueError(f'{what}: {len(data)} bytes of {size}')
  end = size - _DIGEST
  if hashlib.sha256(data[:end]).digest() != data[end:]:
    raise ValueError(
        'damaged: the bytes do not have the checksum that was written')
  try:
    return _parse(data[_PREFIX.size:end], length)
  except (ArithmeticError, LookupError, TypeError, ValueError) as error:
    raise ValueError(f'inconsistent: {error!r}') from error


def _parse(
    body: bytes, length: int
) -> dict[str, tuple[topologies.Topology, Any]]:
  header = json.loads(body[:length])
  place = length

  def take(dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    nonlocal place
    count = math.prod(shape)
    array = np.frombuffer(body, dtype, count, place).reshape(shape)
    place += array.nbytes
    return array.copy()  # aligned, and without the file

  found = []
  for n, m, blocks, kind, units in header['topologies']:
    order = take(np.int32, (units,))
    topology = topologies.Topology((n, m), blocks, kind, order.tobytes())
    topologies.check_drawn(topology)
    found.append(topology)
  layers = {}
  for name, index, dtype, spatial in header['layers']:
    topology = found[index]
    layers[name] = topology, tuple(
        take(jnp.dtype(dtype), (*spatial, *group)) for group in topology.groups)
  if place != len(body):
    raise ValueError(f'{len(body) - place} bytes belong to no layer')
  return layers
