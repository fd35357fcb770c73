"""Results on disk: one line of JSON a finished run, and the config they share.

A work directory holds

    config.json      what the runs have in common; another config is refused
    results.jsonl    one record a finished (initializer, seed)
    kernels/         first-layer kernels before and after training
    params/          final parameters (Orbax), a folder a block of seeds
    model_state/     running statistics, for models that have some
    checkpoints/     training state of the block in progress
    report.html      and table.md, kernels.md, figures/: written by
                     experiments.report
"""

from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import fcntl
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
from typing import Any

import numpy as np

from experiments import registry

__all__ = [
    'RunDirectory', 'kernel_file', 'of_config', 'read_config',
    'read_kernels', 'read_records', 'slug']

_RESULTS = 'results.jsonl'

# What may change between calls without changing what a run computes.
_FREE = frozenset({
    'initializers', 'seeds', 'baseline', 'data_dir', 'tfds_dir', 'download',
    'seeds_at_once', 'scan_steps', 'checkpoint_seconds', 'paper', 'title'})


def slug(label: str) -> str:
  """Returns a file name for a label, unique whatever characters it has.

  Args:
    label: an initializer's label.

  Returns:
    Letters, digits and `_`, and a digest where the label had others.
  """
  clean = re.sub(r'\W+', '_', label).strip('_')
  if clean == label:
    return clean
  return f'{clean}-{hashlib.sha256(label.encode()).hexdigest()[:6]}'


def read_records(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the finished runs of a work directory.

  Args:
    folder: the work directory.

  Returns:
    The records, in the order they were written. A last line without a
    newline was cut off by a crash and does not count.

  Raises:
    ValueError: if there is no results file, or a whole line is not JSON.
  """
  path = folder / _RESULTS
  if not path.is_file():
    raise ValueError(f'{folder} holds no {_RESULTS}: not a run directory')
  *lines, _ = path.read_text(encoding='utf-8').split('\n')
  records = []
  for number, line in enumerate(lines, 1):
    try:
      records.append(json.loads(line))
    except json.JSONDecodeError as error:
      raise ValueError(
          f'{path}, line {number} is corrupted ({error}): remove the line, and '
          'its run is made again') from error
  return records


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """Reads the config that a work directory was last opened with.

  Args:
    folder: the work directory.

  Returns:
    The config.

  Raises:
    ValueError: if the directory has none.
  """
  path = folder / 'config.json'
  if not path.is_file():
    raise ValueError(f'{folder} holds no config.json: not a run directory')
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except json.JSONDecodeError as error:
    raise ValueError(
        f'{path} is corrupted ({error}): restore it, or remove {folder}'
    ) from error


def of_config(
    records: Iterable[dict[str, Any]], config: Mapping[str, Any]
) -> list[dict[str, Any]]:
  """Returns the records of the initializers and seeds that a config names.

  Args:
    records: of a work directory, which may hold more.
    config: the config.

  Returns:
    The records.
  """
  labels = {registry.split_label(entry)[0] for entry in config['initializers']}
  return [record for record in records if record['initializer'] in labels
          and 0 <= record['seed'] < config['seeds']]


class RunDirectory:
  """A work directory, opened for adding runs of one config."""

  def __init__(self, folder: pathlib.Path, config: Mapping[str, Any]):
    """Opens or creates the directory.

    Args:
      folder: the work directory.
      config: the config, JSON-serialisable.

    Raises:
      ValueError: if the directory holds runs of another config, or another
        process is writing to it.
    """
    self.folder = folder
    if folder.exists() and not folder.is_dir():
      raise ValueError(f'workdir {folder} is a file; name a directory')
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
      lock = stack.enter_context(open(folder / '.lock', 'w'))
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError as error:
        raise ValueError(
            f'{folder}: another process is writing here') from error
      self._check_config(json.loads(json.dumps(config)))
      if not (folder / _RESULTS).is_file():
        self.write(_RESULTS, b'')
      self._open = stack.pop_all()  # all is well: the lock stays

  def _check_config(self, config: dict[str, Any]) -> None:
    records = (read_records(self.folder)
               if (self.folder / _RESULTS).is_file() else [])
    if records or (self.folder / 'checkpoints').is_dir():
      there = (read_config(self.folder)
               if (self.folder / 'config.json').is_file() or not records
               else records[-1]['config'])
      differ = [
          f'{name} is {there.get(name)!r} there, {config.get(name)!r} here'
          for name in sorted({*there, *config} - _FREE)
          if there.get(name) != config.get(name)]
      if differ:
        raise ValueError(
            f'{self.folder} holds runs of another config: {"; ".join(differ)}. '
            'Choose another --workdir, or remove this one')
    self.write('config.json', json.dumps(config, indent=2).encode())

  def finished(self, label: str, expression: str) -> set[int]:
    """Returns the seeds that an initializer has already been run with.

    Args:
      label: the initializer's label.
      expression: what the label stands for.

    Returns:
      Seeds.

    Raises:
      ValueError: if the label stood for something else in earlier runs.
    """
    seeds = set()
    for record in read_records(self.folder):
      if record['initializer'] == label:
        if record['expression'] != expression:
          raise ValueError(
              f'{self.folder}: {label!r} is {record["expression"]!r} there, '
              f'{expression!r} here. Choose another label or --workdir')
        seeds.add(record['seed'])
    return seeds

  def append(self, records: Iterable[Mapping[str, Any]]) -> None:
    """Adds records: all of them or, after a crash, none.

    Args:
      records: JSON-serialisable; NaN is not allowed.
    """
    lines = ''.join(
        json.dumps(record, allow_nan=False) + '\n' for record in records)
    content = (self.folder / _RESULTS).read_bytes()
    whole = content[:content.rfind(b'\n') + 1]
    self.write(_RESULTS, whole + lines.encode())

  def write(self, name: str, content: bytes) -> None:
    """Writes a file atomically: it is there whole, or not at all.

    Args:
      name: path inside the directory.
      content: its bytes.
    """
    path = self.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.part')
    try:
      with open(part, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
      os.replace(part, path)
    except OSError:
      part.unlink(missing_ok=True)
      raise

  def delete(self, name: str) -> None:
    """Removes a folder inside the directory, if it is there.

    Args:
      name: path inside the directory.
    """
    shutil.rmtree(self.folder / name, ignore_errors=True)

  def write_kernels(
      self, label: str, seed: int, before: np.ndarray, after: np.ndarray
  ) -> None:
    """Keeps the first layer's kernel, before and after training.

    Args:
      label: the initializer's label.
      seed: the run's seed.
      before: kernel at initialisation.
      after: kernel at the end.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, before=before, after=after)
    self.write(kernel_file(label, seed), buffer.getvalue())

  def close(self) -> None:
    """Lets other processes write."""
    self._open.close()


def kernel_file(label: str, seed: int) -> str:
  """Returns where a run's kernels are, relative to the work directory.

  Args:
    label: the initializer's label.
    seed: the run's seed.

  Returns:
    A path.
  """
  return f'kernels/{slug(label)}/seed_{seed}.npz'


def read_kernels(
    folder: pathlib.Path, label: str, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
  """Reads a run's first-layer kernel, before and after training.

  Args:
    folder: the work directory.
    label: the initializer's label.
    seed: the run's seed.

  Returns:
    `(before, after)`, or None if they were not kept.
  """
  path = folder / kernel_file(label, seed)
  if not path.is_file():
    return None
  with np.load(path, allow_pickle=False) as file:
    return file['before'], file['after']
