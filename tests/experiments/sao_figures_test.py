"""Chapter 4's tables before training, against numpy and scipy."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.stats

from experiments import sao_figures
import structinit_jax as si
from structinit_jax import layers

SEEDS = 2
NAMES = ('table4_1', 'table4_1_inputs', 'figure4_6', 'figure4_2',
         'figure4_2_blocks', 'figure4_3', 'figure4_4', 'figure4_10',
         'figure4_25')
DERIVATIVES = {
    'Linear': np.ones_like, 'Tanh': lambda h: 1 - np.tanh(h)**2,
    'ReLU': lambda h: (h > 0).astype(float),
    'SiLU': lambda h: (1 + np.exp(-h) * (1 + h)) / (1 + np.exp(-h))**2}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """What the command writes, in a small form."""
  out = tmp_path_factory.mktemp('sao') / 'new'
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr('sys.argv', [
        'sao_figures', '--out', str(out), '--seeds', str(SEEDS), '--widths',
        '16', '32', '--depths', '2', '3'])
    patched.setattr(sao_figures, '_FEW', 1)
    patched.setattr(sao_figures, '_LAYERS', 2)
    sao_figures.main()
  return out


@pytest.fixture(scope='module')
def spectra():
  return sao_figures.layer_spectra(SEEDS, 2)['N(0, 1)']


def read(folder, name):
  return json.loads((folder / f'{name}.json').read_text())


def values(matrix):
  return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


# ---- Files.


@pytest.mark.parametrize('name', NAMES)
def test_the_command_writes_every_table_and_picture(name, folder):
  records = read(folder, name)
  header, _, *lines = (folder / f'{name}.md').read_text().splitlines()
  assert header == f'| {" | ".join(records[0])} |'
  assert len(lines) == len(records)
  picture = folder / f'{name}.png'
  assert picture.exists() != name.startswith('table')
  if picture.exists():
    assert picture.read_bytes().startswith(b'\x89PNG\r\n')


def test_a_file_is_no_folder(monkeypatch, tmp_path):
  (tmp_path / 'file').touch()
  monkeypatch.setattr('sys.argv', ['x', '--out', str(tmp_path / 'file')])
  with pytest.raises(SystemExit, match='is no folder'):
    sao_figures.main()


# ---- Table 4.1.


def test_spectra_are_those_of_the_product_of_jacobians():
  width, depth = 12, 3
  found = sao_figures.layer_spectra(1, 3, width=width, layers=depth)['N(0, 1)']
  x_key, key = jax.random.split(jax.random.split(jax.random.key(0), 1)[0])
  start = np.asarray(jax.random.normal(x_key, (width,)), np.float64)
  for method, init in sao_figures.methods(width, 3).items():
    kernels = [np.asarray(
        sao_figures.kernel_and_mask(init, layer, width)[0], np.float64)
               for layer in jax.random.split(key, depth)]
    for activation, derivative in DERIVATIVES.items():
      x, jacobian = start, np.eye(width)
      for kernel in kernels:
        h = x @ kernel
        jacobian = jacobian @ kernel * derivative(h)
        x = np.asarray(sao_figures.ACTIVATIONS[activation](h))
      want = values(jacobian)
      np.testing.assert_allclose(
          found[activation, method][0], want, atol=2e-6 * want[0])


def test_methods_prune_one_kernel_to_as_many_weights():
  named = sao_figures.methods(32, 2)
  found = {name: sao_figures.kernel_and_mask(init, jax.random.key(3), 32)
           for name, init in named.items()}
  dense, _ = found['dense']
  for name in ('RG-S', 'LMP-S', 'LRP-S'):
    kernel, mask = found[name]
    assert mask.sum() == 64
    np.testing.assert_array_equal(kernel, np.where(mask, dense, 0))
  np.testing.assert_array_equal(found['RG-S'][1], found['SAO'][1])


def test_the_table_is_scipys_test(spectra):
  for row in sao_figures.table_4_1(spectra):
    pairs = zip(spectra[row['activation'], row['method']],
                spectra[row['activation'], 'dense'], strict=True)
    want = [scipy.stats.ks_2samp(one.round(4), other.round(4), method='exact')
            for one, other in pairs]
    pvalues = sorted(test.pvalue for test in want)
    np.testing.assert_allclose(
        [row['least p'], row['p'], row['most p']],
        [pvalues[0], pvalues[1], pvalues[1]], rtol=1e-9)
    statistics = sorted(256 * test.statistic for test in want)
    np.testing.assert_allclose(
        [row['least h'], row['h'], row['most h']],
        [statistics[0], statistics[0], statistics[1]])


def test_every_printed_number_is_a_statistic_of_256_values(spectra):
  for row in sao_figures.table_4_1(spectra):
    apart = [np.arange(256) < row['thesis h'], np.zeros(256)]
    want = scipy.stats.ks_2samp(*apart, method='exact').pvalue
    digits = 6e-3 if row['thesis p'] < 0.1 else 1e-5
    assert math.isclose(row['thesis p'], want, rel_tol=digits)


def test_linear_and_relu_are_known(spectra):
  """One layer: all 1 against less; and as many 1 as units are active."""
  rows = {(row['activation'], row['method']): row
          for row in sao_figures.table_4_1(spectra)}
  active = sorted(np.sum(np.isclose(spectra['ReLU', 'dense'], 1), axis=1))
  for method in ('RG-S', 'LMP-S', 'LRP-S'):
    np.testing.assert_allclose(rows['Linear', method]['p'], 4.23e-153,
                               rtol=1e-3)
    assert rows['Linear', method]['within']
    row = rows['ReLU', method]
    assert [row['least h'], row['most h']] == active
  assert rows['Linear', 'SAO']['p'] == 1


def test_inputs_are_counted(spectra):
  """Of a layer that is the dense one, h is 0: the numbers printed remain."""
  same = {(activation, method): spectra[activation, 'dense']
          for activation, method in spectra}
  record, = sao_figures.compare_inputs({'x': same})
  assert record['of'] == 16
  assert record['explained'] == 1  # Linear, SAO
  assert record['mean difference of h'] == (228 + 170 + 224 + 219 + 182
                                            + 216) / 6


def test_spreads_are_quantiles(spectra):
  for row in sao_figures.spreads(spectra):
    pooled = spectra[row['activation'], row['method']].ravel()
    want = np.percentile(pooled, [0, 5, 50, 95, 100])
    np.testing.assert_allclose(
        [row[k] for k in ('least', '5 %', 'median', '95 %', 'most')], want)
    np.testing.assert_allclose(row['mean'], pooled.mean(), rtol=1e-5)


# ---- Figures 4.2 and 4.3.


def gap(sigma, c, d):
  return math.sqrt(c - 1) + math.sqrt(d - 1) - sigma


def test_gaps_are_those_of_the_masks():
  records = sao_figures.gaps([64], seeds=1)
  masks = {}
  for row in records:
    width, density = row['width'], 1 - row['sparsity']
    if row['method'] == 'SAO':
      blocks = round(1 / density)
      mask = si.sao.topology(jax.random.key(1), (width, width),
                             density=1 / blocks, kind='random').mask
    elif row['method'] == 'SAO, weighing':
      mask = si.sao.topology(jax.random.key(1), (width, width),
                             density=density, kind='weighing').mask
    else:
      mask = sao_figures.kernel_and_mask(
          sao_figures.methods(width, width // round(1 / density))[
              row['method']], jax.random.split(jax.random.key(0), 1)[0],
          width)[1]
    masks[row['method'], width, density] = mask
    sigma, degree = values(mask), float(mask.mean()) * width
    distinct = sigma[sigma < sigma[0] - 1e-6]
    np.testing.assert_allclose(row['standard'],
                               gap(sigma[1], degree, degree), atol=1e-5)
    np.testing.assert_allclose(
        row['thesis'], 2 * math.sqrt(sigma[0] - 1) - max(distinct, default=0),
        atol=1e-5)
  assert {width for method, width, _ in masks if 'weighing' in method} == {
      7, 13, 49}


def test_disjoint_blocks_are_never_strictly_ramanujan():
  for row in sao_figures.gaps([32, 64, 128], seeds=1):
    if row['method'] == 'SAO':
      degree = row['width'] * (1 - row['sparsity'])
      np.testing.assert_allclose(
          row['standard'], -(math.sqrt(degree - 1) - 1)**2, atol=1e-9)
      assert row['standard'] <= 0 <= row['thesis']


def test_block_gaps_are_those_of_the_product_of_masks():
  """Singular values of the product are degree times those of the graph."""
  width = 64
  rows = {(row['kind'], row['sparsity']): row
          for row in sao_figures.block_gaps([width])}
  for sparsity in (0.5, 0.75, 0.875, 0.9375, 0.96875):
    degree = round(width * (1 - sparsity))
    mask = si.sao.topology(
        jax.random.key(0), (width, width), degree=degree).mask
    sigma = values(mask.astype(np.int32) @ mask.astype(np.int32)) / degree
    np.testing.assert_allclose(
        rows['debruijn', sparsity]['gap'], gap(sigma[1], degree, degree),
        atol=1e-6)
    drawn, verified = (
        rows[kind, sparsity] for kind in ('random', 'random, verified'))
    assert verified['Ramanujan'] >= drawn['Ramanujan']
    assert verified['gap'] >= drawn['gap']


def test_adjacency_spectra_are_the_eigenvalues():
  for width in (16, 128):
    mask = np.asarray(si.sao.topology(
        jax.random.key(0), (width, width), density=1 / min(width, 64),
        kind='thesis').mask, float)
    zero = np.zeros((width, width))
    want = np.linalg.eigvalsh(np.block([[zero, mask], [mask.T, zero]]))
    got = np.concatenate([
        np.full(row['multiplicity'], row['eigenvalue'])
        for row in sao_figures.adjacency_spectra([width])])
    np.testing.assert_allclose(got, want, atol=1e-9)


# ---- Figure 4.4.


def test_what_is_reached():
  width, degree, depth = 27, 3, 6
  records, chains = sao_figures.reach(1, degree, width, depth)
  key = jax.random.split(jax.random.key(0), 1)[0]
  named = sao_figures.methods(width, degree)
  for row in records:
    matrices = chains[row['method']]
    share = [100 * matrix.mean() for matrix in matrices]
    np.testing.assert_allclose(
        [row[f'{layer} layers %'] for layer in range(1, 7)], share)
    assert row['connected'] == (share[-1] == 100)
    assert row['least layers'] == (
        share.index(100) + 1 if row['connected'] else None)
    if row['method'] in named:
      paths = functools.reduce(lambda one, other: one @ other, [
          np.asarray(sao_figures.kernel_and_mask(
              named[row['method']], layer, width)[1], int)
          for layer in jax.random.split(key, depth)])
      np.testing.assert_array_equal(matrices[-1], paths > 0)
  one, each, debruijn = records[2:]
  assert debruijn['least layers'] == 3  # log_3 27
  assert min(one['least layers'], each['least layers']) >= 3


# ---- Figure 4.10.


def test_deep_spectra_are_those_of_the_layers():
  width, degree, depth = 8, 2, 3
  rows = {(row['network'], row['method']): row
          for row in sao_figures.deep_spectra([depth], 1, degree, width)}
  x_key, key = jax.random.split(jax.random.split(jax.random.key(0), 1)[0])
  x = jax.random.normal(x_key, (width,))

  def tanh(gain, kernel):
    return lambda x: jnp.tanh(gain * (x @ kernel))

  def looks_linear(kernel):
    return lambda x: layers.crelu(x) @ jnp.concatenate([kernel, -kernel])

  networks = {'tanh, gain 1': functools.partial(tanh, 1.0),
              'tanh, gain 1.1': functools.partial(tanh, 1.1),
              'looks linear (ReLU)': looks_linear}
  named = sao_figures.methods(width, degree) | {
      'EOI': si.pruning.givens(density=degree / width)}
  for network, make in networks.items():
    for method in ('dense', 'SAO', 'EOI'):
      stack = [make(sao_figures.kernel_and_mask(
          named[method], jax.random.fold_in(key, i), width)[0])
               for i in range(depth)]
      total = np.asarray(si.diagnostics.chain_singular_values(stack, x).total)
      row = rows[network, method]
      np.testing.assert_allclose(
          [row['log10 mean'], row['log10 most'], row['log10 least']],
          np.log10([total.mean(), total[0], total[-1]]), atol=1e-4)


def test_what_is_too_small_for_float32_has_a_logarithm():
  """A product of 60 layers, in float64."""
  width, depth = 16, 60
  rows = {(row['network'], row['method']): row
          for row in sao_figures.deep_spectra([20, depth], 1, 4, width)
          if row['layers'] == depth}
  _, key = jax.random.split(jax.random.split(jax.random.key(0), 1)[0])
  for method in ('LMP-S', 'LRP-S'):
    init = sao_figures.methods(width, 4)[method]
    product = np.eye(width)
    for i in range(depth):
      product = product @ np.asarray(sao_figures.kernel_and_mask(
          init, jax.random.fold_in(key, i), width)[0], np.float64)
    want, row = values(product), rows['looks linear (ReLU)', method]
    np.testing.assert_allclose(
        [row['log10 mean'], row['log10 most']],
        np.log10([want.mean(), want[0]]), atol=1e-3)
    assert row['log10 least'] is None
  assert abs(rows['looks linear (ReLU)', 'SAO']['log10 least']) < 1e-5


# ---- Figure 4.25.


def test_storage_is_scipys_and_what_the_thesis_counts():
  for row in sao_figures.storage():
    blocks = round(1 / row['density'])
    mask = np.asarray(si.sao.Topology((1024, 1024), blocks).mask)
    csr = scipy.sparse.csr_array(mask.T)
    assert row['nonzeros'] == csr.nnz
    assert row['CSR'] == len(csr.data) + len(csr.indices) + len(csr.indptr)
    assert row['thesis'] == csr.nnz + 1024 + 1
    overhead = row['file, debruijn'] - csr.nnz
    assert 0 < overhead < 64  # the header; no index
    assert 0 <= row['file, random'] - row['file, debruijn'] - 1024 < 4
