"""What the tests of the experiments share: small configs and small data."""

from collections.abc import Callable
from collections.abc import Iterator
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache
import ml_collections
import pytest

from experiments import data
from experiments.configs import default

ROOT = pathlib.Path(__file__).parents[2]
_CACHE = {
    'jax_persistent_cache_min_compile_time_secs': 0.0,
    'jax_persistent_cache_min_entry_size_bytes': -1,
}


@pytest.fixture(scope='session', autouse=True)
def compiled(tmp_path_factory: Any) -> Iterator[pathlib.Path]:
  """Compiles every program once in a session, whoever asks for it."""
  folder = tmp_path_factory.mktemp('compiled')
  settings = {'jax_compilation_cache_dir': str(folder), **_CACHE}
  before = {name: getattr(jax.config, name) for name in settings}
  for name, value in settings.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  yield folder
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


@pytest.fixture(scope='session')
def make_config() -> Callable[..., ml_collections.ConfigDict]:
  """Makes a config that trains in a moment."""

  def make(**fields: Any) -> ml_collections.ConfigDict:
    config = default.get_config()
    config.model = 'mlp(widths=(8,))'
    config.initializers = ('he_normal', 'glorot_normal')
    config.seeds = 2
    config.seeds_at_once = 2
    config.update(fields)
    return config

  return make


@pytest.fixture(scope='session')
def digits() -> data.Dataset:
  return data.load('digits')


@pytest.fixture(scope='session')
def start(
    compiled: pathlib.Path, tmp_path_factory: Any
) -> Callable[..., subprocess.Popen[str]]:
  """Starts `python -m` in the repository, with a home that is empty."""
  home = tmp_path_factory.mktemp('home')
  environment = {
      **{name: value for name, value in os.environ.items()
         if name not in ('XLA_FLAGS', 'FORCE_COLOR', 'TTY_COMPATIBLE')},
      'HOME': str(home), 'MPLCONFIGDIR': str(home),
      'JAX_COMPILATION_CACHE_DIR': str(compiled),
      **{name.upper(): str(value) for name, value in _CACHE.items()},
  }

  def run(module: str, *arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, '-m', module, *map(str, arguments)], cwd=ROOT,
        env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE)

  return run


@pytest.fixture(scope='session')
def run(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., Any]:
  """Runs `python -m` to its end; returns exit code, output and errors."""

  def to_end(module: str, *arguments: Any) -> tuple[int, str, str]:
    process = start(module, *arguments)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors

  return to_end
