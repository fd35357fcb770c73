"""The benchmark of projections measures what it says."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import subspace

CONTESTANTS = {'hadamard', 'very_sparse', 'gaussian', 'BCOO', 'BCSR', 'dense'}


@pytest.fixture(autouse=True)
def short(monkeypatch):
  for name, value in {
      '_SIZE': 3000, '_DIM': 40, '_KINDS': ('hadamard', 'very_sparse'),
      '_GROWTH': (3000,), '_ROUNDS': 1, '_BATCH': 2, '_WIDTHS': (3, 3)}.items():
    monkeypatch.setattr(subspace, name, value)


def test_every_product_is_that_of_its_matrix():
  rng = np.random.default_rng(0)
  for name, pair in subspace._contestants().items():
    p = pair.matrix
    size, dim = (3000 // 16, 40) if name == 'dense' else (3000, 40)
    w, g = (jnp.asarray(rng.normal(size=n), jnp.float32) for n in (dim, size))
    theta, back = pair.apply(p, w), pair.transpose(p, g)
    assert theta.shape == (size,)
    assert float(theta @ g) == pytest.approx(float(w @ back), abs=1e-2)


def test_the_file_has_what_the_module_says(tmp_path, monkeypatch):
  out = tmp_path / 'subspace.json'
  monkeypatch.setattr('sys.argv', ['subspace', '--out', str(out)])
  subspace.main()
  rows = json.loads(out.read_text())['rows']
  products = {row['kind']: row for row in rows if row['case'] == 'product'}
  assert set(products) == CONTESTANTS
  assert products['dense']['ratio'] == 1
  assert products['dense']['state'] == pytest.approx(
      16 * (3000 // 16) * 40 * 4 / 2**20)
  assert products['hadamard']['state'] == 0
  total = {name: sum(row['milliseconds'].values())
           for name, row in products.items()}
  for name, row in products.items():
    assert row['ratio'] == pytest.approx(total['dense'] / total[name])
  (step,) = (row for row in rows if row['case'] == 'step')
  assert step['parameters'] == 3072 * 3 + 3 + 3 * 3 + 3 + 3 * 10 + 10
  assert set(step['ratio']) == {'reparameterize', 'within'}
  (growth,) = (row for row in rows if row['case'] == 'growth')
  assert growth['bytes_a_number'] == pytest.approx(
      max(growth['bytes'].values()) / 3040)
