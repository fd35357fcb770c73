"""A trained model in a file of its key and coordinates."""

import dataclasses
import hashlib
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax import files
from structinit_jax import tree
from structinit_jax.subspace import plans
from structinit_jax.subspace import training

__all__ = ['load', 'save']

_MAGIC = b'SUBSPAC1'


def _digest(params: base.PyTree) -> str:
  """Returns a checksum of names, shapes, dtypes and bits of all leaves."""
  names, leaves, _ = tree.flatten_with_names(params)
  found = hashlib.sha256()
  for name, leaf in zip(names, leaves, strict=True):
    array = files.little_endian(leaf)
    found.update(json.dumps(
        [name, array.dtype.name, array.shape]).encode())
    found.update(array.tobytes())
  return found.hexdigest()


def _key_data(key: base.Key) -> tuple[str | None, np.ndarray]:
  if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    return (str(jax.random.key_impl(key)),
            np.asarray(jax.random.key_data(key)))
  return None, np.asarray(key)


def save(path: str | os.PathLike[str], subspace: training.Subspace) -> None:
  """Writes key and coordinates, and a checksum of the origin.

  `4 d` bytes of float32 coordinates and a header. The file appears whole or not
  at all.

  Args:
    path: where to; a file that is there is replaced.
    subspace: `dataclasses.replace(subspace, w=w)` after training.

  Raises:
    ValueError: if it is no Subspace, its coordinates do not fit it, or inside
      of a jitted function.
    OSError: if the file cannot be written.

  Example:
    >>> import jax, jax.numpy as jnp, os, tempfile, structinit_jax as si
    >>> params = {'kernel': jnp.ones((300, 100))}
    >>> subspace = si.subspace.reparameterize(jax.random.key(0), params, 50)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = os.path.join(folder, 'model')
    ...   si.subspace.save(file, subspace)
    ...   size = os.path.getsize(file)
    ...   again = si.subspace.load(file, params)
    >>> size < 1000, bool((again.expand()['kernel'] == 1).all())
    (True, True)

  Source: Minut, who stores a seed and w.
  """
  if not isinstance(subspace, training.Subspace):
    raise ValueError(
        f'{type(subspace).__name__} is no Subspace, what `reparameterize` '
        'returns')
  training.check_like('w', subspace.w, jax.eval_shape(
      subspace.plan.zeros, jax.tree.leaves(subspace.origin)))
  if any(isinstance(leaf, jax.core.Tracer)
         for leaf in jax.tree.leaves(subspace)):
    raise ValueError(
        'the coordinates are traced: call `save` outside of jitted functions')
  names, leaves, _ = tree.flatten_with_names(subspace.w)
  arrays = [files.little_endian(leaf) for leaf in leaves]
  impl, key = _key_data(subspace.key)
  plan = dataclasses.asdict(subspace.plan)
  header = {
      'key': [impl, key.shape], 'origin': _digest(subspace.origin),
      'projection': plan['kind'], 'column_norm': plan['column_norm'],
      'roles': plan['roles'],
      'groups': [[group['name'], group['leaves'], group['dim']]
                 for group in plan['groups']],
      'w': [[name, array.dtype.name, array.shape]
            for name, array in zip(names, arrays, strict=True)]}
  files.write(path, _MAGIC, header, [
      files.little_endian(key).tobytes(), *(x.tobytes() for x in arrays)])


def load(
    path: str | os.PathLike[str], params: base.PyTree) -> training.Subspace:
  """Reads what `save` wrote.

  Args:
    path: the file.
    params: the origin, made again, by the key of the initializer for example.
      It has to have the same bits.

  Returns:
    The Subspace; its `expand()` has the bits that it had.

  Raises:
    ValueError: for a file that is damaged, or none of `save`, or other
      parameters than those it was saved with.
    OSError: if the file cannot be read.

  Example:
    >>> import jax, jax.numpy as jnp, os, tempfile, structinit_jax as si
    >>> params = {'kernel': jnp.ones((30, 10))}
    >>> subspace = si.subspace.reparameterize(jax.random.key(0), params, 5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = os.path.join(folder, 'model')
    ...   si.subspace.save(file, subspace)
    ...   again = si.subspace.load(file, params)
    >>> {name: x.shape for name, x in again.w['projected'].items()}
    {'all': (5,)}

  Source: as `save`.
  """
  names, leaves, _ = tree.flatten_with_names(params)
  shapes = tuple(tuple(jnp.shape(leaf)) for leaf in leaves)

  def parse(header: Any, payload: files.Payload) -> training.Subspace | None:
    impl, shape = header['key']
    data = jnp.asarray(payload.take(np.uint32, shape))
    key = data if impl is None else jax.random.wrap_key_data(data, impl=impl)
    arrays = {name: jnp.asarray(payload.take(dtype, shape))
              for name, dtype, shape in header['w']}
    if header['origin'] != _digest(params):
      return None
    groups = tuple(
        plans.Group(name, tuple(indices),
                    sum(int(np.prod(shapes[i])) for i in indices), dim)
        for name, indices, dim in header['groups'])
    plan = plans.Plan(
        tuple(names), shapes, tuple(header['roles']), groups,
        header['projection'], header['column_norm'], 2**63)
    w = plan.zeros([jnp.asarray(leaf) for leaf in leaves])
    names_of_w, _, treedef = tree.flatten_with_names(w)
    return training.Subspace(
        key, params, treedef.unflatten([arrays[n] for n in names_of_w]), plan)

  found = files.read(path, _MAGIC, 'subspace.save', parse)
  if found is None:
    raise ValueError(
        f'{os.fspath(path)}: saved with other parameters than these: names, '
        'shapes, dtypes and every bit of the origin have to be the same; make '
        'it by the same initializer and key')
  return found
