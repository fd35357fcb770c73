"""The search for the intrinsic dimension finds it, and resumes."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from experiments import figures
from experiments import intrinsic_dimension
from experiments.configs.subspace import dimension


def test_the_grid_is_logarithmic():
  dims = intrinsic_dimension.grid(10, 1000, 12)
  assert (dims[0], dims[-1], len(dims)) == (10, 1000, 25)
  steps = np.diff(np.log(dims))
  assert abs(steps - math.log(10) / 12).max() < 0.05
  assert intrinsic_dimension.grid(1, 3, 24) == [1, 2, 3]  # no double
  for wrong in ((0, 10), (10, 10), (10, 3)):
    with pytest.raises(ValueError, match=f'range {wrong[0]},{wrong[1]}: '):
      intrinsic_dimension.grid(*wrong, 24)


def test_bisection_is_exact_and_short():
  dims = intrinsic_dimension.grid(10, 10_000, 24)
  for least in (1, 10, 11, 300, 9999, 10_000):
    calls = []

    def reaches(dim, least=least, calls=calls):
      calls.append(dim)
      return dim >= least

    assert intrinsic_dimension.bisect(reaches, dims) == min(
        d for d in dims if d >= least)
    assert len(calls) == len(set(calls)) <= 8
  assert intrinsic_dimension.bisect(lambda dim: False, dims) is None


def test_crossings_are_linear_in_log_d():
  points = {10: 20.0, 100: 60.0, 1000: 100.0}
  assert intrinsic_dimension.crossing(points, 80.0) == pytest.approx(
      math.sqrt(100 * 1000))
  assert intrinsic_dimension.crossing(points, 60.0) == pytest.approx(100)
  assert intrinsic_dimension.crossing(points, 101.0) is None
  assert intrinsic_dimension.crossing(points, 20.0) is None
  # Of a curve that is not monotone, the last crossing.
  assert intrinsic_dimension.crossing(
      {10: 5.0, 20: 90.0, 40: 70.0, 80: 90.0}, 80.0) == pytest.approx(
          math.sqrt(40 * 80))


def test_configs_name_a_data_set_a_model_and_maybe_an_optimizer():
  assert dimension.get_config('cifar10,lenet') == (
      dimension.get_config('cifar10,lenet,sgd'))
  assert dimension.get_config('mnist,fc,adam').epochs == 100
  for wrong in ('mnist', 'mnist,net', 'fc,mnist', 'mnist,fc,x', 'mnist,fc,,'):
    with pytest.raises(ValueError, match='use DATASET,MODEL or DATASET,MODEL,'):
      dimension.get_config(wrong)


@pytest.fixture(scope='module')
def searched(tmp_path_factory):
  folder = tmp_path_factory.mktemp('search')
  command = [
      sys.executable, '-m', 'experiments.intrinsic_dimension',
      f'--config={dimension.__file__}:digits,fc', f'--workdir={folder}',
      '--range=30,3000', '--per_decade=1', '--config.epochs=2',
      '--config.seeds=2', '--config.optimizer=sgd',
      '--options=column_norm=2.0']
  out = subprocess.run(command, capture_output=True, text=True, check=True)
  return folder, out.stdout


def test_a_second_search_trains_nothing(searched):
  folder, _ = searched
  before = (folder / 'results.jsonl').read_text()
  config = dimension.get_config('digits,fc')
  config.update({'epochs': 2, 'seeds': 2, 'optimizer': 'sgd'})
  found = intrinsic_dimension.find(
      config, folder, intrinsic_dimension.grid(30, 3000, 1), 0.9,
      'column_norm=2.0')
  assert found == json.loads((folder / 'dimension.json').read_text())
  assert (folder / 'results.jsonl').read_text() == before


def test_the_command_searches(searched):
  folder, first = searched
  results = (folder / 'results.jsonl').read_text()
  found = json.loads((folder / 'dimension.json').read_text())
  records = [json.loads(line) for line in results.splitlines()]
  accuracy = {}
  for record in records:
    accuracy.setdefault(record['initializer'], []).append(
        100 * record['final_accuracy'])
  assert found['baseline'] == pytest.approx(np.mean(accuracy['direct']))
  assert found['threshold'] == pytest.approx(0.9 * found['baseline'])
  tried = {row['d']: row['accuracy %'] for row in found['tried']}
  for d, value in tried.items():
    assert value == pytest.approx(np.mean(accuracy[f'{d} dimensions']))
  assert tried[found['dimension']] >= found['threshold']
  assert all(value < found['threshold'] for d, value in tried.items()
             if d < found['dimension'])
  assert f'{found["dimension"]} dimensions reach' in first
  assert (folder / 'dimension.png').read_bytes().startswith(b'\x89PNG')
  assert len((folder / 'dimension.md').read_text().splitlines()) == (
      2 + len(tried))


@pytest.mark.parametrize('low, crossed', [(70., 3), (97., 2)])
def test_an_interval_is_of_all_seeds(monkeypatch, tmp_path, low, crossed):
  """A seed that reaches the share wherever it is tried has no crossing."""
  accuracy = {100: (low, 60., 62.), 200: (98., 83., 82.), 400: (98., 88., 89.)}

  def compare(config, workdir):
    del workdir
    entry = config.initializers[-1]
    found = (accuracy[int(entry.split()[0])] if 'dimensions' in entry
             else (100., 90., 90.))
    return [{'initializer': entry.split(' =')[0], 'seed': seed,
             'final_accuracy': value / 100} for seed, value in enumerate(found)]

  monkeypatch.setattr(intrinsic_dimension.sweep, 'compare', compare)
  found = intrinsic_dimension.find(
      dimension.get_config('digits,fc'), tmp_path, [100, 200, 400], 0.9)
  assert sum(d is not None for d in found['crossings']) == crossed
  known = crossed == 3
  assert (found['crossing'] is not None) == known
  assert (found['interval'] != [None, None]) == known


@pytest.mark.parametrize('text', ['10', '10,20,30', '10,x', '10,'])
def test_ranges_that_are_refused(text):
  with pytest.raises(ValueError, match=f'--range={text} must be two dimens'):
    intrinsic_dimension.ends(text.split(','))


def test_a_search_without_result_is_drawn():
  rows = [{'d': 10, 'accuracy %': 50.0, '± %': math.nan}]
  assert figures.dimension_plot({
      'tried': rows, 'baseline': 90.0, 'threshold': 81.0, 'share': 0.9,
      'interval': [None, None], 'dimension': None}).startswith(b'\x89PNG')


def test_an_unknown_config_is_refused():
  with pytest.raises(ValueError, match="'mnist,vgg' is unknown; use DATASET"):
    dimension.get_config('mnist,vgg')
