"""Comparison of initializers: every (initializer, seed), once, resumable."""

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import datetime
import math
import pathlib
import platform
import time
from typing import Any

import jax
import numpy as np

from experiments import checkpoint
from experiments import data
from experiments import initializers
from experiments import progress
from experiments import registry
from experiments import results
from experiments import train
import structinit_jax as si

__all__ = ['compare']

_LEAST = {
    'seeds': 1, 'epochs': 1, 'batch_size': 1, 'learning_rate': 0,
    'weight_decay': 0, 'frobenius_decay': 0, 'seeds_at_once': 0,
    'checkpoint_seconds': 0}


def compare(
    config: Any, workdir: str | pathlib.Path) -> list[dict[str, Any]]:
  """Trains every initializer of a config with every seed.

  Finished runs are not repeated, so calling this again after a crash goes on
  where it stopped, and calling it with more seeds or initializers adds those.

  Args:
    config: an `ml_collections.ConfigDict`, see `experiments/configs`.
    workdir: where results are kept.

  Returns:
    The records of all runs of this config in `workdir`.

  Raises:
    ValueError: for a config that makes no sense, before anything is trained.
  """
  workdir = pathlib.Path(workdir)
  entries = [(*registry.split_label(entry), initializers.make(entry)[1])
             for entry in config.initializers]
  names = [label for label, _, _ in entries]
  if len(set(names)) != len(names):
    raise ValueError(f'two initializers have the same label: {names}')
  if config.baseline not in names:
    raise ValueError(
        f'baseline {config.baseline!r} is not among the initializers: {names}')
  for name, least in _LEAST.items():
    if not least <= config[name] < math.inf:  # false for NaN, too
      raise ValueError(
          f'{name}={config[name]} must be finite and at least {least}')
  dataset = data.of_config(config)
  trainer = train.Trainer(config, dataset)
  for label, _, recipe in entries:
    try:  # an initializer that cannot serve the model is refused now
      jax.eval_shape(lambda r=recipe: trainer.init(r, (0,)))
    except ValueError as error:
      raise ValueError(f'initializer {label!r}: {error}') from error

  with contextlib.closing(
      results.RunDirectory(workdir, config.to_dict())) as runs:
    done = {label: runs.finished(label, expression)
            for label, expression, _ in entries}
    left = sum(
        len(set(range(config.seeds)) - done[label]) * _epochs(config, recipe)
        for label, _, recipe in entries)
    with progress.bar('training', left) as advance:
      for label, expression, recipe in entries:
        for seeds in _blocks(config, trainer, recipe, done[label]):
          _run_block(config, dataset, trainer, runs, label, expression,
                     recipe, seeds, advance)
      runs.delete('checkpoints')
  return results.of_config(results.read_records(workdir), config)


def _epochs(config: Any, recipe: initializers.Recipe) -> int:
  """Returns how long to train: as long again after pruning."""
  return config.epochs * (2 if recipe.prune else 1)


def _blocks(
    config: Any, trainer: train.Trainer, recipe: initializers.Recipe,
    done: set[int],
) -> list[list[int]]:
  """Returns the seeds still to train, in blocks that are trained together.

  Blocks are cut at fixed places and recorded whole, so a rerun trains the same
  blocks: how many seeds share a program can change the last bit of a result.
  """
  if done.issuperset(range(config.seeds)):
    return []
  size = config.seeds_at_once or trainer.seeds_that_fit(recipe, config.seeds)
  blocks = [range(start, min(start + size, config.seeds))
            for start in range(0, config.seeds, size)]
  left = [[seed for seed in block if seed not in done] for block in blocks]
  return [block for block in left if block]


def _run_block(
    config: Any, dataset: data.Dataset, trainer: train.Trainer,
    runs: results.RunDirectory, label: str, expression: str,
    recipe: initializers.Recipe, seeds: Sequence[int],
    advance: Callable[[int], None],
) -> None:
  """Trains a block of seeds and records them."""
  # All that a block depends on, beside the config of the directory.
  name = results.slug(f'{label} = {expression}, seeds {[*seeds]}')
  saved = checkpoint.RunCheckpoint(runs.folder / 'checkpoints' / name)
  state = trainer.init(recipe, seeds)
  before = np.asarray(state.params['stem']['kernel'])
  restored = saved.restore(state)
  if restored is None:
    first = trainer.evaluate(state)
    epoch, curves = 0, [_point(None, None, first)]
    seconds = 0.0
  else:
    epoch, state, history = restored
    curves, seconds = history['curves'], history['seconds']
    advance(epoch * len(seeds))
  program, compile_seconds = trainer.compile_epoch(recipe, state)
  last_save = time.monotonic()
  epochs = _epochs(config, recipe)
  while epoch < epochs:
    if recipe.prune and epoch == config.epochs:
      state = trainer.prune(recipe, state)
    start = time.perf_counter()
    state, (loss, accuracy) = trainer.train_epoch(program, state, epoch)
    jax.block_until_ready(loss)
    seconds += time.perf_counter() - start
    curves.append(_point(loss, accuracy, trainer.evaluate(state)))
    epoch += 1
    advance(len(seeds))
    due = time.monotonic() - last_save > config.checkpoint_seconds
    if due and epoch < epochs:
      saved.save(epoch, state, {'curves': curves, 'seconds': seconds})
      last_save = time.monotonic()

  after = np.asarray(state.params['stem']['kernel'])
  checkpoint.save_params(runs.folder / 'params' / name, state.params)
  if state.model_state:  # without its statistics a model cannot be used
    checkpoint.save_params(
        runs.folder / 'model_state' / name, state.model_state)
  shared = {
      'config': config.to_dict(), 'versions': _versions(),
      'prng_impl': str(jax.random.key_impl(jax.random.key(0))),
      'devices': [d.device_kind for d in jax.local_devices()],
      'data_source': dataset.source,
      'image_shape': list(dataset.train_images.shape[1:]),
      'num_units': trainer.num_units,
      'finished': datetime.datetime.now(datetime.UTC).isoformat('T', 'seconds'),
  }
  records = []
  for i, seed in enumerate(seeds):
    runs.write_kernels(label, seed, before[i], after[i])
    records.append({
        'initializer': label, 'expression': expression, 'seed': seed,
        **_summary(curves, i),
        'kernels': {'initial': _kernel_summary(before[i]),
                    'final': _kernel_summary(after[i])},
        'seconds': seconds / len(seeds), 'compile_seconds': compile_seconds,
        'params': f'params/{name}', 'params_index': i, **shared})
  runs.append(records)
  saved.delete()


def _point(loss: Any, accuracy: Any, test: train.Evaluation) -> dict[str, Any]:
  """One point of the learning curves: lists over the seeds of a block."""
  return {
      'train_loss': None if loss is None else _floats(loss),
      'train_accuracy': None if accuracy is None else _floats(accuracy),
      'test_loss': _floats(test.loss), 'test_accuracy': _floats(test.accuracy),
      'dead_units': np.asarray(test.dead).tolist()}


def _floats(values: Any) -> list[float | None]:
  return [_finite(value) for value in np.asarray(values, np.float64).tolist()]


def _finite(value: float) -> float | None:
  return value if math.isfinite(value) else None


def _summary(curves: list[dict[str, Any]], i: int) -> dict[str, Any]:
  """The record's share of the curves of a block, for its i-th seed."""
  own = {name: [None if point[name] is None else point[name][i]
                for point in curves] for name in curves[0]}
  healthy = all(value is not None
                for value in own['test_loss'] + own['train_loss'][1:])
  return {
      'status': 'ok' if healthy else 'diverged',
      'first_epoch_accuracy': own['test_accuracy'][1],
      'final_accuracy': own['test_accuracy'][-1], 'curves': own}


def _kernel_summary(kernel: np.ndarray) -> dict[str, Any]:
  stats = si.diagnostics.kernel_statistics(kernel)
  return {
      'near_zero': int(stats.near_zero.sum()), 'filters': kernel.shape[-1],
      'chordal_distance': _finite(float(stats.chordal_distance)),
      'coherence': _finite(float(stats.coherence)),
      'mean_norm': _finite(float(stats.norm.mean()))}


def _versions() -> dict[str, str]:
  import flax
  import jaxlib
  import optax
  return {
      'python': platform.python_version(), 'jax': jax.__version__,
      'jaxlib': jaxlib.__version__, 'flax': flax.__version__,
      'optax': optax.__version__, 'structinit_jax': si.__version__}
