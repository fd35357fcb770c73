"""Image data sets as arrays: raw files, prepared TFDS, or a download.

`load` looks in that order and says where the data came from. Digits needs
nothing: scikit-learn carries it. Imagenette and ImageNet come from TFDS alone,
ImageNet as images of 64x64.
"""

from collections.abc import Callable
import dataclasses
import functools
import gzip
import hashlib
import http.client
import lzma
import math
import pathlib
import tarfile
from typing import Any
import urllib.request
import zlib

import numpy as np

from experiments import registry

__all__ = ['Dataset', 'load', 'of_config']

_CACHE = pathlib.Path('~/.cache/structinit_jax')
_TFDS = pathlib.Path('~/tensorflow_datasets')
# TFDS's name, classes, and the side of the squares that images are cut to. A
# device's memory has to hold all of a set: ImageNet at 64x64, as Chrabaszcz et
# al. scaled it (arXiv:1707.08819), takes 16 GB; at 224x224 it would take 193.
_TFDS_ALONE = {
    'imagenet64': ('imagenet_resized/64x64', 1000, None),
    'imagenette': ('imagenette/160px-v2', 10, 160),
}
_TIMEOUT_SECONDS = 5
_PART = 8192  # images


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Labelled images, split into train and test.

  Attributes:
    name: registered name.
    train_images: `(n, height, width, channels)` uint8 in 0..`scale`.
    train_labels: `(n,)` int32.
    test_images: as `train_images`.
    test_labels: as `train_labels`.
    num_classes: number of classes.
    scale: the largest value a pixel may have.
    source: where the data came from, for the records.
  """

  name: str
  train_images: np.ndarray
  train_labels: np.ndarray
  test_images: np.ndarray
  test_labels: np.ndarray
  num_classes: int
  scale: int
  source: str

  def statistics(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the training images' mean and deviation a channel, in [0, 1]."""
    # From how often every value occurs: as floats, or as the integers that
    # bincount makes of them, the images may not fit.
    parts = len(self.train_images) // _PART + 1
    counts = np.sum([
        [np.bincount(channel.reshape(-1), minlength=256)
         for channel in np.moveaxis(images, -1, 0)]
        for images in np.array_split(self.train_images, parts)], axis=0)
    share = counts / counts.sum(1, keepdims=True)
    pixels = np.arange(256, dtype=np.float32) / self.scale
    mean = share @ pixels
    std = np.sqrt((share * (pixels - mean[:, None])**2).sum(1))
    return mean.astype(np.float32), std.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class _RawFormat:
  """What the published raw files of a data set look like."""

  num_classes: int
  train_size: int
  test_size: int
  shape: tuple[int, int, int]
  folders: tuple[str, ...]
  read: Callable[..., tuple[np.ndarray, np.ndarray]]
  train_files: tuple[str, ...]
  test_files: tuple[str, ...]
  label_bytes: int
  urls: tuple[tuple[str, str], ...]  # (address, MD5)
  form: str = 'plain, .gz or .xz'


def _open(path: pathlib.Path) -> bytes:
  """Reads a file, decompressed by its ending; a broken one is named."""
  openers = {'.gz': gzip.open, '.xz': lzma.open}
  try:
    with openers.get(path.suffix, open)(path, 'rb') as file:
      return file.read()
  except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
    raise ValueError(
        f'{path} is truncated or corrupted ({error}); expected a complete '
        f'{path.suffix} stream. Fetch the file again') from error


def _find(folder: pathlib.Path, stem: str) -> pathlib.Path | None:
  for suffix in ('', '.gz', '.xz'):
    path = folder / (stem + suffix)
    if path.is_file():
      return path
  return None


def _require(folder: pathlib.Path, stem: str) -> pathlib.Path:
  path = _find(folder, stem)
  if path is None:
    raise ValueError(f'{folder} lacks {stem} (or {stem}.gz, {stem}.xz)')
  return path


def _read_idx(path: pathlib.Path, item_shape: tuple[int, ...]) -> np.ndarray:
  """Reads an IDX file of bytes; returns `(n, *item_shape)`."""
  data = _open(path)
  axes = len(item_shape) + 1
  header = 4 + 4 * axes
  if len(data) < header or data[:4] != bytes([0, 0, 8, axes]):
    raise ValueError(
        f'{path} is no IDX file of bytes with {axes} axes: expected it to '
        f'begin with {bytes([0, 0, 8, axes]).hex(" ")}, found '
        f'{data[:4].hex(" ") or "nothing"}')
  shape = tuple(np.frombuffer(data, '>u4', axes, offset=4).tolist())
  if shape[1:] != item_shape:
    raise ValueError(
        f'{path} holds items of shape {shape[1:]}; expected {item_shape}')
  size = math.prod(shape)
  if len(data) - header != size:
    raise ValueError(
        f'{path} is truncated or corrupted: expected {size} bytes for shape '
        f'{shape} after the header, found {len(data) - header}')
  return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _read_idx_split(
    raw: _RawFormat, folder: pathlib.Path, stems: tuple[str, ...],
    size: int, allow_partial: bool, exclude: dict[str, set[int]],
) -> tuple[np.ndarray, np.ndarray]:
  del exclude  # no IDX set lists inexact images
  image_stem, label_stem = stems
  path = _find(folder, image_stem)
  if path is None:
    first = image_stem.replace('-images-', '-images-first*-')
    parts = sorted(folder.glob(first + '*'))
    if not parts:
      raise ValueError(
          f'{folder} lacks {image_stem} (or {image_stem}.gz, .xz)')
    path = parts[-1]
  images = _read_idx(path, raw.shape[:2])[..., None]
  label_path = _require(folder, label_stem)
  labels = _read_idx(label_path, ())
  if len(images) < size and len(labels) >= len(images):
    if not allow_partial:
      raise ValueError(
          f'{path} holds {len(images)} of {size} images. Pass '
          '--config.allow_partial to use the part, and say so in results')
    labels = labels[:len(images)]
  if len(images) != len(labels):
    raise ValueError(
        f'{path} holds {len(images)} images and {label_path} {len(labels)} '
        'labels; they must agree')
  return images, labels


def _read_cifar_split(
    raw: _RawFormat, folder: pathlib.Path, stems: tuple[str, ...],
    size: int, allow_partial: bool, exclude: dict[str, set[int]],
) -> tuple[np.ndarray, np.ndarray]:
  height, width, channels = raw.shape
  record = raw.label_bytes + height * width * channels
  images, labels = [], []
  total = 0
  for stem in stems:
    path = _find(folder, stem)
    if path is None and allow_partial:
      continue
    path = path or _require(folder, stem)
    data = _open(path)
    want = size // len(stems)
    if len(data) % record or (len(data) != want * record and not allow_partial):
      raise ValueError(
          f'{path} is truncated or corrupted: expected {want} records of '
          f'{record} bytes = {want * record} bytes, found {len(data)}')
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    total += len(rows)
    keep = np.ones(len(rows), bool)
    keep[[i for i in exclude.get(stem, ()) if i < len(rows)]] = False
    rows = rows[keep]
    labels.append(rows[:, raw.label_bytes - 1])
    pixels = rows[:, raw.label_bytes:].reshape(-1, channels, height, width)
    images.append(pixels.transpose(0, 2, 3, 1))
  if not total:
    raise ValueError(f'{folder} holds no records of {", ".join(stems)}')
  return np.concatenate(images), np.concatenate(labels)


def _read_png_split(
    raw: _RawFormat, folder: pathlib.Path, stems: tuple[str, ...],
    size: int, allow_partial: bool, exclude: dict[str, set[int]],
) -> tuple[np.ndarray, np.ndarray]:
  """Reads a folder of PNG files a class, in the order of the names."""
  del exclude  # no set of PNG files lists inexact images
  from PIL import Image
  paths, labels = [], []
  want = size // len(stems)
  for label, stem in enumerate(stems):
    found = sorted((folder / stem).glob('*.png'))
    if len(found) != want and not (allow_partial and len(found) < want):
      raise ValueError(
          f'{folder / stem} holds {len(found)} PNG files; expected {want}, '
          'or fewer with --config.allow_partial')
    paths += found
    labels += [label] * len(found)
  if not paths:
    raise ValueError(f'{folder} holds no PNG files in {", ".join(stems)}')
  images = np.empty((len(paths), *raw.shape), np.uint8)
  for i, path in enumerate(paths):
    try:
      with Image.open(path) as picture:
        image = np.asarray(picture.convert('RGB'))  # some are grey
    except (OSError, SyntaxError) as error:
      raise ValueError(
          f'{path} is truncated or corrupted ({error}); expected a complete '
          'PNG file. Fetch the file again') from error
    if image.shape != raw.shape:
      raise ValueError(
          f'{path} holds an image of shape {image.shape}; expected {raw.shape}')
    images[i] = image
  return images, np.array(labels)


def _idx_format(urls: tuple[tuple[str, str], ...], folder: str) -> _RawFormat:
  return _RawFormat(
      num_classes=10, train_size=60000, test_size=10000, shape=(28, 28, 1),
      folders=(folder,), read=_read_idx_split,
      train_files=('train-images-idx3-ubyte', 'train-labels-idx1-ubyte'),
      test_files=('t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'),
      label_bytes=0, urls=urls)


def _idx_urls(address: str, md5s: tuple[str, ...]) -> Any:
  files = ('train-images-idx3', 'train-labels-idx1',
           't10k-images-idx3', 't10k-labels-idx1')
  return tuple((f'{address}/{file}-ubyte.gz', md5)
               for file, md5 in zip(files, md5s, strict=True))


_CINIC_CLASSES = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog',
                  'frog', 'horse', 'ship', 'truck')

_RAW = {
    'mnist': _idx_format(_idx_urls(
        'https://storage.googleapis.com/cvdf-datasets/mnist',
        ('f68b3c2dcbeaaa9fbdd348bbdeb94873', 'd53e105ee54ea40749a09fcbcd1e9432',
         '9fb629c4189551a2d022fa330f9573f3', 'ec29112dd5afa0611ce80d1b7f02629c'
         )), 'mnist'),
    'fashion_mnist': _idx_format(_idx_urls(
        'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com',
        ('8d4fb7e6c68d591d4c3dfef9ec88bf0d', '25c81989df183df01b3e8a0aad5dffbe',
         'bef4ecab320f06d8554ea6380940ec79', 'bb300cfdad3c16e7a12a480ee83cd310'
         )), 'fashion_mnist'),
    'kmnist': _idx_format(_idx_urls(
        'http://codh.rois.ac.jp/kmnist/dataset/kmnist',
        ('bdb82020997e1d708af4cf47b453dcf7', 'e144d726b3acfaa3e44228e80efcd344',
         '5c965bf0a639b31b8f53240b1b52f4d7', '7320c461ea6c1c855c0b718fb2a4b134'
         )), 'kmnist'),
    'cifar10': _RawFormat(
        num_classes=10, train_size=50000, test_size=10000, shape=(32, 32, 3),
        folders=('cifar10', 'cifar-10-batches-bin'), read=_read_cifar_split,
        train_files=tuple(f'data_batch_{i}.bin' for i in range(1, 6)),
        test_files=('test_batch.bin',), label_bytes=1,
        urls=(('https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',
               'c32a1d4ab5d03f1284b67883e8d87530'),)),
    'cifar100': _RawFormat(
        num_classes=100, train_size=50000, test_size=10000, shape=(32, 32, 3),
        folders=('cifar100', 'cifar-100-binary'), read=_read_cifar_split,
        train_files=('train.bin',), test_files=('test.bin',), label_bytes=2,
        urls=(('https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz',
               '03b5dce01913d631647c71ecec9e9cb8'),)),
    # Its third split, valid, is left alone.
    'cinic10': _RawFormat(
        num_classes=10, train_size=90000, test_size=90000, shape=(32, 32, 3),
        folders=('cinic10', 'CINIC-10'), read=_read_png_split,
        train_files=tuple(f'train/{name}' for name in _CINIC_CLASSES),
        test_files=tuple(f'test/{name}' for name in _CINIC_CLASSES),
        label_bytes=0, form='folders of PNG files',
        urls=(('https://datashare.ed.ac.uk/bitstream/handle/10283/3192/'
               'CINIC-10.tar.gz', '6ee4d0c996905fe93221de577967a372'),)),
}


def _inexact(folder: pathlib.Path) -> dict[str, set[int]]:
  """Reads `inexact.txt`: lines of file, record, label."""
  path = folder / 'inexact.txt'
  if not path.is_file():
    raise ValueError(
        f'exclude_inexact: {path} is missing; expected lines of file, record '
        'number and label')
  out: dict[str, set[int]] = {}
  for line in path.read_text(encoding='utf-8').splitlines():
    if line.strip() and not line.startswith('#'):
      try:
        file, record, _ = line.split()
        number = int(record)
      except ValueError as error:
        raise ValueError(
            f'{path}: expected a file, a record number and a label, found '
            f'{line!r}') from error
      stem = file.removesuffix('.xz').removesuffix('.gz')
      out.setdefault(stem.removesuffix('.bin') + '.bin', set()).add(number)
  return out


def _from_raw(
    name: str, raw: _RawFormat, folder: pathlib.Path, allow_partial: bool,
    exclude_inexact: bool,
) -> Dataset:
  exclude = _inexact(folder) if exclude_inexact else {}
  splits = []
  for stems, size in ((raw.train_files, raw.train_size),
                      (raw.test_files, raw.test_size)):
    images, labels = raw.read(raw, folder, stems, size, allow_partial, exclude)
    if labels.max(initial=0) >= raw.num_classes:
      raise ValueError(
          f'{folder}: label {labels.max()} in {", ".join(stems)}; expected '
          f'0..{raw.num_classes - 1}')
    splits.append((np.ascontiguousarray(images), labels.astype(np.int32)))
  (train_x, train_y), (test_x, test_y) = splits
  note = ''
  if len(train_x) != raw.train_size or len(test_x) != raw.test_size:
    note = (f', {len(train_x)} of {raw.train_size} training and {len(test_x)} '
            f'of {raw.test_size} test images')
  return Dataset(name, train_x, train_y, test_x, test_y, raw.num_classes, 255,
                 f'raw files{note}')


def _raw_folder(raw: _RawFormat, root: pathlib.Path) -> pathlib.Path | None:
  """Returns the folder under `root` that seems to hold the raw files."""
  marks = raw.test_files + raw.train_files
  folders = [root / folder for folder in raw.folders]
  # The sets share file names, so a folder named for another set is not ours.
  others = {f for other in _RAW.values() for f in other.folders}
  if root.name in raw.folders or root.name not in others:
    folders.append(root)
  for folder in folders:
    if any(_find(folder, stem) or (folder / stem).is_dir() for stem in marks):
      return folder
  return None


def _from_tfds(
    name: str, root: pathlib.Path, num_classes: int, test_split: str = 'test',
    size: int | None = None,
) -> Dataset:
  """Reads a prepared set; if a size is given, images are cut to squares."""
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise ValueError(
        f'{root} looks like a prepared TFDS data set, but tensorflow-datasets '
        "is not installed: pip install 'structinit_jax[experiments]'"
    ) from error
  try:
    builder = tfds.builder(name, data_dir=root, file_format='array_record')
    prepared = builder.is_prepared()
  except ValueError:  # prepared in another format
    prepared = False
  if not prepared:
    raise ValueError(
        f'{root / name} is not prepared in array_record format, the one that '
        "is read without TensorFlow: prepare it with "
        f"tfds.builder({name!r}, file_format='array_record')")
  arrays = []
  for split in ('train', test_split):
    source: Any = tfds.data_source(
        name, data_dir=root, split=split, download=False,
        builder_kwargs={'file_format': 'array_record'})
    images, labels = [], []
    for i in range(len(source)):
      row = source[i]
      images.append(row['image'] if size is None else _cut(row['image'], size))
      labels.append(row['label'])
    arrays.append((np.stack(images), np.array(labels, np.int32)))
  (train_x, train_y), (test_x, test_y) = arrays
  return Dataset(
      name, train_x, train_y, test_x, test_y, num_classes, 255, 'TFDS')


def _cut(image: np.ndarray, size: int) -> np.ndarray:
  """Returns the middle of an image, scaled so that its shorter side fits."""
  from PIL import Image
  picture = Image.fromarray(image.squeeze()).convert('RGB')  # some are grey
  shorter = min(picture.size)
  if shorter != size:
    width, height = (round(side * size / shorter) for side in picture.size)
    picture = picture.resize((width, height))
  left, top = ((side - size) // 2 for side in picture.size)
  return np.asarray(picture.crop((left, top, left + size, top + size)))


def _download(name: str, raw: _RawFormat) -> pathlib.Path:
  """Fetches the published raw files into the cache, checked by MD5."""
  folder = _CACHE.expanduser() / name
  folder.mkdir(parents=True, exist_ok=True)
  for address, md5 in raw.urls:
    path = folder / address.rsplit('/', 1)[1]
    if path.is_file():
      continue
    with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as answer:
      content = answer.read()
    found = hashlib.md5(content).hexdigest()
    if found != md5:
      raise ValueError(f'{address}: expected MD5 {md5}, found {found}')
    part = path.with_name(path.name + '.part')
    part.write_bytes(content)
    if path.name.endswith('.tar.gz'):
      with tarfile.open(part) as archive:
        archive.extractall(folder, filter='data')
    part.rename(path)
  return folder


def load(
    name: str, *, data_dir: str | None = None, tfds_dir: str | None = None,
    download: bool = True, allow_partial: bool = False,
    exclude_inexact: bool = False, train_size: int = 0,
) -> Dataset:
  """Loads a data set into memory, from the first place that has it.

  Args:
    name: a name in `registry.DATASETS`.
    data_dir: folder with the published raw files, or with a folder of them
      called like the data set; plain, .gz or .xz, or as folders of PNG files.
    tfds_dir: folder of prepared TFDS data sets; `~/tensorflow_datasets` if
      None.
    download: whether the published files may be downloaded.
    allow_partial: whether an incomplete set will do.
    exclude_inexact: leave out the images that the folder's `inexact.txt`
      lists.
    train_size: how many training images, the first ones; 0: all.

  Returns:
    A Dataset.

  Raises:
    ValueError: if the name is unknown, a file is broken or incomplete (the
      message names the file and what was expected), the data are nowhere to be
      had (it names the three ways to get them), or there are fewer training
      images than `train_size`.
  """
  dataset = registry.DATASETS[name](
      data_dir=data_dir, tfds_dir=tfds_dir, download=download,
      allow_partial=allow_partial, exclude_inexact=exclude_inexact)
  if not train_size:
    return dataset
  have = len(dataset.train_images)
  if not 0 < train_size <= have:
    raise ValueError(
        f'train_size {train_size} must lie between 1 and the {have} training '
        f'images of {name}; 0 takes all')
  return dataclasses.replace(
      dataset, train_images=dataset.train_images[:train_size],
      train_labels=dataset.train_labels[:train_size],
      source=f'{dataset.source} (first {train_size} training images)')


def of_config(config: Any) -> Dataset:
  """Loads the data set that a config names, see `load`."""
  return load(
      config.dataset, data_dir=config.data_dir, tfds_dir=config.tfds_dir,
      download=config.download, allow_partial=config.allow_partial,
      exclude_inexact=config.exclude_inexact, train_size=config.train_size)


def _digits(shuffled: bool = False, **options: Any) -> Dataset:
  if options.get('exclude_inexact'):
    raise ValueError('exclude_inexact: every image of digits is exact')
  from sklearn import datasets
  bunch: Any = datasets.load_digits()
  images = bunch.images.astype(np.uint8)[..., None]
  labels = bunch.target.astype(np.int32)
  # The file is in the order of writers; the last fifth is written by others.
  train = len(images) * 4 // 5
  if shuffled:
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
  return Dataset('digits_shuffled' if shuffled else 'digits', images[:train],
                 labels[:train], images[train:], labels[train:], 10, 16,
                 'scikit-learn')


def _tfds_loader(name: str) -> Callable[..., Dataset]:
  source, num_classes, size = _TFDS_ALONE[name]

  def read(
      *, tfds_dir: str | None, exclude_inexact: bool, **options: Any
  ) -> Dataset:
    del options  # there are no raw files
    if exclude_inexact:
      raise ValueError(f'exclude_inexact: every image of {name} is exact')
    root = pathlib.Path(tfds_dir or _TFDS).expanduser()
    if not (root / source).is_dir():
      raise ValueError(
          f'data set {name!r} is nowhere to be had ({root / source} is not '
          'prepared). To prepare it, where there are a network and '
          f"TensorFlow: tfds.builder({source!r}, file_format='array_record')"
          '.download_and_prepare(); it is then found in ~/tensorflow_datasets '
          'or --config.tfds_dir. The data set digits needs none of this')
    dataset = _from_tfds(source, root, num_classes, 'validation', size)
    return dataclasses.replace(dataset, name=name)

  return read


def _raw_loader(name: str) -> Callable[..., Dataset]:
  raw = _RAW[name]

  def read(
      *, data_dir: str | None, tfds_dir: str | None, download: bool,
      allow_partial: bool, exclude_inexact: bool,
  ) -> Dataset:
    tried = []
    if data_dir:
      root = pathlib.Path(data_dir).expanduser()
      folder = _raw_folder(raw, root)
      if folder is not None:
        return _from_raw(name, raw, folder, allow_partial, exclude_inexact)
      reason = 'has no such files' if root.is_dir() else 'does not exist'
      tried.append(f'data_dir {root} {reason}')
    else:
      tried.append('data_dir is not set')
    tfds_root = pathlib.Path(tfds_dir or _TFDS).expanduser()
    if exclude_inexact:
      tried.append('TFDS and downloads are passed over: exclude_inexact')
    elif (tfds_root / name).is_dir():
      return _from_tfds(name, tfds_root, raw.num_classes)
    else:
      tried.append(f'{tfds_root / name} is not prepared')
    if download and not exclude_inexact:
      try:
        folder = _raw_folder(raw, _download(name, raw))
        if folder is not None:
          return _from_raw(name, raw, folder, allow_partial, False)
      except (OSError, http.client.HTTPException) as error:
        tried.append(f'download failed: {error}')
    else:
      tried.append('download is off')
    files = ', '.join(raw.train_files + raw.test_files)
    raise ValueError(
        f'data set {name!r} is nowhere to be had ({"; ".join(tried)}). Three '
        f'ways to get it: (1) --config.data_dir=DIR, where DIR/{name} holds '
        f'{files}, {raw.form}; (2) a set prepared by TFDS in array_record '
        'format, in ~/tensorflow_datasets or '
        '--config.tfds_dir; (3) a network, to download the published files. '
        'The data set digits needs none of them')

  return read


registry.DATASETS['digits'] = _digits
registry.DATASETS['digits_shuffled'] = functools.partial(
    _digits, shuffled=True)
for _name in _TFDS_ALONE:
  registry.DATASETS[_name] = _tfds_loader(_name)
for _name in _RAW:
  registry.DATASETS[_name] = _raw_loader(_name)
