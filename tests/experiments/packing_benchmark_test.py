"""The packing benchmark measures what it says, its peer included."""

import argparse
import json
import sys

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.special

from experiments.benchmarks import packing

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def single_precision():
  """The peer, imported, turns float64 on for all that follows."""
  yield
  jax.config.update('jax_enable_x64', False)


def random_frames(dim, rank, num):
  return np.linalg.qr(RNG.standard_normal((num, dim, rank)))[0]


def brute_force(frames):
  """Sums of squared sines of the principal angles, pair by pair."""
  return min(
      np.sum(np.sin(scipy.linalg.subspace_angles(a, b))**2)
      for i, a in enumerate(frames) for b in frames[:i])


@pytest.mark.parametrize('sizes', [
    (2, 1, 2), (3, 1, 7), (4, 2, 10), (5, 4, 3), (6, 3, 2), (9, 2, 20)])
def test_smallest_squared_is_that_of_the_principal_angles(sizes):
  frames = random_frames(*sizes)
  expected = brute_force(frames)
  assert packing._smallest_squared(frames) == pytest.approx(
      expected, abs=1e-13)
  # Any basis of a subspace measures the same.
  basis = frames @ RNG.uniform(1, 2, (sizes[1], sizes[1]))
  assert packing._smallest_squared(basis) == pytest.approx(expected, abs=1e-11)


def test_smallest_squared_of_known_packings():
  eye = np.eye(6)
  blocks = np.stack([eye[:, :2], eye[:, 2:4], eye[:, 4:]])
  assert packing._smallest_squared(blocks) == 2
  assert packing._smallest_squared(eye[None].repeat(2, 0)) == 0
  # float32 frames are measured in float64: rounding stays that of the frames.
  lines = np.float32([[[1], [0]], [[0.5], [3**0.5 / 2]]])
  assert packing._smallest_squared(lines) == pytest.approx(3 / 4, abs=1e-7)


def test_cases_are_sizes_with_or_without_a_best():
  assert packing._case('4,2,10') == ((4, 2, 10), (10 / 9, True))
  assert packing._case('7,2,9') == ((7, 2, 9), (None, False))
  assert packing._case('16,1,29=0.9') == ((16, 1, 29), (0.9, False))
  assert packing._case('4,2,10=1.1') == ((4, 2, 10), (1.1, False))


@pytest.mark.parametrize('text', [
    '', '4', '4,2', '4,2,10,1', '4,2,x', '4.0,2,10', '4,2,10=', '4,2,10=x',
    '0,0,2', '4,0,10', '4,5,10', '4,2,1', '-4,-2,10', '4,2,10=nan',
    '4,2,10=-0.1', '4,2,10=1.2', '4,2,10=inf'])
def test_a_bad_case_names_the_form(text):
  with pytest.raises(argparse.ArgumentTypeError, match='DIM,RANK,NUM=SQUARED'):
    packing._case(text)


def test_the_best_known_obey_the_bounds():
  for (dim, rank, num), (best, _) in packing._BEST.items():
    assert packing._case(f'{dim},{rank},{num}={best!r}')[1] == (best, False)


def test_totals_count_gaps_and_add_seconds():
  rows = [
      {'gap': gap, 'proven': proven, 'first_seconds': 2.0, 'seconds': 0.5}
      for gap, proven in [
          (None, False), (9e-5, False), (2e-4, False), (-1e-3, False),
          (1e-7, True), (1e-5, True), (-1e-5, True)]]
  assert packing.summarise(rows) == {
      'rows': 7, 'known': 6, 'within_1e-4': 5, 'proven': 3,
      'proven_within_1e-6': 1, 'first_seconds': 14, 'seconds': 3.5}


def run(monkeypatch, *arguments):
  monkeypatch.setattr('sys.argv', ['packing', *map(str, arguments)])
  packing.main()


def test_writes_json(monkeypatch, tmp_path, capsys):
  out = tmp_path / 'new' / 'packing.json'
  run(monkeypatch, '--cases', '3,1,4', '4,2,2=2', '--out', out)
  written = json.loads(out.read_text())
  lines, planes = written['rows']
  assert lines['squared'] == pytest.approx(8 / 9, abs=1e-6)  # simplex
  assert planes['squared'] == pytest.approx(2, abs=1e-6)
  assert lines['gap'] is None
  assert planes['gap'] == 2 - planes['squared']
  assert 'peer' not in written
  assert 'peer' not in lines
  totals = written['totals']
  assert (totals['rows'], totals['known']) == (2, 1)
  assert totals['seconds'] == lines['seconds'] + planes['seconds']
  assert 'best unknown' in capsys.readouterr().out


def test_a_bad_call_measures_nothing(monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(packing, 'measure', None)
  out = tmp_path / 'new' / 'packing.json'
  for bad in (('--cases', '4,2'), ('--budget', 'x'), ('--peer', 'geoopt')):
    with pytest.raises(SystemExit):
      run(monkeypatch, '--out', out, *bad)
    assert bad[1] in capsys.readouterr().err
  monkeypatch.setitem(sys.modules, 'pymanopt', None)
  with pytest.raises(SystemExit):
    run(monkeypatch, '--out', out, '--peer', 'pymanopt')
  assert "pip install -e '.[bench]'" in capsys.readouterr().err
  assert not out.parent.exists()


@pytest.mark.parametrize('sizes', [(3, 1, 4), (5, 2, 6), (6, 3, 2)])
@pytest.mark.parametrize('sharpness', [1.0, 50.0])
def test_the_peer_descends_the_log_sum_exp(sizes, sharpness):
  pymanopt = pytest.importorskip('pymanopt')
  dim, rank, num = sizes
  manifold = pymanopt.manifolds.Grassmann(dim, rank, k=num)
  cost, gradient = packing._smooth_max(manifold, sizes, sharpness)

  def expected(frames):
    values = [np.sum((a.T @ b)**2) for i, a in enumerate(frames)
              for j, b in enumerate(frames) if i != j]
    return scipy.special.logsumexp(sharpness * np.array(values)) / sharpness

  frames = random_frames(*sizes)
  assert cost(frames) == pytest.approx(expected(frames), rel=1e-12)
  direction, h = RNG.standard_normal(frames.shape), 1e-5
  slope = (expected(frames + h * direction)
           - expected(frames - h * direction)) / (2 * h)
  assert np.sum(gradient(frames) * direction) == pytest.approx(slope, rel=1e-6)


def test_the_peer_stops_at_ours_or_at_its_budget():
  pytest.importorskip('pymanopt')
  found = packing._pymanopt((3, 1, 4), 8 / 9 - 1e-6, 60)
  assert found['reached']
  assert found['squared'] == pytest.approx(8 / 9, abs=2e-6)
  beyond = packing._pymanopt((3, 1, 4), 1.0, 0.1)  # above the simplex bound
  assert not beyond['reached']
  assert beyond['seconds'] >= 0.1
  assert beyond['squared'] <= 8 / 9 + 1e-12


def test_the_peer_is_written_beside_ours(monkeypatch, tmp_path):
  pymanopt = pytest.importorskip('pymanopt')
  out = tmp_path / 'packing.json'
  run(monkeypatch, '--cases', '3,1,4=0.8888888889', '--peer', 'pymanopt',
      '--budget', '10', '--out', out)
  written = json.loads(out.read_text())
  row, = written['rows']
  peer = row['peer']
  assert written['peer']['version'] == pymanopt.__version__
  assert written['peer']['budget_seconds'] == 10
  assert peer['reached'] == (peer['squared'] >= row['squared'] - 1e-7)
  assert peer['gap'] == 0.8888888889 - peer['squared']
  assert peer['ratio'] == peer['seconds'] / row['seconds']
