"""The benchmark of the joint loss measures what it says."""

import json
import types

import flax.linen as nn
import numpy as np
import pytest

from experiments.benchmarks import kmeans


class Small(nn.Module):
  """Two convolutions, called as those of the network are."""

  classes: int
  width: int

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(self.width, (3, 3), name='stem')(x)
    x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
    x = nn.relu(nn.Conv(self.width, (3, 3), 2, name='conv_1')(x))
    return nn.Dense(self.classes, name='head')(x.mean((1, 2)))


@pytest.fixture
def rows(monkeypatch, tmp_path):
  for name, value in {
      '_IMAGES': 8, '_QUARTER': 4, '_WIDTH': 4,
      '_OURS': {'steps': 1, 'start': 'greedy', 'decay': True}}.items():
    monkeypatch.setattr(kmeans, name, value)
  monkeypatch.setattr(kmeans.models, 'Conv8', Small)
  images = np.random.default_rng(0).integers(
      0, 256, (10, 8, 8, 3)).astype(np.uint8)
  monkeypatch.setattr(
      kmeans.data, 'load',
      lambda *_, **__: types.SimpleNamespace(train_images=images))
  out = tmp_path / 'kmeans.json'
  monkeypatch.setattr('sys.argv', ['kmeans', '--out', str(out), '--steps', '2'])
  kmeans.main()
  assert out.with_suffix('.png').read_bytes().startswith(b'\x89PNG')
  return json.loads(out.read_text())['rows']


def test_the_file_has_what_the_module_says(rows):
  losses = {row['method']: row for row in rows if row['case'] == 'loss'}
  assert set(losses) == {'paper', 'ours', 'greedy', 'whitened'}
  assert losses['paper']['ratio'] == 1
  for row in losses.values():
    assert row['loss'] < 0 < row['seconds']
  filters = [row for row in rows if row['case'] == 'filters']
  assert len(filters) == 2 * 5
  for row in filters:
    assert set(row['layers']) == {'stem/kernel', 'conv_1/kernel'}
    for layer in row['layers'].values():
      assert 0 <= layer['dead'] < layer['filters'] == 4
      assert 0 < layer['coverage'] <= 1
