"""The command, and every config that comes with it."""

import functools
import io
import pathlib
import re
import runpy

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from experiments import data
from experiments import initializers
from experiments import optimizers
from experiments import progress
from experiments import registry
from experiments import results
from experiments.configs import default
import experiments.models as _models  # registers the models

del _models

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / 'experiments' / 'configs'
CONFIGS = sorted(
    str(path.relative_to(FOLDER)) for path in FOLDER.rglob('*.py')
    if path.name != '__init__.py')


# ---- The configs.


def test_there_are_configs():
  names = ('table1', 'table2', 'table3', 'figure2', 'figure3', 'figure5',
           'figure6', 'figure7', 'figure8')
  assert {'default.py', 'demo.py',
          *(f'grassmann/{name}.py' for name in names)} <= set(CONFIGS)


@pytest.fixture(params=CONFIGS)
def loaded(request):
  """Returns a config file's path, docstring and config."""
  module = runpy.run_path(str(FOLDER / request.param))
  return request.param, module['__doc__'], module['get_config']()


def test_a_config_has_the_fields_of_the_default(loaded):
  _, _, config = loaded
  assert isinstance(config, ml_collections.ConfigDict)
  want = default.get_config()
  assert set(config) == set(want)
  for name, value in want.items():
    assert isinstance(config[name], type(value)), name


def test_a_config_says_how_to_run_it(loaded):
  path, text, _ = loaded
  assert text
  if path == 'default.py':  # what the others start from
    return
  command = re.sub(r'\\\n\s*', '', text)
  assert re.search(
      r'python -m experiments\.(main|intrinsic_dimension)\s+'
      r'--config=experiments/configs/'
      + re.escape(path) + r'\b.*--workdir=', command)


def test_a_config_names_known_things(loaded):
  _, _, config = loaded
  assert config.dataset in registry.DATASETS
  for dataset, label, value in config.paper:
    assert dataset in registry.DATASETS
    assert label in _labels(config)
    assert 0 < value < 100
  assert config.baseline in _labels(config)
  assert len(set(_labels(config))) == len(_labels(config))
  optimizers.make(config, 10)
  assert config.seeds >= 1
  assert config.epochs >= 1
  assert jnp.dtype(config.dtype).name == config.dtype


def _labels(config):
  return [registry.split_label(entry)[0] for entry in config.initializers]


def _shape(dataset):
  other = {'cinic10': (32, 32, 3), 'digits': (8, 8, 1),
           'digits_shuffled': (8, 8, 1), 'imagenet64': (64, 64, 3),
           'imagenette': (160, 160, 3)}
  return other.get(dataset) or data._RAW[dataset].shape


@functools.cache
def _shapes(expression, dataset, dtype):
  raw = data._RAW.get(dataset)
  model = registry.MODELS.build(
      expression, num_classes=raw.num_classes if raw else 10,
      dtype=jnp.dtype(dtype))
  return jax.eval_shape(
      model.init, jax.random.key(0),
      jnp.zeros((1, *_shape(dataset))))['params']


def test_a_config_builds_its_initializers(loaded):
  _, _, config = loaded
  for name in {config.dataset, *(row[0] for row in config.paper)}:
    shapes = _shapes(config.model, name, config.dtype)
    assert 'kernel' in shapes['stem']
    for entry in config.initializers:
      init_fn, labels = initializers.make(entry)[1].build(shapes)
      made = jax.eval_shape(
          lambda f=init_fn, s=shapes: f(jax.random.key(0), s))
      assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == jax.tree.map(
          lambda x: (x.shape, x.dtype), shapes)
      assert jax.tree.structure(labels) == jax.tree.structure(shapes)


@pytest.mark.parametrize('path', CONFIGS)
def test_orthogonal_is_a_baseline_of_every_packing(path):
  config = runpy.run_path(str(FOLDER / path))['get_config']()
  if path.startswith('grassmann/'):
    assert any("orthogonal(where='stem')" in e for e in config.initializers)


def _grassmann(name, *argument):
  path = FOLDER / 'grassmann' / f'{name}.py'
  return runpy.run_path(str(path))['get_config'](*argument)


def _computed(config):
  return {name: value for name, value in config.to_dict().items()
          if name not in results._FREE}


@pytest.mark.parametrize('figure, table', [
    ('figure2', 'table1'), ('figure3', 'table1'), ('figure7', 'table1'),
    ('figure6', 'table2'), ('figure5', 'table2')])
def test_a_figure_reads_the_runs_of_its_table(figure, table):
  ours, theirs = _grassmann(figure), _grassmann(table)
  assert _computed(ours) == _computed(theirs)
  assert ours.initializers == theirs.initializers
  assert ours.title != theirs.title


def test_figure_5_has_three_optimizers():
  configs = [_grassmann('figure5', name)
             for name in ('sgd', 'adadelta', 'adam')]
  assert [c.optimizer.partition('(')[0] for c in configs] == [
      'sgd', 'adadelta', 'adam']
  for config in configs:
    optimizers.make(config, 10)
    differ = {name for name, value in _computed(config).items()
              if value != _computed(configs[0])[name]}
    assert differ <= {'optimizer', 'learning_rate'}
  with pytest.raises(ValueError, match=r'figure5\.py:adma is unknown.*adam'):
    _grassmann('figure5', 'adma')


def test_the_learning_rate_of_table_1_falls_by_10_every_20_epochs():
  config = _grassmann('table1')
  schedule = registry.SCHEDULES.build(
      config.schedule, config.learning_rate, 80 * 7, 7)
  rates = [float(schedule(epoch * 7)) for epoch in range(0, 80, 20)]
  assert rates == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5], rel=1e-5)
  assert float(schedule(10 * 7)) == pytest.approx(1e-2 / 10**0.5, rel=1e-5)
  assert float(schedule(10 * 7 - 1)) == pytest.approx(1e-2, rel=1e-5)


# ---- The progress bar.


class Terminal(io.StringIO):
  """A standard error that somebody looks at."""

  def isatty(self):
    return True


@pytest.fixture(autouse=True)
def plain(monkeypatch):
  for name in ('FORCE_COLOR', 'TTY_COMPATIBLE', 'NO_COLOR', 'TERM'):
    monkeypatch.delenv(name, raising=False)


def test_the_bar_is_silent_without_a_terminal(capfd):
  with progress.bar('training', 4) as advance:
    advance(1)
    advance(3)
  assert capfd.readouterr() == ('', '')


def test_the_bar_shows_on_a_terminal(monkeypatch, capfd):
  terminal = Terminal()
  monkeypatch.setattr('sys.stderr', terminal)
  with progress.bar('training', 4) as advance:
    advance(1)
    advance(3)
  assert 'training' in terminal.getvalue()
  assert '4/4' in terminal.getvalue()
  assert capfd.readouterr().out == ''


# ---- The command.


def _demo(workdir, *changes):
  return ('experiments.main', '--config=experiments/configs/demo.py',
          f'--workdir={workdir}', *(f'--config.{c}' for c in changes))


@pytest.fixture(scope='module')
def demo(run, tmp_path_factory):
  """The demo, made small."""
  folder = tmp_path_factory.mktemp('demo') / 'new' / 'run'
  command = _demo(
      folder, 'epochs=1', 'seeds=2', 'model=mlp(widths=(8,))',
      'batch_size=64',  # as in other tests, which have compiled it
      "initializers=('he_normal', 'second = glorot_normal')")
  return folder, command, run(*command)


def test_the_demo_runs_end_to_end(demo):
  folder, _, (code, output, errors) = demo
  assert code == 0, errors
  assert 'Initializers on handwritten digits' in output
  for line in (folder / 'table.md').read_text().splitlines()[2:]:
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    assert any(all(cell in shown for cell in cells)
               for shown in output.splitlines())
  assert 'he_normal (baseline)' in output
  assert 'second' in output
  assert str(folder / 'report.html') in output.replace('\n', '')
  records = results.read_records(folder)
  assert {(r['initializer'], r['seed']) for r in records} == {
      (label, seed) for label in ('he_normal', 'second') for seed in range(2)}
  assert all(r['config']['epochs'] == 1 for r in records)


def test_the_command_is_quiet_without_a_terminal(demo):
  assert demo[2][2] == ''


def test_a_rerun_only_prints(demo, run):
  folder, command, (_, output, _) = demo
  before = (folder / 'results.jsonl').read_bytes()
  (folder / 'report.html').unlink()
  assert run(*command) == (0, output, '')
  assert (folder / 'results.jsonl').read_bytes() == before
  assert (folder / 'report.html').is_file()


def test_mistakes_are_one_line(run, tmp_path):
  code, output, errors = run(*_demo(tmp_path / 'x', 'dataset=digitz'))
  assert code == 1
  assert output == ''
  assert errors.startswith("error: unknown data set 'digitz'")
  assert 'Traceback' not in errors
  assert not (tmp_path / 'x').exists()
