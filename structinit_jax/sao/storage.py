"""Sparse layers in a file: the weights, and no index for a de Bruijn layer.

The thesis stores nnz + n + 1 numbers a layer, CSR 2 nnz + n + 1. Here it is
nnz, plus the permutation for kinds that have one. Layers of one structure
share it. The header of a file (`files`) holds the topologies, and every layer's
name, dtype and taps; the payload the permutations, int32, and then the values
of every layer, block after block.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import os
from typing import Any

import numpy as np

from structinit_jax import base
from structinit_jax import files
from structinit_jax.sao import topologies
from structinit_jax.sao import weights

__all__ = ['load', 'save']

_MAGIC = b'SAOFILE2'

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
    arrays = [files.little_endian(x) for x in values]
  except (TypeError, ValueError) as error:
    raise ValueError(
        f'layer {name!r} must be a pair (topology, values), a Topology and a '
        f'sequence of arrays: {error}') from error
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


def _encode(layers: Mapping[str, Layer]) -> tuple[Any, list[bytes]]:
  """Returns the header and the payload."""
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
  header = {
      'topologies': [
          [*t.shape, t.blocks, t.kind, len(t.order) // 4] for t in places],
      'layers': entries}
  return header, [*(t.order for t in places), *payload]


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
  files.write(path, _MAGIC, *_encode(layers))


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
  return files.read(path, _MAGIC, 'sao.save', _parse)


def _parse(
    header: Any, payload: files.Payload
) -> dict[str, tuple[topologies.Topology, Any]]:
  found = []
  for n, m, blocks, kind, units in header['topologies']:
    order = payload.take(np.int32, (units,))
    topology = topologies.Topology((n, m), blocks, kind, order.tobytes())
    topologies.check_drawn(topology)
    found.append(topology)
  layers = {}
  for name, index, dtype, spatial in header['layers']:
    topology = found[index]
    layers[name] = topology, tuple(
        payload.take(dtype, (*spatial, *group)) for group in topology.groups)
  return layers
