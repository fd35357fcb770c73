"""Data sets come in exactly, from the first place that has them."""

import collections
import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import lzma
import shutil
import sys
import tarfile
import threading
import urllib.error
import urllib.request

import numpy as np
from PIL import Image
import pytest

from experiments import data
from experiments import registry

IDX = ('mnist', 'fashion_mnist', 'kmnist')
OPENERS = {'': open, '.gz': gzip.open, '.xz': lzma.open}
TRAIN, TEST = 20, 6


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch, tmp_path):
  """No network, nothing prepared, nothing downloaded before."""

  def unreachable(address, *args, **kwargs):
    raise urllib.error.URLError(f'no way to {address}')

  monkeypatch.setattr(urllib.request, 'urlopen', unreachable)
  monkeypatch.setattr(data, '_CACHE', tmp_path / 'cache')
  monkeypatch.setattr(data, '_TFDS', tmp_path / 'tfds')


@pytest.fixture
def change(monkeypatch):
  """Changes what a data set's files look like, to have small ones."""

  def to(name, **changes):
    raw = dataclasses.replace(data._RAW[name], **changes)
    monkeypatch.setitem(data._RAW, name, raw)
    monkeypatch.setitem(registry.DATASETS, name, data._raw_loader(name))

  return to


@pytest.fixture
def small(change):
  for name in IDX:
    change(name, train_size=TRAIN, test_size=TEST)
  change('cifar10', train_size=TRAIN, test_size=TEST)
  change('cifar100', train_size=TRAIN, test_size=TEST)
  change('cinic10', train_size=TRAIN, test_size=TRAIN)


def _images(count, shape=(28, 28), seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, *shape), np.uint8)


def _labels(count, classes=10):
  return (np.arange(count) * 7 % classes).astype(np.uint8)


def _idx(array):
  return (bytes([0, 0, 8, array.ndim])
          + b''.join(n.to_bytes(4, 'big') for n in array.shape)
          + array.tobytes())


def _put(folder, stem, content, ending='.gz'):
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / (stem + ending)
  with OPENERS[ending](path, 'wb') as file:
    file.write(content)
  return path


def _put_idx(folder, ending='.gz', seed=0):
  """Writes a small set of the four files; returns its arrays."""
  arrays = []
  for split, count in (('train', TRAIN), ('t10k', TEST)):
    images, labels = _images(count, seed=seed + len(arrays)), _labels(count)
    _put(folder, f'{split}-images-idx3-ubyte', _idx(images), ending)
    _put(folder, f'{split}-labels-idx1-ubyte', _idx(labels), ending)
    arrays += [images[..., None], labels]
  return arrays


def _records(images, *labels):
  planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
  return np.concatenate(
      [*(label[:, None] for label in labels), planes], axis=1).tobytes()


def _put_cifar10(folder, ending='.xz'):
  images, labels = _images(TRAIN + TEST, (32, 32, 3)), _labels(TRAIN + TEST)
  for i in range(5):
    rows = slice(i * TRAIN // 5, (i + 1) * TRAIN // 5)
    _put(folder, f'data_batch_{i + 1}.bin',
         _records(images[rows], labels[rows]), ending)
  _put(folder, 'test_batch.bin', _records(images[TRAIN:], labels[TRAIN:]),
       ending)
  return [images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:]]


def _check(dataset, arrays):
  got = [dataset.train_images, dataset.train_labels,
         dataset.test_images, dataset.test_labels]
  for ours, want in zip(got, arrays, strict=True):
    np.testing.assert_array_equal(ours, want)
  for images in got[::2]:
    assert images.dtype == np.uint8
    assert images.flags.c_contiguous
  assert got[1].dtype == got[3].dtype == np.int32


def _message(name, **options):
  """Returns the text of the one error that loading raises."""
  with pytest.raises(ValueError) as caught:
    data.load(name, **options)
  return str(caught.value)


def test_digits(digits):
  assert digits.train_images.shape == (1437, 8, 8, 1)
  assert digits.test_images.shape == (360, 8, 8, 1)
  assert digits.train_images.dtype == digits.test_images.dtype == np.uint8
  assert digits.train_labels.dtype == digits.test_labels.dtype == np.int32
  assert digits.train_images.max() == digits.scale == 16
  for labels in (digits.train_labels, digits.test_labels):
    assert set(labels.tolist()) == set(range(digits.num_classes))
  assert digits.source == 'scikit-learn'


def test_shuffled_digits_are_the_same_images_split_at_random(digits):
  shuffled = data.load('digits_shuffled')

  def rows(dataset):
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    return sorted(np.c_[images.reshape(len(images), -1), labels].tolist())

  assert rows(shuffled) == rows(digits)
  assert len(shuffled.train_labels) == len(digits.train_labels)
  assert (shuffled.train_labels != digits.train_labels).any()


def test_digits_are_split_not_shared(digits):
  from sklearn import datasets
  bunch = datasets.load_digits()
  images = np.concatenate([digits.train_images, digits.test_images])
  labels = np.concatenate([digits.train_labels, digits.test_labels])
  np.testing.assert_array_equal(images[..., 0], bunch.images)
  np.testing.assert_array_equal(labels, bunch.target)
  assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_statistics():
  images = _images(50, (4, 5, 3))
  dataset = data.Dataset('x', images, _labels(50), images[:1], _labels(1),
                         10, 255, 'here')
  mean, std = dataset.statistics()
  pixels = images.reshape(-1, 3) / 255
  np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-5)
  np.testing.assert_allclose(std, pixels.std(0), rtol=1e-5)
  assert mean.dtype == std.dtype == np.float32


@pytest.mark.parametrize('ending', ['', '.gz', '.xz'])
@pytest.mark.parametrize('name', IDX)
def test_idx_files_are_read_exactly(small, tmp_path, name, ending):
  arrays = _put_idx(tmp_path / 'raw' / name, ending)
  dataset = data.load(name, data_dir=str(tmp_path / 'raw'))
  _check(dataset, arrays)
  assert dataset.source == 'raw files'
  assert (dataset.name, dataset.num_classes, dataset.scale) == (name, 10, 255)


@pytest.mark.parametrize('ending', ['', '.gz', '.xz'])
@pytest.mark.parametrize('folder', ['cifar10', 'cifar-10-batches-bin', '.'])
def test_cifar10_is_read_exactly(small, tmp_path, folder, ending):
  arrays = _put_cifar10(tmp_path / 'raw' / folder, ending)
  _check(data.load('cifar10', data_dir=str(tmp_path / 'raw')), arrays)


def test_cifar_planes_are_red_green_blue(small, tmp_path):
  _put_cifar10(tmp_path)
  record = np.concatenate([[3], np.full(1024, 10), np.full(1024, 20),
                           np.full(1024, 30)]).astype(np.uint8)
  record[1 + 1024 + 32 * 2 + 5] = 99  # green, row 2, column 5
  _put(tmp_path, 'test_batch.bin', np.tile(record, TEST).tobytes(), '.xz')
  dataset = data.load('cifar10', data_dir=str(tmp_path))
  assert dataset.test_labels.tolist() == [3] * TEST
  assert dataset.test_images[0, 0, 0].tolist() == [10, 20, 30]
  assert dataset.test_images[0, 2, 5].tolist() == [10, 99, 30]
  assert dataset.test_images[0, 5, 2].tolist() == [10, 20, 30]


@pytest.mark.parametrize('folder', ['cifar100', 'cifar-100-binary', '.'])
def test_cifar100_has_the_fine_labels(small, tmp_path, folder):
  images = _images(TRAIN + TEST, (32, 32, 3))
  fine = _labels(TRAIN + TEST, 100)
  coarse = np.full_like(fine, 19)
  folder = tmp_path / folder
  for stem, rows in (('train', slice(TRAIN)), ('test', slice(TRAIN, None))):
    _put(folder, f'{stem}.bin', _records(
        images[rows], coarse[rows], fine[rows]), '')
  dataset = data.load('cifar100', data_dir=str(tmp_path))
  _check(dataset, [images[:TRAIN], fine[:TRAIN], images[TRAIN:], fine[TRAIN:]])
  assert dataset.num_classes == 100


CINIC = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog',
         'horse', 'ship', 'truck')


def _put_cinic(folder):
  """Writes two images a class and split; returns the arrays that count."""
  arrays = []
  for seed, split in enumerate(('train', 'test', 'valid')):
    images = _images(TRAIN, (32, 32, 3), seed)
    images[0] = images[0, ..., :1]
    for i, image in enumerate(images):
      path = folder / split / CINIC[i // 2] / f'{i % 2}-n0{i}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      picture = Image.fromarray(image)
      (picture if i else picture.convert('L')).save(path)
    arrays += [images, np.arange(TRAIN) // 2]
  return arrays[:4]


@pytest.mark.parametrize('folder', ['cinic10', 'CINIC-10', '.'])
def test_cinic10_is_read_exactly(small, tmp_path, folder):
  arrays = _put_cinic(tmp_path / 'raw' / folder)
  dataset = data.load('cinic10', data_dir=str(tmp_path / 'raw'))
  _check(dataset, arrays)
  assert (dataset.name, dataset.num_classes, dataset.scale) == (
      'cinic10', 10, 255)
  assert dataset.source == 'raw files'


def test_cinic10_has_the_published_sizes(tmp_path):
  _put_cinic(tmp_path)
  message = _message('cinic10', data_dir=str(tmp_path))
  assert f'{tmp_path / "train" / "airplane"} holds 2 PNG files' in message
  assert 'expected 9000' in message


@pytest.mark.parametrize('class_name, damage', [
    ('airplane', lambda path: path.unlink()),
    ('truck', lambda path: shutil.rmtree(path.parent)),
    ('cat', lambda path: shutil.copy(path, path.with_name('2.png'))),
], ids=['file', 'folder', 'more'])
def test_a_class_with_another_count_is_named(
    small, tmp_path, class_name, damage):
  _put_cinic(tmp_path)
  folder = tmp_path / 'test' / class_name
  damage(sorted(folder.glob('*'))[0])
  message = _message('cinic10', data_dir=str(tmp_path))
  found = len(list(folder.glob('*'))) if folder.is_dir() else 0
  assert f'{folder} holds {found} PNG files; expected 2' in message


def test_a_part_of_cinic10_is_read_when_allowed(small, tmp_path):
  train_x, train_y, *test = _put_cinic(tmp_path)
  shutil.rmtree(tmp_path / 'train' / 'dog')
  next((tmp_path / 'train' / 'bird').glob('1-*')).unlink()
  left = (train_y != CINIC.index('dog')) & (np.arange(TRAIN) != 5)
  dataset = data.load('cinic10', data_dir=str(tmp_path), allow_partial=True)
  _check(dataset, [train_x[left], train_y[left], *test])
  assert f'{TRAIN - 3} of {TRAIN} training' in dataset.source
  shutil.rmtree(tmp_path / 'test')
  assert f'{tmp_path} holds no PNG files in test/airplane' in _message(
      'cinic10', data_dir=str(tmp_path), allow_partial=True)


@pytest.mark.parametrize('damage', [
    lambda content: content[:len(content) // 2],
    lambda content: content[:-40],
    lambda content: content[:5],
    lambda content: b'',
    lambda content: b'no image at all',
    lambda content: (content[:len(content) // 2] + bytes(40)
                     + content[len(content) // 2 + 40:]),
    lambda content: content[:20] + bytes(20) + content[40:],
], ids=['half', 'end', 'start', 'empty', 'other', 'hole', 'header'])
def test_a_broken_png_is_named(small, tmp_path, damage):
  _put_cinic(tmp_path)
  path = tmp_path / 'train' / 'frog' / '1-n013.png'
  path.write_bytes(damage(path.read_bytes()))
  message = _message('cinic10', data_dir=str(tmp_path))
  assert f'{path} is truncated or corrupted' in message


def test_a_png_of_another_size_is_named(small, tmp_path):
  _put_cinic(tmp_path)
  path = tmp_path / 'train' / 'frog' / '1-n013.png'
  Image.fromarray(_images(1, (32, 31, 3))[0]).save(path)
  message = _message('cinic10', data_dir=str(tmp_path))
  for part in (str(path), '(32, 31, 3)', 'expected (32, 32, 3)'):
    assert part in message


def test_a_prepared_cinic10_needs_no_builder(tmp_path, no_tensorflow):
  import tensorflow_datasets as tfds
  images, labels = _images(TRAIN, (32, 32, 3)), _labels(TRAIN)

  class Cinic10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """CINIC-10, nearly."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      return tfds.core.DatasetInfo(
          builder=self, features=tfds.features.FeaturesDict({
              'image': tfds.features.Image(shape=(32, 32, 3)),
              'label': tfds.features.ClassLabel(num_classes=10)}))

    def _split_generators(self, dl_manager):
      del dl_manager
      return {'train': self._generate_examples(range(12)),
              'test': self._generate_examples(range(12, TRAIN))}

    def _generate_examples(self, rows):
      for i in rows:
        yield i, {'image': _png(images[i]), 'label': int(labels[i])}

  tfds.disable_progress_bar()
  Cinic10(data_dir=tmp_path, file_format='array_record').download_and_prepare()
  dataset = data.load('cinic10', tfds_dir=str(tmp_path))
  assert dataset.source == 'TFDS'
  assert _pairs(dataset.train_images, dataset.train_labels) == _pairs(
      images[:12], labels[:12])
  assert _pairs(dataset.test_images, dataset.test_labels) == _pairs(
      images[12:], labels[12:])


def test_data_dir_may_be_the_folder_itself(small, tmp_path):
  arrays = _put_idx(tmp_path)
  _check(data.load('mnist', data_dir=str(tmp_path)), arrays)


def test_data_dir_may_start_at_home(small, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  arrays = _put_idx(tmp_path / 'raw' / 'mnist')
  _check(data.load('mnist', data_dir='~/raw'), arrays)


def test_the_published_sizes_are_expected(tmp_path):
  _put_idx(tmp_path)
  message = _message('mnist', data_dir=str(tmp_path))
  assert f'holds {TRAIN} of 60000 images' in message


TRAIN_IMAGES = 'train-images-idx3-ubyte'
TEST_LABELS = 't10k-labels-idx1-ubyte'


@pytest.mark.parametrize('ending', ['.gz', '.xz'])
@pytest.mark.parametrize('damage', [
    lambda content: content[:len(content) // 2],
    lambda content: content[:-3],
    lambda content: content[:5],
    lambda content: b'not compressed at all',
    lambda content: (content[:len(content) // 2] + bytes(40)
                     + content[len(content) // 2 + 40:]),
], ids=['half', 'end', 'start', 'other', 'hole'])
def test_a_broken_stream_is_named(small, tmp_path, ending, damage):
  _put_idx(tmp_path, ending)
  path = tmp_path / (TRAIN_IMAGES + ending)
  path.write_bytes(damage(path.read_bytes()))
  message = _message('mnist', data_dir=str(tmp_path))
  assert str(path) in message
  assert 'truncated or corrupted' in message
  assert f'expected a complete {ending} stream' in message


@pytest.mark.parametrize('stem, content, expected', [
    (TRAIN_IMAGES, _idx(_images(TRAIN))[:-10],
     [f'expected {TRAIN * 784} bytes', f'found {TRAIN * 784 - 10}']),
    (TRAIN_IMAGES, _idx(_images(TRAIN)) + b'more',
     [f'expected {TRAIN * 784} bytes', f'found {TRAIN * 784 + 4}']),
    (TRAIN_IMAGES, b'', ['begin with 00 00 08 03', 'found nothing']),
    (TRAIN_IMAGES, _idx(_images(TRAIN))[:12], ['begin with 00 00 08 03']),
    (TRAIN_IMAGES, b'\0\0\x0d\3' + _idx(_images(TRAIN))[4:],
     ['begin with 00 00 08 03', 'found 00 00 0d 03']),
    (TRAIN_IMAGES, b'\x89PNG' + bytes(100), ['found 89 50 4e 47']),
    (TRAIN_IMAGES, _idx(_labels(TRAIN)),
     ['begin with 00 00 08 03', 'found 00 00 08 01']),
    (TRAIN_IMAGES, _idx(_images(TRAIN, (28, 27))),
     ['shape (28, 27)', 'expected (28, 28)']),
    (TEST_LABELS, _idx(_images(TEST)),
     ['begin with 00 00 08 01', 'found 00 00 08 03']),
    (TEST_LABELS, _idx(_labels(TEST))[:-1],
     [f'expected {TEST} bytes', f'found {TEST - 1}']),
    (TEST_LABELS, _idx(np.full(TEST, 10, np.uint8)),
     ['label 10', 'expected 0..9']),
    (TEST_LABELS, _idx(_labels(TEST - 1)),
     [f'{TEST} images', f'{TEST - 1} labels', 'must agree']),
    (TEST_LABELS, _idx(_labels(TEST + 1)),
     [f'{TEST} images', f'{TEST + 1} labels', 'must agree']),
    ('train-labels-idx1-ubyte', _idx(_labels(TRAIN + 1)),
     [f'{TRAIN} images', f'{TRAIN + 1} labels', 'must agree']),
], ids=['short', 'long', 'empty', 'header', 'floats', 'png', 'labels',
        'shape', 'images', 'label-short', 'label-range', 'fewer-labels',
        'more-labels', 'more-train-labels'])
def test_a_wrong_idx_file_is_named(small, tmp_path, stem, content, expected):
  _put_idx(tmp_path)
  _put(tmp_path, stem, content)
  message = _message('mnist', data_dir=str(tmp_path))
  for part in (str(tmp_path), stem, *expected):
    assert part in message


@pytest.mark.parametrize('stem', [
    TRAIN_IMAGES, 'train-labels-idx1-ubyte', 't10k-images-idx3-ubyte',
    TEST_LABELS])
def test_a_missing_idx_file_is_named(small, tmp_path, stem):
  _put_idx(tmp_path / 'mnist')
  (tmp_path / 'mnist' / f'{stem}.gz').unlink()
  message = _message('mnist', data_dir=str(tmp_path))
  assert f'{tmp_path / "mnist"} lacks {stem}' in message


@pytest.mark.parametrize('content, expected', [
    (lambda rows: rows[:-1], [f'expected {TRAIN // 5} records of 3073']),
    (lambda rows: rows[:-3073], [f'expected {TRAIN // 5} records of 3073']),
    (lambda rows: rows + rows, [f'found {2 * TRAIN // 5 * 3073}']),
    (lambda rows: b'', ['found 0']),
    (lambda rows: b'\x0a' + rows[1:], ['label 10', 'expected 0..9']),
], ids=['byte', 'record', 'double', 'empty', 'label'])
def test_a_wrong_cifar_file_is_named(small, tmp_path, content, expected):
  _put_cifar10(tmp_path, '')
  path = tmp_path / 'data_batch_3.bin'
  path.write_bytes(content(path.read_bytes()))
  message = _message('cifar10', data_dir=str(tmp_path))
  for part in (str(tmp_path), 'data_batch_3.bin', *expected):
    assert part in message


def test_a_missing_batch_is_named(small, tmp_path):
  _put_cifar10(tmp_path)
  (tmp_path / 'data_batch_4.bin.xz').unlink()
  message = _message('cifar10', data_dir=str(tmp_path))
  assert f'{tmp_path} lacks data_batch_4.bin' in message


@pytest.fixture
def part_of_kmnist(small, tmp_path):
  """A set whose training images are the first 7 of 20, as the real one's."""
  train_x, train_y, test_x, test_y = _put_idx(tmp_path / 'kmnist')
  (tmp_path / 'kmnist' / f'{TRAIN_IMAGES}.gz').unlink()
  path = _put(tmp_path / 'kmnist', 'train-images-first7-idx3-ubyte',
              _idx(train_x[:7, ..., 0]))
  return path, [train_x[:7], train_y[:7], test_x, test_y]


def test_a_part_is_refused(part_of_kmnist, tmp_path):
  message = _message('kmnist', data_dir=str(tmp_path))
  assert str(part_of_kmnist[0]) in message
  assert f'7 of {TRAIN}' in message
  assert 'allow_partial' in message


def test_a_part_is_read_when_allowed_and_said_so(part_of_kmnist, tmp_path):
  dataset = data.load('kmnist', data_dir=str(tmp_path), allow_partial=True)
  _check(dataset, part_of_kmnist[1])
  assert f'7 of {TRAIN} training' in dataset.source


def test_a_part_of_cifar_is_read_when_allowed(small, tmp_path):
  train_x, train_y, *test = _put_cifar10(tmp_path)
  (tmp_path / 'data_batch_2.bin.xz').unlink()
  dataset = data.load('cifar10', data_dir=str(tmp_path), allow_partial=True)
  left = np.arange(TRAIN) // (TRAIN // 5) != 1
  _check(dataset, [train_x[left], train_y[left], *test])
  assert f'{TRAIN - TRAIN // 5} of {TRAIN} training' in dataset.source


def test_inexact_images_are_left_out(small, tmp_path):
  train_x, train_y, test_x, test_y = _put_cifar10(tmp_path)
  (tmp_path / 'inexact.txt').write_text(
      '# file record label\ndata_batch_2 1 8\n\ndata_batch_5.bin 0 8\n'
      'data_batch_5.bin.xz 3 8\ntest_batch 5 6\n')
  size = TRAIN // 5
  train = np.setdiff1d(np.arange(TRAIN), [size + 1, 4 * size, 4 * size + 3])
  test = np.setdiff1d(np.arange(TEST), [5])
  dataset = data.load('cifar10', data_dir=str(tmp_path), exclude_inexact=True)
  _check(dataset, [train_x[train], train_y[train], test_x[test], test_y[test]])
  assert f'{TRAIN - 3} of {TRAIN} training' in dataset.source
  assert f'{TEST - 1} of {TEST} test' in dataset.source


def test_inexact_images_stay_unless_asked(small, tmp_path):
  arrays = _put_cifar10(tmp_path)
  (tmp_path / 'inexact.txt').write_text('data_batch_2 1 8\n')
  _check(data.load('cifar10', data_dir=str(tmp_path)), arrays)


def test_without_a_list_none_can_be_left_out(small, tmp_path):
  _put_cifar10(tmp_path)
  message = _message(
      'cifar10', data_dir=str(tmp_path), exclude_inexact=True)
  assert str(tmp_path / 'inexact.txt') in message
  assert 'exclude_inexact' in message


def test_a_broken_list_is_named(small, tmp_path):
  _put_cifar10(tmp_path)
  (tmp_path / 'inexact.txt').write_text('data_batch_2 1\n')
  message = _message(
      'cifar10', data_dir=str(tmp_path), exclude_inexact=True)
  assert str(tmp_path / 'inexact.txt') in message


@pytest.mark.parametrize('size', [1, 7, TRAIN])
def test_the_first_training_images(small, tmp_path, size):
  train_x, train_y, *test = _put_cifar10(tmp_path)
  dataset = data.load('cifar10', data_dir=str(tmp_path), train_size=size)
  _check(dataset, [train_x[:size], train_y[:size], *test])
  assert f'first {size} training images' in dataset.source


@pytest.mark.parametrize('size', [-1, TRAIN + 1])
def test_more_training_images_than_there_are(small, tmp_path, size):
  _put_cifar10(tmp_path)
  message = _message('cifar10', data_dir=str(tmp_path), train_size=size)
  assert f'{size} must lie between 1 and the {TRAIN}' in message


def test_digits_are_all_exact():
  assert 'digits' in _message('digits', exclude_inexact=True)


@pytest.mark.parametrize('wrong, right', [
    ('minst', 'mnist'), ('fashion-mnist', 'fashion_mnist'),
    ('cifar', 'cifar10'), ('digit', 'digits')])
def test_an_unknown_name_suggests_near_ones(wrong, right):
  hint = _message(wrong).partition('known:')[0]
  assert 'did you mean' in hint
  assert repr(right) in hint


@pytest.mark.parametrize('name', [*IDX, 'cifar10', 'cifar100', 'cinic10'])
def test_nowhere_to_be_had(tmp_path, name):
  message = _message(name)
  for part in (name, 'data_dir is not set', '(1) --config.data_dir',
               '(2) a set prepared by TFDS', '--config.tfds_dir',
               '(3) a network', 'download failed', 'no way to',
               str(tmp_path / 'tfds'), *data._RAW[name].test_files):
    assert part in message


@pytest.mark.parametrize('make, reason', [
    (False, 'does not exist'), (True, 'has no such files')])
def test_a_data_dir_without_the_data_is_said(tmp_path, make, reason):
  folder = tmp_path / 'raw'
  if make:
    folder.mkdir()
  assert f'{folder} {reason}' in _message('mnist', data_dir=str(folder))


@pytest.mark.parametrize('options', [
    {'download': False}, {'exclude_inexact': True}])
def test_no_download_unless_wanted(monkeypatch, options):
  calls = []
  monkeypatch.setattr(
      urllib.request, 'urlopen', lambda *args, **kwargs: calls.append(args))
  assert 'download is off' in _message('cifar10', **options)
  assert not calls


def _png(image):
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'PNG')
  return io.BytesIO(file.getvalue())


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """A small set under the stock name and version, prepared by TFDS.

  It yields encoded images and is not registered, so that reading finds the
  stock builder.
  """
  import tensorflow_datasets as tfds
  root = tmp_path_factory.mktemp('prepared')
  arrays = [_images(9, seed=5)[..., None], _labels(9),
            _images(4, seed=6)[..., None], _labels(4)]

  class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """MNIST, nearly."""

    VERSION = tfds.core.Version('3.0.1')

    def _info(self):
      return tfds.core.DatasetInfo(
          builder=self, features=tfds.features.FeaturesDict({
              'image': tfds.features.Image(shape=(28, 28, 1)),
              'label': tfds.features.ClassLabel(num_classes=10)}))

    def _split_generators(self, dl_manager):
      del dl_manager
      return {'train': self._generate_examples(*arrays[:2]),
              'test': self._generate_examples(*arrays[2:])}

    def _generate_examples(self, images, labels):
      for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield i, {'image': _png(image[..., 0]), 'label': int(label)}

  tfds.disable_progress_bar()
  builder = Mnist(data_dir=root, file_format='array_record')
  builder.download_and_prepare()
  return root, arrays


@pytest.fixture(scope='module')
def imagenette(tmp_path_factory):
  """A few images of several sizes, prepared as the stock Imagenette is."""
  import tensorflow_datasets as tfds
  root = tmp_path_factory.mktemp('imagenette')
  shapes = ((160, 200), (213, 160), (160, 160), (161, 160), (320, 480))
  images = [_images(1, (*shape, 3), seed=i)[0]
            for i, shape in enumerate(shapes)]
  images[-1] = np.repeat(np.repeat(images[-1][::2, ::2], 2, 0), 2, 1)
  images.append(_images(1, (160, 180))[0])  # a grey one

  class Imagenette(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Imagenette, nearly."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name='160px-v2'),)

    def _info(self):
      return tfds.core.DatasetInfo(
          builder=self, features=tfds.features.FeaturesDict({
              'image': tfds.features.Image(shape=(None, None, 3)),
              'label': tfds.features.ClassLabel(num_classes=10)}))

    def _split_generators(self, dl_manager):
      del dl_manager
      return {'train': self._generate_examples(images),
              'validation': self._generate_examples(images[:2])}

    def _generate_examples(self, images):
      for i, image in enumerate(images):
        yield i, {'image': _png(image), 'label': 9 - i}

  tfds.disable_progress_bar()
  builder = Imagenette(
      data_dir=root, config='160px-v2', file_format='array_record')
  builder.download_and_prepare()
  return root, images


def test_imagenette_is_cut_to_squares(imagenette, no_tensorflow):
  root, images = imagenette
  dataset = data.load('imagenette', tfds_dir=str(root))
  assert dataset.name == 'imagenette'
  assert dataset.source == 'TFDS'
  assert dataset.num_classes == 10
  assert dataset.train_images.shape == (6, 160, 160, 3)
  assert dataset.test_images.shape == (2, 160, 160, 3)
  assert dataset.train_images.dtype == np.uint8
  want = {
      9: images[0][:, 20:180], 8: images[1][26:186], 7: images[2],
      6: images[3][:160], 4: np.stack([images[5][:, 10:170]] * 3, -1)}
  got = dict(zip(dataset.train_labels, dataset.train_images, strict=True))
  for label, image in want.items():
    np.testing.assert_array_equal(got[label], image)
  # This one is halved to 160x240; its pixels came in squares of four.
  half = images[4][::2, 80:400:2].astype(float)
  assert np.corrcoef(got[5].ravel(), half.ravel())[0, 1] > 0.9
  got = dict(zip(dataset.test_labels, dataset.test_images, strict=True))
  assert set(got) == {8, 9}
  for label, image in got.items():
    np.testing.assert_array_equal(image, want[label])


def test_imagenet_is_read_as_it_is_prepared(tmp_path):
  import tensorflow_datasets as tfds
  images = _images(5, (64, 64, 3))
  labels = [999, 0, 7, 500, 7]

  class ImagenetResized(tfds.core.GeneratorBasedBuilder,
                        skip_registration=True):
    """A few images, prepared as those of ImageNet are."""

    VERSION = tfds.core.Version('0.1.1')
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(
        name='64x64', version=tfds.core.Version('0.1.0')),)

    def _info(self):
      return tfds.core.DatasetInfo(
          builder=self, features=tfds.features.FeaturesDict({
              'image': tfds.features.Image(shape=(64, 64, 3)),
              'label': tfds.features.ClassLabel(num_classes=1000)}))

    def _split_generators(self, dl_manager):
      del dl_manager
      return {'train': self._generate_examples(images, labels),
              'validation': self._generate_examples(images[:2], labels)}

    def _generate_examples(self, images, labels):
      for i, image in enumerate(images):
        yield i, {'image': _png(image), 'label': labels[i]}

  tfds.disable_progress_bar()
  ImagenetResized(
      data_dir=tmp_path, config='64x64', file_format='array_record'
  ).download_and_prepare()
  dataset = data.load('imagenet64', tfds_dir=str(tmp_path))
  assert (dataset.name, dataset.num_classes) == ('imagenet64', 1000)
  assert _pairs(dataset.train_images, dataset.train_labels) == _pairs(
      images, labels)
  assert _pairs(dataset.test_images, dataset.test_labels) == _pairs(
      images[:2], labels[:2])


@pytest.mark.parametrize('name, source', [
    ('imagenet64', 'imagenet_resized/64x64'),
    ('imagenette', 'imagenette/160px-v2')])
def test_sets_of_tfds_alone_are_nowhere_to_be_had(name, source, tmp_path):
  message = _message(name, data_dir=str(tmp_path))
  for part in (f"{name!r} is nowhere to be had",
               str(tmp_path / 'tfds' / source),
               f"tfds.builder({source!r}, file_format='array_record'",
               '--config.tfds_dir', 'digits'):
    assert part in message
  assert 'exact' in _message(name, exclude_inexact=True)


@pytest.mark.parametrize('channels, scale', [(1, 16), (3, 255)])
def test_statistics_are_those_of_the_pixels(channels, scale, monkeypatch):
  monkeypatch.setattr(data, '_PART', 7)
  images = np.minimum(_images(40, (7, 5, channels)), np.uint8(scale))
  images[..., 0] //= 2
  labels = _labels(40)
  dataset = data.Dataset(
      'x', images, labels, images[:1] * 0, labels[:1], 10, scale, 'here')
  pixels = images.reshape(-1, channels) / scale
  mean, std = dataset.statistics()
  assert mean.dtype == std.dtype == np.float32
  np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-6)
  np.testing.assert_allclose(std, pixels.std(0), rtol=1e-6)


def _pairs(images, labels):
  """Images with their labels, whatever the order."""
  return collections.Counter(
      (image.tobytes(), int(label))
      for image, label in zip(images, labels, strict=True))


@pytest.fixture
def no_tensorflow():
  """Sees to it that TensorFlow is not imported."""
  before = 'tensorflow' in sys.modules
  yield
  assert ('tensorflow' in sys.modules) == before


def _check_prepared(dataset, arrays):
  assert dataset.source == 'TFDS'
  assert dataset.train_images.shape == (9, 28, 28, 1)
  assert dataset.train_images.dtype == dataset.test_images.dtype == np.uint8
  assert dataset.train_labels.dtype == dataset.test_labels.dtype == np.int32
  assert _pairs(dataset.train_images, dataset.train_labels) == _pairs(
      *arrays[:2])
  assert _pairs(dataset.test_images, dataset.test_labels) == _pairs(
      *arrays[2:])


def test_prepared_tfds_is_read_without_tensorflow(prepared, no_tensorflow):
  root, arrays = prepared
  _check_prepared(data.load('mnist', tfds_dir=str(root)), arrays)


def test_prepared_tfds_is_found_at_home(prepared, no_tensorflow, monkeypatch):
  root, arrays = prepared
  monkeypatch.setattr(data, '_TFDS', root)
  _check_prepared(data.load('mnist'), arrays)


def test_the_stock_builder_reads_what_was_prepared(prepared):
  import tensorflow_datasets as tfds
  builder = tfds.builder(
      'mnist', data_dir=prepared[0], file_format='array_record')
  assert type(builder).__module__.startswith('tensorflow_datasets.')


def _check_said(tmp_path):
  message = _message('mnist')
  assert str(tmp_path / 'tfds' / 'mnist') in message
  assert 'is not prepared in array_record format' in message


def test_an_unprepared_folder_is_said(tmp_path, no_tensorflow):
  (tmp_path / 'tfds' / 'mnist').mkdir(parents=True)
  _check_said(tmp_path)


def test_a_set_in_another_format_is_said(prepared, tmp_path, no_tensorflow):
  shutil.copytree(prepared[0] / 'mnist', tmp_path / 'tfds' / 'mnist')
  folder = tmp_path / 'tfds' / 'mnist' / '3.0.1'
  for path in folder.glob('*array_record*'):
    path.rename(folder / path.name.replace('array_record', 'tfrecord'))
  info = folder / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  _check_said(tmp_path)


def test_without_tfds_the_extra_is_named(prepared, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  message = _message('mnist', tfds_dir=str(prepared[0]))
  assert 'structinit_jax[experiments]' in message


class _Handler(http.server.SimpleHTTPRequestHandler):
  """Serves a folder; a file called `cut` ends before it should."""

  def log_message(self, *args):
    del args

  def do_GET(self):
    if 'cut' not in self.path:
      super().do_GET()
      return
    self.send_response(200)
    self.send_header('Content-Length', '1000')
    self.end_headers()
    self.wfile.write(b'only this')


@pytest.fixture
def served(tmp_path, monkeypatch):
  """Serves a folder over HTTP; returns the folder and its address."""
  monkeypatch.undo()  # the network is back
  monkeypatch.setattr(data, '_CACHE', tmp_path / 'cache')
  monkeypatch.setattr(data, '_TFDS', tmp_path / 'tfds')
  monkeypatch.setenv('no_proxy', '*')
  folder = tmp_path / 'served'
  folder.mkdir()
  server = http.server.ThreadingHTTPServer(
      ('127.0.0.1', 0), functools.partial(_Handler, directory=str(folder)))
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  yield folder, f'http://127.0.0.1:{server.server_port}'
  server.shutdown()
  thread.join()
  server.server_close()


def _urls(folder, address, stems):
  return tuple(
      (f'{address}/{stem}',
       hashlib.md5((folder / stem).read_bytes()).hexdigest())
      for stem in stems)


STEMS = tuple(
    f'{split}-{kind}-ubyte.gz' for split in ('train', 't10k')
    for kind in ('images-idx3', 'labels-idx1'))


@pytest.fixture
def mnist_served(served, change):
  folder, address = served
  arrays = _put_idx(folder)
  urls = _urls(folder, address, STEMS)
  change('mnist', train_size=TRAIN, test_size=TEST, urls=urls)
  return folder, urls, arrays


def test_a_download_is_read_and_kept(mnist_served, tmp_path):
  folder, _, arrays = mnist_served
  _check(data.load('mnist'), arrays)
  for stem in STEMS:
    assert (tmp_path / 'cache' / 'mnist' / stem).read_bytes() == (
        folder / stem).read_bytes()
    (folder / stem).unlink()
  _check(data.load('mnist'), arrays)  # from the cache now


def test_a_wrong_md5_leaves_no_file_behind(mnist_served, tmp_path, change):
  _, urls, arrays = mnist_served
  wrong = 32 * '0'
  change('mnist', urls=(*urls[:2], (urls[2][0], wrong), urls[3]))
  message = _message('mnist')
  for part in (urls[2][0], 'MD5', wrong, urls[2][1]):
    assert part in message
  kept = {path.name for path in (tmp_path / 'cache' / 'mnist').iterdir()}
  assert kept == set(STEMS[:2])
  change('mnist', urls=urls)
  _check(data.load('mnist'), arrays)


def test_a_file_that_is_not_there_is_no_download(mnist_served):
  folder, _, _ = mnist_served
  (folder / STEMS[3]).unlink()
  message = _message('mnist')
  assert 'download failed' in message
  assert '404' in message


def test_a_download_that_breaks_off_is_no_download(
    mnist_served, tmp_path, change):
  _, urls, arrays = mnist_served
  address = urls[0][0].replace('train', 'cut-train')
  change('mnist', urls=((address, urls[0][1]), *urls[1:]))
  assert 'download failed' in _message('mnist')
  assert not list((tmp_path / 'cache').rglob('*train-images*'))
  change('mnist', urls=urls)
  _check(data.load('mnist'), arrays)


def test_a_download_may_be_an_archive(served, change, tmp_path):
  folder, address = served
  arrays = _put_cifar10(tmp_path / 'made' / 'cifar-10-batches-bin', '')
  with tarfile.open(folder / 'cifar-10-binary.tar.gz', 'w:gz') as archive:
    archive.add(tmp_path / 'made' / 'cifar-10-batches-bin',
                'cifar-10-batches-bin')
  change('cifar10', train_size=TRAIN, test_size=TEST,
         urls=_urls(folder, address, ['cifar-10-binary.tar.gz']))
  _check(data.load('cifar10'), arrays)
  (folder / 'cifar-10-binary.tar.gz').unlink()
  _check(data.load('cifar10'), arrays)


def test_raw_files_come_before_tfds_before_a_download(
    mnist_served, prepared, no_tensorflow, tmp_path):
  _, _, downloaded = mnist_served
  local = _put_idx(tmp_path / 'raw' / 'mnist', seed=40)
  options = {'data_dir': str(tmp_path / 'raw'), 'tfds_dir': str(prepared[0])}
  _check(data.load('mnist', **options), local)
  assert not (tmp_path / 'cache').exists()
  for path in (tmp_path / 'raw' / 'mnist').iterdir():
    path.unlink()
  _check_prepared(data.load('mnist', **options), prepared[1])
  assert not (tmp_path / 'cache').exists()
  options['tfds_dir'] = str(tmp_path / 'tfds')
  _check(data.load('mnist', **options), downloaded)


def test_a_downloaded_cinic10_is_unpacked_and_read(served, change, tmp_path):
  folder, address = served
  arrays = _put_cinic(tmp_path / 'made')
  with tarfile.open(folder / 'CINIC-10.tar.gz', 'w:gz') as archive:
    archive.add(tmp_path / 'made', '.')
  change('cinic10', train_size=TRAIN, test_size=TRAIN,
         urls=_urls(folder, address, ['CINIC-10.tar.gz']))
  _check(data.load('cinic10'), arrays)


@pytest.mark.parametrize('name', [*IDX, 'cifar10', 'cifar100', 'cinic10'])
def test_published_addresses_have_an_md5(name):
  raw = data._RAW[name]
  assert raw.urls
  for address, md5 in raw.urls:
    assert address.startswith(('https://', 'http://'))
    assert len(md5) == 32
    int(md5, 16)
