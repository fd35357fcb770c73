"""Small files that appear whole or not at all, and know if they are damaged.

A file holds, in little-endian order and nothing that could be executed,

    magic       8 bytes, with the version of the format
    size        of the whole file, 8 bytes
    length      of the header, 4 bytes
    header      JSON
    payload     the bytes of arrays
    digest      SHA-256 of all before, 32 bytes
"""

from collections.abc import Callable
from collections.abc import Sequence
import hashlib
import json
import math
import os
import pathlib
import secrets
import struct
from typing import Any
from typing import TypeVar

import jax.numpy as jnp
import numpy as np

__all__ = ['Payload', 'little_endian', 'read', 'write']

_PREFIX = struct.Struct('<8sQI')
_DIGEST = hashlib.sha256().digest_size

T = TypeVar('T')


class Payload:
  """The arrays of a file, taken one after another."""

  def __init__(self, data: bytes):
    self._data = data
    self._place = 0

  def take(self, dtype: Any, shape: Sequence[int]) -> np.ndarray:
    """Returns the next array, aligned and apart from the file."""
    shape = tuple(shape)
    array = np.frombuffer(
        self._data, jnp.dtype(dtype), math.prod(shape), self._place)
    self._place += array.nbytes
    return array.reshape(shape).copy()

  @property
  def left(self) -> int:
    """How many bytes no one took."""
    return len(self._data) - self._place


def little_endian(x: Any) -> np.ndarray:
  """Returns an array in the byte order that files have.

  Args:
    x: an array.

  Returns:
    A NumPy array.
  """
  x = np.asarray(x)
  return x.astype(x.dtype.newbyteorder('<'), copy=False)


def write(
    path: str | os.PathLike[str], magic: bytes, header: Any,
    payload: Sequence[bytes],
) -> None:
  """Writes a file beside its place and then renames it.

  Args:
    path: where to; a file that is there is replaced.
    magic: 8 bytes.
    header: what JSON can hold.
    payload: the bytes of arrays.

  Raises:
    OSError: if the file cannot be written.
  """
  text = json.dumps(header, separators=(',', ':')).encode()
  body = b''.join([text, *payload])
  size = _PREFIX.size + len(body) + _DIGEST
  data = _PREFIX.pack(magic, size, len(text)) + body
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.{secrets.token_hex(8)}')
  try:
    with open(temporary, 'xb') as file:
      file.write(data + hashlib.sha256(data).digest())
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def read(
    path: str | os.PathLike[str], magic: bytes, writer: str,
    parse: Callable[[Any, Payload], T],
) -> T:
  """Reads what `write` wrote.

  Args:
    path: the file.
    magic: its first 8 bytes.
    writer: the function that writes such files, for the message.
    parse: `(header, payload) -> result`; whatever it raises is the file's
      fault.

  Returns:
    The result of `parse`.

  Raises:
    ValueError: for a file that is damaged, or another; the message names it
      and what is wrong.
    OSError: if the file cannot be read.
  """
  data = pathlib.Path(path).read_bytes()
  try:
    body, length = _check(data, magic, writer)
    try:
      payload = Payload(body[length:])
      found = parse(json.loads(body[:length]), payload)
      if payload.left:
        raise ValueError(f'{payload.left} bytes belong to nothing')
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
      raise ValueError(f'inconsistent: {error!r}') from error
  except ValueError as error:
    raise ValueError(f'{os.fspath(path)}: {error}') from error
  return found


def _check(data: bytes, magic: bytes, writer: str) -> tuple[bytes, int]:
  """Returns header and payload, and the length of the former."""
  if data[:len(magic)] != magic[:len(data)] or not data:
    raise ValueError(
        f'not a file of `{writer}`: it starts with {data[:len(magic)]!r}, '
        f'not with {magic!r}')
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
  return data[_PREFIX.size:end], length
