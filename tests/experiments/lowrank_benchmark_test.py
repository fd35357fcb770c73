"""The benchmark of low-rank solvers measures what it says."""

import json
import math

import jax
import numpy as np
import pytest

from experiments.benchmarks import common
from experiments.benchmarks import lowrank
import structinit_jax as si
from structinit_jax.lowrank import factors

SMALL = (12, 20, 3)


@pytest.fixture(autouse=True)
def short(monkeypatch):
  monkeypatch.setattr(lowrank, '_ROUNDS', 1)
  monkeypatch.setattr(lowrank, '_TREE_ROUNDS', 1)
  monkeypatch.setattr(lowrank, '_RATES', (1e-2,))
  monkeypatch.setattr(lowrank, '_BATCH', 32)
  monkeypatch.setattr(lowrank, '_FIRST_BUDGET', 2)
  monkeypatch.setattr(lowrank, '_SIZES', (SMALL,))
  monkeypatch.setattr(lowrank, '_LAYERS', ((2, *SMALL),))
  monkeypatch.setattr(
      lowrank, '_LAYER_OPTIONS', {'method': 'adam', 'steps': 2, 'batch': 8})
  monkeypatch.setattr(lowrank, '_resnet50', lambda: {
      'stem': (3, 3, 4, 8), 'conv': (1, 1, 8, 10)})


def adam(*_):
  return {'share': 0.99, 'method': 'adam_warm', 'learning_rate': 0.1,
          'steps': 2, 'spent': 1e6, 'milliseconds': 1e6}


def run(monkeypatch, *arguments):
  monkeypatch.setattr('sys.argv', ['lowrank', *map(str, arguments)])
  lowrank.main()


def test_resnet50_has_its_convolutions(monkeypatch):
  monkeypatch.undo()
  kernels = lowrank._resnet50()
  # 25,557,032 parameters, less those of the classifier and of batch norm.
  weights = sum(math.prod(kernel) for kernel in kernels.values())
  norms = 2 * sum(kernel[-1] for kernel in kernels.values())
  assert len(kernels) == 53
  assert weights + norms + 2048 * 1000 + 1000 == 25_557_032
  shapes = lowrank._shapes(kernels)
  assert {name: form.kernel for name, form in si.lowrank.pairs(shapes).items()
          } == kernels
  assert shapes['stage4_block1_conv2']['u'].shape == (1, 3, 512, 154)


def test_the_solver_closes_the_gap():
  row = lowrank._solver(*SMALL, 2)
  objective, shares = row['objective'], row['shares']
  assert objective['optimum'] < objective['rescaled'] < objective['svd']
  assert shares[0] == pytest.approx(
      (objective['svd'] - objective['rescaled'])
      / (objective['svd'] - objective['optimum']))
  assert np.all(np.diff(shares) > 0)
  assert shares[-1] >= 0.999 > shares[-2]
  for run, share in zip(row['exact'], (0.99, 0.999), strict=True):
    assert shares[run['steps']] >= share == run['share']
    assert run['steps'] == 0 or shares[run['steps'] - 1] < share
    assert run['milliseconds'] > 0
  # Two steps of Adam close no gap.
  assert row['adam']['share'] < 0.99
  assert row['adam']['steps'] == 2
  assert row['adam']['spent'] > 0
  assert row['adam']['milliseconds'] is None
  assert row['ratio'] is None


@pytest.mark.parametrize('shares, tried, method, steps', [
    ({}, {4, 8, 16, 28}, None, 28),
    ({('adam', 1e-2, 8): 0.99}, {4, 8, 6, 7}, 'adam', 8),
    ({('adam', 1e-3, 16): 0.995, ('adam', 1e-2, 12): 1.0}, {4, 8, 16, 12, 10},
     'adam', 12),
    ({('adam_warm', 1e-2, 4): 1.0}, {4, 2, 3}, 'adam_warm', 4)])
def test_adam_is_given_the_fewest_steps(
    monkeypatch, shares, tried, method, steps):
  monkeypatch.setattr(lowrank, '_RATES', (1e-3, 1e-2))
  monkeypatch.setattr(lowrank, '_FIRST_BUDGET', 4)
  made = []

  def step(w, rank, *case):
    del w, rank
    made.append(case)
    share = np.full((1, 1), shares.get(case, case[-1] / 100))
    return lambda: (share[None], np.zeros((1, 1, 1, 1)))

  monkeypatch.setattr(lowrank, '_adam_step', step)
  found = lowrank._adam(
      jax.numpy.ones((6, 8)), 2, lambda u, v: float(u[0, 0]), 28)
  assert {steps for _, _, steps in made} == tried
  assert found['steps'] == steps
  assert found['share'] == max(
      shares.get(case, case[-1] / 100) for case in made if case[-1] == steps)
  assert (found['method'] == method) == (method is not None)
  assert found['milliseconds'] == (found['spent'] if method else None)


def test_the_ratio_and_the_gap_are_those_of_the_svd(monkeypatch):
  monkeypatch.setattr(lowrank, '_adam', adam)
  row = lowrank._solver(*SMALL, 2)
  exact, svd = row['exact'][0]['milliseconds'], row['svd_milliseconds']
  start = row['start_milliseconds']
  assert row['ratio'] == pytest.approx({
      'after_start': (1e6 - svd) / exact,
      'with_start': (1e6 - svd + start) / (exact + start),
      'with_svd': 1e6 / (exact + svd)})
  w = factors.lecun_normal(jax.random.key(0), SMALL[:2])
  assert row['objective']['svd'] - row['objective']['rescaled'] == (
      pytest.approx(float(si.lowrank.svd_gap(w, SMALL[2])), rel=1e-4))


def test_rows_are_written_as_they_come(monkeypatch, tmp_path, capsys):
  out = tmp_path / 'new' / 'lowrank.json'
  counts = []

  def write(out, rows, **facts):
    common_write(out, rows, **facts)
    counts.append(len(json.loads(out.read_text())['rows']))

  common_write = common.write
  monkeypatch.setattr(common, 'write', write)
  run(monkeypatch, '--adam-steps', 2, '--out', out)
  assert counts == [1, 2, 3]
  written = json.loads(out.read_text())
  assert written['jax'] == jax.__version__
  assert len(written['load']) == 2
  solver, tree, layers = written['rows']
  assert (solver['kind'], tree['kind'], layers['kind']) == lowrank._KINDS
  assert (solver['d'], solver['n'], solver['rank']) == SMALL
  assert tree['kernels'] == layers['layers'] == 2
  for row, names in ((tree, {'spectral', 'exact'}),
                     (layers, {'together', 'one by one', 'step by step'})):
    assert set(row['seconds']) == set(row['first_seconds']) == names
    one, *others = row['seconds']
    assert row['ratio'] == pytest.approx({
        name: row['seconds'][name] / row['seconds'][one] for name in others})
    assert min(row['seconds'].values()) > 0
  printed = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in printed] == list(lowrank._KINDS)


@pytest.mark.optimized
def test_the_loop_of_steps_is_the_algorithm():
  """In the mean it ends where the library's does, from other starts."""
  d, n, rank, steps, batch = 8, 12, 2, 1000, 256
  options = {'steps': steps, 'batch': batch}
  keys = jax.random.split(jax.random.key(1), 16)
  found = lowrank._step_by_step(keys, d, n, rank, **options)()
  ws = [factors.lecun_normal(jax.random.split(key, 3)[0], (d, n))
        for key in keys]
  ours = jax.vmap(lambda key, w: si.lowrank.factorize(
      key, w, rank, method='adam', **options))(
      keys, jax.numpy.stack(ws))
  assert np.mean([si.lowrank.objective(w, *uv)
                  for w, uv in zip(ws, found, strict=True)]) == pytest.approx(
      float(jax.vmap(si.lowrank.objective)(
          jax.numpy.stack(ws), *ours).mean()), rel=0.01)


def test_kinds_are_chosen(monkeypatch, tmp_path):
  out = tmp_path / 'lowrank.json'
  run(monkeypatch, '--kinds', 'vmap', '--out', out)
  row, = json.loads(out.read_text())['rows']
  assert row['kind'] == 'vmap'
  with pytest.raises(SystemExit):
    run(monkeypatch, '--kinds', 'other', '--out', out)


def test_files_say_what_times_depend_on(monkeypatch, tmp_path):
  monkeypatch.setenv('OPENBLAS_NUM_THREADS', '3')
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  common.write(tmp_path / 'made.json', [], load=[1.5])
  found = json.loads((tmp_path / 'made.json').read_text())
  assert found['environment'] == {'OPENBLAS_NUM_THREADS': '3'}
  assert (found['load'], found['rows']) == ([1.5], [])
