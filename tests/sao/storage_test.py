"""Files: bit for bit, smaller than CSR, and refused when anything is amiss."""

import hashlib
import itertools
import json
import os
import pickle
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from structinit_jax import files
from structinit_jax.sao import storage
from structinit_jax.sao import topologies
from structinit_jax.sao import weights

KEY = jax.random.key(12)
Topology = topologies.Topology
KINDS = ['debruijn', 'random', 'thesis', 'weighing']


def random_values(topology, dtype, spatial=(), seed=0):
  """Every bit pattern can come: also NaN with its payload, -0 and infinity."""
  rng = np.random.default_rng(seed)
  dtype = jnp.dtype(dtype)
  return tuple(
      np.frombuffer(rng.bytes(int(np.prod((*spatial, *g))) * dtype.itemsize),
                    dtype).reshape(*spatial, *g) for g in topology.groups)


def equal(one, other):
  assert list(one) == list(other)
  for name, (topology, values) in one.items():
    assert other[name][0] == topology
    assert len(values) == len(other[name][1])
    for a, b in zip(values, other[name][1], strict=True):
      a, b = np.asarray(a), np.asarray(b)
      assert (a.dtype, a.shape) == (b.dtype, b.shape)
      assert a.tobytes() == b.tobytes()


@pytest.fixture
def file(tmp_path):
  return tmp_path / 'model.sao'


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float64', 'float16'])
def test_every_bit_comes_back(dtype, file, make):
  layers = {}
  for i, kind in enumerate(KINDS):
    for shape, blocks in [((14, 21), 7), ((21, 14), 7), ((28, 28), 7)]:
      topology = make(shape, blocks, kind, seed=i)
      layers[f'{kind}/{shape}'] = topology, random_values(topology, dtype)
  for shape, blocks in [((11, 7), 3), ((7, 11), 3), ((10, 10), 4), ((1, 1), 1)]:
    topology = make(shape, blocks, 'random')
    layers[f'unequal {shape} \N{SNOWMAN}'] = (
        topology, random_values(topology, dtype, (3, 2)))
  storage.save(file, layers)
  equal(layers, storage.load(file))


def test_jax_arrays_of_every_sampler(file):
  layer = Topology((12, 8), 4)
  layers = {
      'dense': (layer, weights.orthogonal_values(KEY, layer)),
      'half': (layer, weights.orthogonal_values(
          KEY, layer, dtype=jnp.bfloat16)),
      'conv': (layer, weights.eco_values(KEY, layer, (3, 3)))}
  storage.save(str(file), layers)
  loaded = storage.load(str(file))
  equal(layers, loaded)
  for name, (topology, values) in loaded.items():
    np.testing.assert_array_equal(
        weights.to_dense([jnp.asarray(x) for x in values], topology),
        weights.to_dense(*layers[name][::-1]))


def test_float64_while_x64_is_off(file):
  layer = Topology((8, 8), 2)
  values = random_values(layer, 'float64')
  storage.save(file, {'w': (layer, values)})
  assert not jax.config.jax_enable_x64
  equal({'w': (layer, values)}, storage.load(file))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('shape', [(91, 91), (91, 182), (182, 91), (728, 728)])
def test_smaller_than_csr(kind, shape, dtype, file, make):
  topology = make(shape, 91, kind)
  storage.save(file, {'w': (topology, random_values(topology, dtype))})
  csr = scipy.sparse.csr_array(np.asarray(topology.mask, np.int8))
  itemsize = jnp.dtype(dtype).itemsize
  size = file.stat().st_size
  assert csr.nnz == topology.nnz
  assert size < (
      csr.nnz * itemsize + csr.indices.nbytes + csr.indptr.nbytes)
  # Nonzeros, a permutation where there is one, and what is said of them.
  indices = {'random': shape[0], 'thesis': max(shape)}.get(kind, 0)
  assert size - topology.nnz * itemsize - 4 * indices < 200


def test_layers_of_one_structure_share_it(file, make):
  topology = make((512, 512), 256, 'random')
  values = random_values(topology, 'float32')
  sizes = []
  for depth in (1, 2, 3):
    storage.save(file, {f'block_{i}': (topology, values) for i in range(depth)})
    sizes.append(file.stat().st_size)
  assert sizes[0] > 4 * (topology.nnz + 512)
  for before, after in itertools.pairwise(sizes):
    assert 0 < after - before - 4 * topology.nnz < 50
  assert len(storage.load(file)) == 3


def test_a_million_units(file):
  topology = Topology((10**6, 10**6), 10**6)
  values = random_values(topology, 'bfloat16')
  storage.save(file, {'w': (topology, values)})
  assert file.stat().st_size < 2 * 10**6 + 200
  equal({'w': (topology, values)}, storage.load(file))


def test_nothing(file):
  storage.save(file, {})
  assert storage.load(file) == {}


@pytest.fixture
def saved(file, make):
  topology = make((6, 4), 2, 'random')
  storage.save(file, {'w': (topology, random_values(topology, 'float32'))})
  return file.read_bytes()


def refused(file, data, message):
  file.write_bytes(data)
  with pytest.raises(ValueError, match=message) as raised:
    storage.load(file)
  assert str(raised.value).startswith(f'{file}: ')


def test_every_flipped_bit_is_seen(file, saved):
  for i in range(8 * len(saved)):
    data = bytearray(saved)
    data[i // 8] ^= 1 << i % 8
    refused(file, bytes(data), 'not a file of|cut off|something else|checksum')


def test_every_cut_is_seen(file, saved):
  refused(file, b'', 'not a file of')
  for length in range(1, len(saved)):
    refused(file, saved[:length], f'cut off.* {length} bytes')
  for more in (b'\0', saved):
    refused(file, saved + more, 'followed by something else')


def test_other_files_are_refused(file, saved):
  refused(file, b'something else entirely, and long enough', 'not a file of')
  # A pickle that would run is never run.
  refused(file, pickle.dumps(Bomb()), 'not a file of')
  np.savez(file.with_suffix('.npz'), w=np.ones(3))
  refused(file, file.with_suffix('.npz').read_bytes(), 'not a file of')
  with pytest.raises(FileNotFoundError):
    storage.load(file.with_name('missing.sao'))


class Bomb:
  """Ends the process that unpickles it."""

  def __reduce__(self):
    return (os._exit, (1,))


def signed(header, payload):
  """A file with a right checksum, whatever it says."""
  header = header if isinstance(header, bytes) else json.dumps(header).encode()
  size = files._PREFIX.size + len(header) + len(payload) + 32
  data = files._PREFIX.pack(
      storage._MAGIC, size, len(header)) + header + payload
  return data + hashlib.sha256(data).digest()


TOPOLOGY, LAYER = [4, 4, 2, 'debruijn', 0], ['w', 0, 'float32', []]


def header_of(topology=TOPOLOGY, layer=LAYER):
  return {'topologies': [topology], 'layers': [layer]}


@pytest.mark.parametrize('header, payload', [
    (b'not json', b''), (b'\xff\xfe', b''), (b'3', b''), (b'{}', b''),
    ({'topologies': [], 'layers': [LAYER]}, bytes(32)),
    (header_of(), bytes(28)), (header_of(), bytes(36)),
    (header_of([4, 4, 5, 'debruijn', 0]), bytes(32)),
    (header_of([4, 4, 2, 'unheard', 0]), bytes(32)),
    (header_of([4, 4, 2, 'debruijn', 4]),
     np.arange(4, dtype=np.int32).tobytes() + bytes(32)),
    (header_of([4, 4, 2, 'random', 0]), bytes(32)),
    (header_of([4, 4, 2, 'random', 4]), bytes(16 + 32)),
    (header_of([4, 4, 2, 'random', 3]),
     np.arange(3, dtype=np.int32).tobytes() + bytes(32)),
    (header_of([4, 4, 2]), bytes(32)), (header_of('wxyz!'), bytes(32)),
    (header_of(layer=['w', 1, 'float32', []]), bytes(32)),
    (header_of(layer=['w', 0, 'float33', []]), bytes(32)),
    (header_of(layer=['w', 0, 'float32', [2]]), bytes(32)),
    (header_of(layer=['w', 0, 'float32', [10**30]]), bytes(32)),
    (header_of(layer=['w', 0, 'float32', 'ab']), bytes(32)),
    (header_of(layer=[['w'], 0, 'float32', []]), bytes(32))])
def test_inconsistent_files_are_refused(header, payload, file):
  refused(file, signed(header, payload), 'inconsistent')


def test_the_signed_file_is_fine_when_consistent(file):
  file.write_bytes(signed(header_of(), bytes(32)))
  ((topology, values),) = storage.load(file).values()
  assert topology == Topology((4, 4), 2)
  assert not np.any(values[0])


@pytest.mark.parametrize('values, message', [
    ([np.ones((2, 2, 2), int)], "layer 'w': dtype int64 is not a real"),
    ([np.ones((2, 2, 2), object)], "layer 'w'"),
    ([np.ones((2, 2, 3))], r"layer 'w': values .*groups \(\(2, 2, 2\),\)"),
    ([], "layer 'w': values"), ([np.ones((2, 2, 2))] * 2, "layer 'w'")])
def test_what_is_not_saved(values, message, file):
  with pytest.raises(ValueError, match=message):
    storage.save(file, {'w': (Topology((4, 4), 2), values)})
  assert not list(file.parent.iterdir())


@pytest.mark.parametrize('dtype', ['f2', 'f4', 'f8'])
def test_big_endian_values_come_back_as_little_endian_ones(dtype, file):
  layer = Topology((5, 5), 2)
  values = random_values(layer, dtype)
  big = tuple(x.astype(x.dtype.newbyteorder('>')) for x in values)
  storage.save(file, {'w': (layer, (big[0], values[1]))})
  equal({'w': (layer, values)}, storage.load(file))


VALUES = [np.ones((2, 2, 2))]


@pytest.mark.parametrize('layers, message', [
    ({('a', 'b'): (Topology((4, 4), 2), VALUES)}, 'a name must be a str'),
    ({b'w': (Topology((4, 4), 2), VALUES)}, "layer b'w': a name must be a str"),
    ({'w': None}, r"layer 'w' must be a pair \(topology, values\)"),
    ({'w': VALUES}, "layer 'w' must be a pair"),
    ({'w': (Topology((4, 4), 2), None)}, "layer 'w' must be a pair"),
    ({'w': ('debruijn', VALUES)}, "topology='debruijn' is no Topology"),
    ({'w': (Topology((4, 4), 2), VALUES, 1)}, "layer 'w' must be a pair"),
    (None, 'type NoneType must be a dict'), ([VALUES], 'type list must be')])
def test_what_is_no_dictionary_of_layers_is_not_saved(layers, message, file):
  with pytest.raises(ValueError, match=message):
    storage.save(file, layers)
  assert not list(file.parent.iterdir())


def test_values_of_two_kinds_are_not_saved(file):
  layer = Topology((5, 5), 2)
  one, two = random_values(layer, 'float32')
  for other in (two.astype(np.float64), two[None]):
    with pytest.raises(ValueError, match='of one dtype'):
      storage.save(file, {'w': (layer, (one, other))})


def test_a_topology_without_its_permutation_is_not_saved(file):
  layer = Topology((4, 4), 2, 'random')
  with pytest.raises(ValueError, match='has no permutation'):
    storage.save(file, {'w': (layer, random_values(layer, 'float32'))})


def test_the_file_appears_whole_or_not_at_all(file, saved, monkeypatch):
  layer = Topology((8, 8), 4)
  layers = {'other': (layer, random_values(layer, 'float32'))}

  def fail(*unused):
    raise OSError('the disk is full')

  for name in ('fsync', 'replace'):
    with monkeypatch.context() as patch:
      patch.setattr(os, name, fail)
      with pytest.raises(OSError, match='full'):
        storage.save(file, layers)
    assert file.read_bytes() == saved
    assert list(file.parent.iterdir()) == [file]
  storage.save(file, layers)
  assert list(file.parent.iterdir()) == [file]
  equal(layers, storage.load(file))


def test_permissions_are_those_of_any_new_file(file, saved):
  other = file.with_name('other')
  other.touch()
  assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)
