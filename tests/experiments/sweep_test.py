"""Every (initializer, seed) once, whatever happens in between."""

import collections
import contextlib
import dataclasses
import functools
import json
import math
import shutil
import time

import jax
import numpy as np
import pytest

from experiments import checkpoint
from experiments import models
from experiments import registry
from experiments import report
from experiments import results
from experiments import sweep
from experiments import train

# What two runs of the same thing may differ in.
_OWN = ('seconds', 'compile_seconds', 'finished', 'config')


def _plain(record):
  return {name: value for name, value in record.items() if name not in _OWN}


def _by_run(records):
  keyed = {(r['initializer'], r['seed']): _plain(r) for r in records}
  assert len(keyed) == len(records)
  return keyed


def _check_same(folder, want):
  """Checks that two directories hold the same results, bit for bit."""
  ours, theirs = (results.read_records(f) for f in (folder, want))
  assert _by_run(ours) == _by_run(theirs)
  for record in ours:
    name = results.kernel_file(record['initializer'], record['seed'])
    with np.load(folder / name) as a, np.load(want / name) as b:
      for when in ('before', 'after'):
        np.testing.assert_array_equal(a[when], b[when])
    jax.tree.map(
        np.testing.assert_array_equal,
        *(checkpoint.load_params(f / record['params'])
          for f in (folder, want)))


def _lines(folder):
  return (folder / 'results.jsonl').read_text().splitlines()


@pytest.fixture
def epochs(monkeypatch):
  """Lists the epochs that were trained: (seeds, epoch)."""
  calls = []
  original = train.Trainer.train_epoch

  def spy(self, program, state, epoch):
    calls.append((len(state.params['stem']['kernel']), epoch))
    return original(self, program, state, epoch)

  monkeypatch.setattr(train.Trainer, 'train_epoch', spy)
  return calls


@pytest.fixture(scope='module')
def finished(make_config, tmp_path_factory):
  """Two initializers, two seeds, two epochs."""
  folder = tmp_path_factory.mktemp('finished')
  records = sweep.compare(make_config(epochs=2), folder)
  return folder, records


@pytest.fixture
def copy(finished, tmp_path):
  shutil.copytree(finished[0], tmp_path / 'copy')
  return tmp_path / 'copy'


def test_every_run_is_recorded(finished):
  folder, records = finished
  assert [(r['initializer'], r['seed']) for r in records] == [
      ('he_normal', 0), ('he_normal', 1), ('glorot_normal', 0),
      ('glorot_normal', 1)]
  assert records == [json.loads(line) for line in _lines(folder)]


def test_records_are_complete(finished, make_config):
  config = json.loads(json.dumps(make_config(epochs=2).to_dict()))
  for record in finished[1]:
    assert record['expression'] == record['initializer']
    assert record['status'] == 'ok'
    assert record['config'] == config
    assert set(record['versions']) == {
        'python', 'jax', 'jaxlib', 'flax', 'optax', 'structinit_jax'}
    assert record['versions']['jax'] == jax.__version__
    assert 'threefry' in record['prng_impl']
    assert record['data_source'] == 'scikit-learn'
    assert record['image_shape'] == [8, 8, 1]
    assert record['num_units'] == 8
    assert len(record['devices']) == len(jax.local_devices())
    assert 0 < record['seconds'] < 600
    assert 0 < record['compile_seconds'] < 600
    assert record['finished'].endswith('+00:00')
    for when in ('initial', 'final'):
      assert set(record['kernels'][when]) == {
          'near_zero', 'filters', 'chordal_distance', 'coherence',
          'mean_norm'}
      assert record['kernels'][when]['filters'] == 8
    curves = record['curves']
    assert set(curves) == {'train_loss', 'train_accuracy', 'test_loss',
                           'test_accuracy', 'dead_units'}
    assert all(len(curve) == 3 for curve in curves.values())
    assert curves['train_loss'][0] is curves['train_accuracy'][0] is None
    assert record['first_epoch_accuracy'] == curves['test_accuracy'][1]
    assert record['final_accuracy'] == curves['test_accuracy'][2]


def test_curves_are_what_the_trainer_says(finished, make_config, digits):
  trainer = train.Trainer(make_config(epochs=2), digits)
  recipe = sweep.initializers.make('glorot_normal')[1]
  state = trainer.init(recipe, [0, 1])
  first = trainer.evaluate(state)
  kernels = [np.asarray(state.params['stem']['kernel'])]
  program, _ = trainer.compile_epoch(recipe, state)
  state, (loss, accuracy) = trainer.train_epoch(program, state, 0)
  second = trainer.evaluate(state)
  state, _ = trainer.train_epoch(program, state, 1)
  kernels.append(np.asarray(state.params['stem']['kernel']))
  for record in finished[1][2:]:
    curves, i = record['curves'], record['seed']
    assert curves['test_loss'][:2] == [
        float(first.loss[i]), float(second.loss[i])]
    assert curves['test_accuracy'][:2] == [
        float(first.accuracy[i]), float(second.accuracy[i])]
    assert curves['dead_units'][:2] == [
        int(first.dead[i]), int(second.dead[i])]
    assert curves['train_loss'][1] == float(loss[i])
    assert curves['train_accuracy'][1] == float(accuracy[i])
    path = finished[0] / results.kernel_file('glorot_normal', i)
    with np.load(path) as file:
      np.testing.assert_array_equal(file['before'], kernels[0][i])
      np.testing.assert_array_equal(file['after'], kernels[1][i])


def test_a_rerun_trains_nothing(copy, finished, make_config, epochs):
  before = (copy / 'results.jsonl').read_bytes()
  assert sweep.compare(make_config(epochs=2), copy) == finished[1]
  assert not epochs
  assert (copy / 'results.jsonl').read_bytes() == before


def test_a_finished_run_leaves_no_checkpoint(finished):
  assert not list((finished[0] / 'checkpoints').glob('*'))


def test_more_seeds_add_what_is_missing(copy, finished, make_config, epochs):
  records = sweep.compare(make_config(epochs=2, seeds=3), copy)
  assert collections.Counter(epochs) == {(1, 0): 2, (1, 1): 2}
  assert _lines(copy)[:4] == _lines(finished[0])
  assert len(_lines(copy)) == len(records) == 6
  assert {(r['initializer'], r['seed']) for r in records[4:]} == {
      ('he_normal', 2), ('glorot_normal', 2)}


def test_seeds_added_later_are_the_same_seeds(copy, make_config, tmp_path):
  config = make_config(epochs=2, seeds=3, initializers=('he_normal',))
  together = sweep.compare(config, tmp_path / 'together')
  later = sweep.compare(config, copy)
  assert _by_run(together) == _by_run(later)


def test_fewer_seeds_return_those(copy, finished, make_config, epochs):
  records = sweep.compare(make_config(epochs=2, seeds=1), copy)
  assert not epochs
  assert records == [r for r in finished[1] if r['seed'] == 0]
  assert len(_lines(copy)) == 4


def test_more_initializers_add_what_is_missing(
    copy, finished, make_config, epochs):
  records = sweep.compare(make_config(
      epochs=2, initializers=('lecun_normal', 'he_normal', 'glorot_normal')),
      copy)
  assert epochs == [(2, 0), (2, 1)]
  assert _lines(copy)[:4] == _lines(finished[0])
  assert [r['initializer'] for r in records[4:]] == ['lecun_normal'] * 2


def test_fewer_initializers_return_those(copy, make_config, epochs):
  records = sweep.compare(
      make_config(epochs=2, initializers=('he_normal',)), copy)
  assert not epochs
  assert {r['initializer'] for r in records} == {'he_normal'}


def test_another_baseline_is_another_baseline(copy, make_config, capsys):
  config = make_config(epochs=2, baseline='glorot_normal', title='Other')
  sweep.compare(config, copy)
  report.write([copy])
  printed = capsys.readouterr().out
  assert 'glorot_normal (baseline)' in printed
  assert 'he_normal (baseline)' not in printed
  assert 'Other' in printed


@pytest.mark.parametrize('fields, message', [
    ({'learning_rate': 0.5}, 'learning_rate is 0.01 there, 0.5 here'),
    ({'epochs': 3}, 'epochs is 2 there, 3 here'),
    ({'dtype': 'bfloat16'}, "dtype is 'float32' there, 'bfloat16' here"),
    ({'model': 'mlp(widths=(9,))'}, 'model is '),
])
def test_another_config_is_refused(
    copy, make_config, epochs, fields, message):
  before = {p: p.read_bytes() for p in copy.glob('*.json*')}
  with pytest.raises(ValueError, match='another config') as caught:
    sweep.compare(make_config(**{'epochs': 2, **fields}), copy)
  assert message in str(caught.value)
  assert not epochs
  assert before == {p: p.read_bytes() for p in copy.glob('*.json*')}


def test_a_label_that_means_something_else_is_refused(
    copy, make_config, epochs):
  config = make_config(epochs=2, initializers=(
      'lecun_normal', 'he_normal = orthogonal'))
  with pytest.raises(ValueError, match='Choose another label') as caught:
    sweep.compare(config, copy)
  for part in ("'he_normal'", "'orthogonal'", str(copy)):
    assert part in str(caught.value)
  assert not epochs
  assert len(_lines(copy)) == 4


@pytest.mark.parametrize('fields, message', [
    ({'initializers': ('he_normal', 'he_normal = orthogonal')}, 'same label'),
    ({'initializers': ('glorot_normal',)}, "baseline 'he_normal' is not"),
    ({'initializers': ()}, "baseline 'he_normal' is not"),
    ({'initializers': ('he_normal', 'he_norml')}, "did you mean 'he_normal"),
    ({'seeds': 0}, 'at least 1'), ({'epochs': 0}, 'at least 1'),
    ({'learning_rate': float('nan')}, 'learning_rate=nan must be finite'),
    ({'weight_decay': -1.0}, 'weight_decay=-1.0 must be finite'),
    ({'seeds_at_once': -1}, 'seeds_at_once=-1 must be finite'),
    ({'schedule': 'step(every=0)'}, 'every=0 must be at least 1'),
    ({'model': 'mlp(widths=())'}, 'no leaf stem/kernel'),
    ({'model': 'mpl'}, "did you mean 'mlp'"),
    ({'dataset': 'digit'}, "did you mean 'digits'"),
    ({'batch_size': 12}, 'nearest that does: 8 and 16'),
    ({'optimizer': 'sgdd'}, "did you mean 'sgd'"),
    ({'schedule': 'stp'}, "did you mean 'step'"),
    ({'dtype': 'float33'}, 'float33'),
])
def test_senseless_configs_are_refused_before_training(
    make_config, tmp_path, epochs, fields, message):
  with pytest.raises(ValueError, match=message):
    sweep.compare(make_config(**fields), tmp_path / 'run')
  assert not epochs
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('expression', [
    'grassmann', 'tight_frame', 'packed = grassmann(freeze=True)'])
def test_an_initializer_that_cannot_serve_is_refused(
    make_config, tmp_path, epochs, expression):
  config = make_config(initializers=('he_normal', expression))
  with pytest.raises(ValueError, match='stem/kernel') as caught:
    sweep.compare(config, tmp_path / 'run')
  label = expression.partition(' = ')[0]
  assert f'initializer {label!r}' in str(caught.value)
  assert '(64, 8)' in str(caught.value)
  assert not epochs
  assert not (tmp_path / 'run').exists()


def test_a_directory_in_use_is_refused(make_config, tmp_path, epochs):
  held = results.RunDirectory(tmp_path, make_config().to_dict())
  with pytest.raises(ValueError, match='another process is writing'):
    sweep.compare(make_config(), tmp_path)
  held.close()
  assert not epochs


def test_diverged_runs_are_recorded_and_the_others_go_on(
    make_config, tmp_path, capsys):
  config = make_config(
      initializers=('wild = normal(stddev=1e30)', 'he_normal'))
  records = sweep.compare(config, tmp_path)
  assert [(r['initializer'], r['status']) for r in records] == [
      ('wild', 'diverged')] * 2 + [('he_normal', 'ok')] * 2
  for line in _lines(tmp_path):
    json.loads(line, parse_constant=pytest.fail)
  assert records[0]['curves']['test_loss'][-1] is None
  assert math.isfinite(records[2]['curves']['test_loss'][-1])
  report.write([tmp_path])
  assert '2 (2 diverged)' in capsys.readouterr().out


def test_a_learning_rate_that_explodes(make_config, tmp_path, capsys):
  config = make_config(
      learning_rate=1e30, optimizer='sgd(momentum=0.0)')
  records = sweep.compare(config, tmp_path)
  assert [r['status'] for r in records] == ['diverged'] * 4
  for line in _lines(tmp_path):
    json.loads(line, parse_constant=pytest.fail)
  report.write([tmp_path])
  assert capsys.readouterr().out.count('2 (2 diverged)') == 2
  assert sweep.compare(config, tmp_path) == records  # not tried again


def test_one_diverged_seed_leaves_the_others(
    make_config, tmp_path, monkeypatch):
  original = train.Trainer.init

  def spoil(self, recipe, seeds):
    state = original(self, recipe, seeds)
    bias = state.params['head']['bias'].at[1].set(float('nan'))
    head = {**state.params['head'], 'bias': bias}
    return state._replace(params={**state.params, 'head': head})

  monkeypatch.setattr(train.Trainer, 'init', spoil)
  records = sweep.compare(make_config(initializers=('he_normal',)), tmp_path)
  assert [r['status'] for r in records] == ['ok', 'diverged']


# ---- Interruptions inside the process.


class Crash(BaseException):
  """What a crash looks like from inside."""


CRASHES = {
    'in the second epoch': (train.Trainer, 'train_epoch', 2, False),
    'in the last epoch': (train.Trainer, 'train_epoch', 6, False),
    'after a checkpoint': (checkpoint.RunCheckpoint, 'save', 1, True),
    'before the parameters': (checkpoint, 'save_params', 1, False),
    'after the parameters': (checkpoint, 'save_params', 1, True),
    'after a kernel': (results.RunDirectory, 'write_kernels', 1, True),
    'before the records': (results.RunDirectory, 'append', 1, False),
    'after the records': (results.RunDirectory, 'append', 1, True),
    'between the blocks': (checkpoint.RunCheckpoint, 'delete', 1, True),
}


@pytest.fixture(scope='module')
def blocks(make_config):
  """Two blocks, of two seeds and of one, saved after every epoch."""
  return make_config(
      seeds=3, epochs=3, initializers=('he_normal',), checkpoint_seconds=0.0)


@pytest.fixture(scope='module')
def uninterrupted(blocks, tmp_path_factory):
  folder = tmp_path_factory.mktemp('uninterrupted')
  sweep.compare(blocks, folder)
  return folder


def _crash(monkeypatch, config, folder, place, name, call, after):
  """Runs until a function is called for the n-th time."""
  original = getattr(place, name)
  calls = []

  def wrapped(*args, **kwargs):
    calls.append(name)
    if len(calls) == call and not after:
      raise Crash
    out = original(*args, **kwargs)
    if len(calls) == call:
      raise Crash
    return out

  with monkeypatch.context() as patch:
    patch.setattr(place, name, wrapped)
    try:
      sweep.compare(config, folder)
    except Crash:
      return
  pytest.fail('did not crash')


@pytest.mark.parametrize('moment', CRASHES)
def test_a_crash_changes_nothing(
    moment, blocks, uninterrupted, tmp_path, monkeypatch):
  _crash(monkeypatch, blocks, tmp_path / 'run', *CRASHES[moment])
  sweep.compare(blocks, tmp_path / 'run')
  _check_same(tmp_path / 'run', uninterrupted)


def test_a_resumed_run_does_not_start_again(
    blocks, tmp_path, monkeypatch, epochs):
  _crash(monkeypatch, blocks, tmp_path, train.Trainer, 'train_epoch', 3,
         False)
  assert epochs == [(2, 0), (2, 1)]
  epochs.clear()
  sweep.compare(blocks, tmp_path)
  assert epochs == [(2, 2), (1, 0), (1, 1), (1, 2)]


def test_checkpoints_are_not_left_behind(blocks, tmp_path, monkeypatch):
  _crash(monkeypatch, blocks, tmp_path, checkpoint.RunCheckpoint, 'delete', 1,
         False)
  sweep.compare(blocks, tmp_path)
  assert not [p for p in (tmp_path / 'checkpoints').rglob('*') if p.is_file()]


def test_a_checkpoint_of_another_initializer_is_not_used(
    make_config, tmp_path, monkeypatch):
  def config(expression):
    return make_config(
        epochs=2, initializers=(f'x = {expression}',), baseline='x',
        checkpoint_seconds=0.0)

  _crash(monkeypatch, config('he_normal'), tmp_path / 'run', train.Trainer,
         'train_epoch', 2, False)
  want = sweep.compare(config('glorot_normal'), tmp_path / 'fresh')
  with contextlib.suppress(ValueError):  # to refuse would do as well
    got = sweep.compare(config('glorot_normal'), tmp_path / 'run')
    assert _by_run(got) == _by_run(want)


# ---- A residual network: statistics beside the parameters, moved images.


@pytest.fixture
def residual(make_config, digits):
  """Two epochs of a ResNet of one block on 64 digits, on one device."""
  few = dataclasses.replace(
      digits, train_images=digits.train_images[:64],
      train_labels=digits.train_labels[:64],
      test_images=digits.test_images[:32], test_labels=digits.test_labels[:32])
  config = make_config(
      dataset='few', model='small_resnet', augment='crop_flip',
      batch_size=16, epochs=2, initializers=('he_uniform',),
      baseline='he_uniform', checkpoint_seconds=0.0)
  only = jax.local_devices()[:1]
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(registry.DATASETS, 'few', lambda **options: few)
    patch.setitem(registry.MODELS, 'small_resnet', functools.partial(
        models.ResNet, blocks=(1,), width=4, for_imagenet=False))
    patch.setattr(jax, 'local_devices', lambda *args, **kwargs: only)
    yield config


def _statistics(folder):
  records = results.read_records(folder)
  name = records[0]['params'].replace('params', 'model_state', 1)
  return checkpoint.load_params(folder / name)['batch_stats']


def test_a_residual_network_trains_and_resumes(
    residual, tmp_path, monkeypatch):
  records = sweep.compare(residual, tmp_path / 'want')
  assert [r['status'] for r in records] == ['ok', 'ok']
  for record in records:
    assert record['num_units'] == 4 + 2 * 4
    assert all(map(math.isfinite, record['curves']['test_accuracy']))
    assert record['curves']['test_loss'][0] != record['curves']['test_loss'][2]
  for name, own in _statistics(tmp_path / 'want')['blocks_0'].items():
    assert (own['mean'] != 0).all(), name
    assert (own['var'] != 1).all(), name
    assert (own['mean'][0] != own['mean'][1]).all(), name
  _crash(monkeypatch, residual, tmp_path / 'run', train.Trainer,
         'train_epoch', 2, False)
  assert sweep.compare(residual, tmp_path / 'run')
  _check_same(tmp_path / 'run', tmp_path / 'want')
  jax.tree.map(np.testing.assert_array_equal, *(
      _statistics(tmp_path / name) for name in ('run', 'want')))


def test_a_model_without_statistics_keeps_none(finished):
  assert not (finished[0] / 'model_state').exists()


# ---- Interruptions from outside.

CONFIG = """
from experiments.configs import default

def get_config():
  config = default.get_config()
  config.model = 'mlp(widths=(8,))'
  config.epochs = 5
  config.seeds = 3
  config.seeds_at_once = 2
  config.initializers = ('he_normal', 'x = glorot_normal')
  config.checkpoint_seconds = 0.0
  return config
"""


def _kill_when(process, condition):
  """Kills a process, with SIGKILL, as soon as a condition holds."""
  while not condition():
    assert process.poll() is None, process.communicate()
    time.sleep(0.001)
  process.kill()
  process.communicate()


def test_sigkill_changes_nothing(start, tmp_path):
  (tmp_path / 'config.py').write_text(CONFIG)
  folder, want = tmp_path / 'run', tmp_path / 'want'

  def launch(workdir):
    return start('experiments.main', f'--config={tmp_path / "config.py"}',
                 f'--workdir={workdir}')

  whole = launch(want)
  for pattern in ('checkpoints/*/*', 'params/*'):
    _kill_when(launch(folder), lambda p=pattern: list(folder.glob(p)))
  path = folder / 'results.jsonl'
  _kill_when(launch(folder), lambda: path.stat().st_size)
  lines = path.read_text().splitlines(keepends=True)
  assert 0 < len(lines) < 6
  with open(path, 'a') as file:
    file.write(lines[0][:len(lines[0]) // 2])  # as if it had been torn
  for process in (launch(folder), whole):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
  assert path.read_text().startswith(''.join(lines))
  _check_same(folder, want)
  records = _by_run(results.read_records(folder))
  assert set(records) == {(label, seed) for label in ('he_normal', 'x')
                          for seed in range(3)}
  for record in records.values():
    assert all(len(curve) == 6 for curve in record['curves'].values())
  assert (folder / 'table.md').is_file()
  assert (folder / 'report.html').is_file()
