"""The command, and every config that comes with it."""

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
  assert {'default.py', 'demo.py', 'grassmann/table2.py'} <= set(CONFIGS)


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
      r'python -m experiments\.main\s+--config=experiments/configs/'
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
  return (8, 8, 1) if dataset == 'digits' else data._RAW[dataset].shape


def test_a_config_builds_its_initializers(loaded):
  _, _, config = loaded
  for name in {config.dataset, *(row[0] for row in config.paper)}:
    classes = 10 if name == 'digits' else data._RAW[name].num_classes
    model = registry.MODELS.build(
        config.model, num_classes=classes, dtype=jnp.dtype(config.dtype))
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, *_shape(name))))['params']
    assert 'kernel' in shapes['stem']
    for entry in config.initializers:
      init_fn, labels = initializers.make(entry)[1].build(shapes)
      made = jax.eval_shape(
          lambda f=init_fn, s=shapes: f(jax.random.key(0), s))
      assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == jax.tree.map(
          lambda x: (x.shape, x.dtype), shapes)
      assert jax.tree.structure(labels) == jax.tree.structure(shapes)


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
