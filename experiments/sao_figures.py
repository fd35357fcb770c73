r"""Tables and figures of Esguerra's thesis (2023), chapter 4, without training.

    python -m experiments.sao_figures --out experiments/published/sao/layers

Of sparse layers and networks at initialization, what the thesis shows of
SAO beside pruned ones: table 4.1 and figures 4.2 to 4.6, 4.10 and 4.25. Every
part is a table, NAME.json and NAME.md, and mostly a picture, NAME.png.

* `table4_1`: p-values of the Kolmogorov-Smirnov test, a layer's singular values
  against the dense orthogonal layer's. `table4_1_inputs` says which inputs of
  the layer explain the printed ones, as the thesis does not say what it used.
* `figure4_2`: the Ramanujan gap of a mask, by the usual definition and by the
  thesis's; `figure4_2_blocks`: that of the graph between the blocks of two
  layers. SAO's mask is a set of disjoint complete bipartite graphs: not
  Ramanujan, as the usual definition counts multiple singular values.
* `figure4_3`: the spectrum of SAO's mask; `figure4_4`: what reaches what.
* `figure4_6` (with 4.5): how a layer's and a network's singular values spread.
* `figure4_10`: singular values of deep networks. At initialization; the
  thesis's right half is after training.
* `figure4_25`: what a layer takes in a file.

Of table 4.1 all but one number reproduces with inputs of N(0, 1): 15 of 16 are
within the central 95 % of 40 seeds, Linear to every digit. Tanh of LRP-S is
not, and the numbers of pruned Tanh and SiLU layers all lie to one side. Inputs
of N(0, 0.9^2) explain all 16, uniform ones 10. That of SAO says little: its
p-value with Tanh is 0.84 in the thesis, and here from 0.04 to 1.00.

Two statements do not. Algorithm 1 does not connect 256 units of degree 4 in 5
layers but in 6 ('debruijn': 4). And by the thesis's own gap some pruned layers
of width 128 are Ramanujan at 98.4 % sparsity; by the usual one none is, nor is
SAO's mask, except those of degree 2, which are just on the bound.

Networks of 1000 layers: with the thesis's gain of 1.1 the mean singular value
of SAO grows to 10^2.6, with gain 1 it falls to 10^-1.7, as that of dense layers
does, and the network that looks linear keeps it at 1.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import itertools
import json
import math
import pathlib
import statistics
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import tables
import structinit_jax as si

__all__ = [
    'ACTIVATIONS', 'INPUTS', 'NETWORKS', 'PRINTED', 'adjacency_spectra',
    'block_gaps', 'compare_inputs', 'deep_spectra', 'draw_adjacency',
    'draw_block_gaps', 'draw_depth', 'draw_gaps', 'draw_reach', 'draw_spectra',
    'draw_storage', 'gaps', 'kernel_and_mask', 'layer_spectra', 'main',
    'methods', 'reach', 'spreads', 'storage', 'table_4_1',
]

Record = dict[str, Any]
Spectra = dict[tuple[str, str], np.ndarray]

_WIDTH = 256
_LAYERS = 10  # of the network in figure 4.6
_REACH = (1, 2, 3, 4, 5, 6)  # layers shown in figure 4.4
_FEW = 3  # seeds of what is costly, and the same for all
_STORED = 1024
_MOST_BLOCKS = 64  # 98.4 % sparse
_RESOLVED = 1e-6  # of the largest singular value: float32's rounding
_FLOOR = 1e-16  # least singular value drawn

# Okabe and Ito, and black: told apart with any colour vision.
_COLORS = ('k', '#0072B2', '#E69F00', '#009E73', '#CC79A7', '#D55E00',
           '#56B4E9', '0.6')

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    'Linear': lambda x: x, 'Tanh': jnp.tanh, 'ReLU': jax.nn.relu,
    'SiLU': jax.nn.silu}

INPUTS: Mapping[str, Callable[..., jax.Array]] = {
    'N(0, 1)': jax.random.normal,
    **{f'N(0, {scale}^2)': functools.partial(
        lambda scale, key, shape: scale * jax.random.normal(key, shape), scale)
        for scale in (0.75, 0.9, 1.5)},
    'U[0, 1)': jax.random.uniform}

# Table 4.1, p-values.
PRINTED: Mapping[str, Mapping[str, float]] = {
    'Linear': {'dense': 1, 'SAO': 1, 'RG-S': 4.23e-153, 'LMP-S': 4.23e-153,
               'LRP-S': 4.23e-153},
    'Tanh': {'dense': 1, 'SAO': 0.83958, 'RG-S': 4.74e-107, 'LMP-S': 8.92e-54,
             'LRP-S': 2.97e-102},
    'ReLU': {'dense': 1, 'SAO': 0.99998, 'RG-S': 2.07e-30, 'LMP-S': 2.07e-30,
             'LRP-S': 2.07e-30},
    'SiLU': {'dense': 1, 'SAO': 0.41603, 'RG-S': 1.42e-96, 'LMP-S': 1.53e-62,
             'LRP-S': 2.55e-93}}


def methods(width: int, degree: int) -> dict[str, Any]:
  """Returns the initializers of the thesis's square layers, by name.

  Args:
    width: inputs and outputs n.
    degree: inputs of an output d; all but 'dense' have n d weights.

  Returns:
    The dense orthogonal layer, SAO by Algorithm 1, and the dense one pruned by
    SAO's mask, by magnitude and at random.
  """
  orthogonal = jax.nn.initializers.orthogonal()
  sao = si.sao.orthogonal(degree=degree, kind='thesis')
  pruned = {
      'RG-S': si.pruning.ramanujan(sao),
      'LMP-S': si.pruning.local_magnitude(1 - degree / width),
      'LRP-S': si.pruning.local_random(1 - degree / width)}
  return {'dense': orthogonal, 'SAO': sao,
          **{name: si.pruning.from_scratch(method, orthogonal)
             for name, method in pruned.items()}}


def kernel_and_mask(
    init: Any, key: jax.Array, width: int
) -> tuple[jax.Array, jax.Array]:
  """Returns a square kernel (in, out) and its mask, also under a trace.

  With one key all methods prune the same dense kernel.
  """
  init_fn = si.partition([('kernel', init)])
  params, aux = init_fn.init_with_aux(
      key, {'kernel': jax.ShapeDtypeStruct((width, width), jnp.float32)})
  kernel = params['kernel']
  return kernel, jnp.broadcast_to(aux['masks']['kernel'], kernel.shape)


def _keys(seeds: int) -> jax.Array:
  return jax.random.split(jax.random.key(0), seeds)


# ---- Table 4.1, figures 4.5 and 4.6.


def layer_spectra(
    seeds: int, degree: int, *, width: int = _WIDTH, layers: int = 1,
    inputs: Sequence[str] = ('N(0, 1)',),
) -> dict[str, Spectra]:
  """Returns the singular values of Jacobians of layers without biases.

  Every layer is an activation of a product, and is measured at its own input:
  the first at one of independent entries, the same for all methods.

  Args:
    seeds: how many independent draws.
    degree: inputs of an output.
    width: of all layers.
    layers: their number.
    inputs: names of `INPUTS`.

  Returns:
    By input, by activation and method, an array (seeds, width). What float32
    does not tell from 0 is 0.
  """
  found: dict[str, Spectra] = {name: {} for name in inputs}
  named = methods(width, degree)
  x_keys, kernel_keys = jax.vmap(jax.random.split, out_axes=1)(_keys(seeds))
  for method, init in named.items():

    @jax.jit
    @jax.vmap
    def spectra(
        key: jax.Array, x: jax.Array, init: Any = init) -> list[jax.Array]:
      stack = jax.vmap(lambda key: kernel_and_mask(init, key, width)[0])(
          jax.random.split(key, layers))

      def network(activation: Any, x: jax.Array) -> jax.Array:
        return jax.lax.scan(
            lambda x, kernel: (activation(x @ kernel), None), x, stack)[0]

      return [si.diagnostics.jacobian_singular_values(
          functools.partial(network, activation), x)
              for activation in ACTIVATIONS.values()]

    for name in inputs:
      x = jax.vmap(lambda key, name=name: INPUTS[name](key, (width,)))(x_keys)
      for activation, values in zip(
          ACTIVATIONS, spectra(kernel_keys, x), strict=True):
        found[name][activation, method] = np.where(
            values > _RESOLVED * values[:, :1], values, 0)
  order = list(itertools.product(ACTIVATIONS, named))
  return {name: {pair: spectra[pair] for pair in order}
          for name, spectra in found.items()}


def _printed_statistic(pvalue: float) -> int:
  """Returns the h of D = h / 256 that a printed p-value belongs to."""
  return min(range(_WIDTH + 1), key=lambda h: abs(math.log(
      _pvalue(h) / pvalue)))


@functools.cache
def _pvalue(h: int) -> float:
  """Returns the exact p-value of D = h / 256."""
  return si.diagnostics.compare_spectra(
      np.arange(_WIDTH) < h, np.zeros(_WIDTH)).pvalue


def table_4_1(spectra: Spectra) -> list[Record]:
  """Compares layers with the dense one by the Kolmogorov-Smirnov test.

  Args:
    spectra: of `layer_spectra`, 256 values each.

  Returns:
    Records: the p-value that the thesis prints, the median over seeds and its
    range; and the same of h, where D = h / 256 is the statistic. `within`:
    whether the printed one is in the central 95 % of the seeds.
  """
  records = []
  for (activation, method), values in spectra.items():
    ours = [round(_WIDTH * si.diagnostics.compare_spectra(
        one, reference).statistic) for one, reference in zip(
            values, spectra[activation, 'dense'], strict=True)]
    median = statistics.median_low(ours)
    printed = _printed_statistic(PRINTED[activation][method])
    low, high = np.percentile(ours, (2.5, 97.5))
    records.append({
        'activation': activation, 'method': method,
        'thesis p': PRINTED[activation][method], 'p': _pvalue(median),
        'least p': _pvalue(max(ours)), 'most p': _pvalue(min(ours)),
        'thesis h': printed, 'h': median, 'least h': min(ours),
        'most h': max(ours), 'within': bool(low <= printed <= high)})
  return records


def compare_inputs(spectra: Mapping[str, Spectra]) -> list[Record]:
  """Returns how many numbers of table 4.1 each distribution of inputs explains.

  Only Tanh and SiLU tell them apart: Linear does not depend on the input, and
  ReLU not on its scale.

  Args:
    spectra: of `layer_spectra`, by input.

  Returns:
    Records: of the printed numbers, without the dense layer's own, those within
    the central 95 % of the seeds; and over the pruned layers with Tanh and SiLU
    the mean of printed minus median h, above 0 if our distributions are nearer
    to the dense one's.
  """
  records = []
  for name, found in spectra.items():
    rows = [row for row in table_4_1(found) if row['method'] != 'dense']
    records.append({
        'inputs': name, 'explained': sum(row['within'] for row in rows),
        'of': len(rows), 'mean difference of h': statistics.mean(
            row['thesis h'] - row['h'] for row in rows
            if row['activation'] in ('Tanh', 'SiLU')
            and row['method'] != 'SAO')})
  return records


def spreads(spectra: Spectra) -> list[Record]:
  """Returns quantiles of singular values, all seeds together."""
  return [
      {'activation': activation, 'method': method,
       'mean': float(values.mean(dtype=np.float64)),
       **{label: float(np.quantile(values, q)) for label, q in (
           ('least', 0), ('5 %', 0.05), ('median', 0.5), ('95 %', 0.95),
           ('most', 1))}}
      for (activation, method), values in spectra.items()]


# ---- Figure 4.2.


def _summary(name: str, values: Sequence[float]) -> Record:
  return {name: statistics.mean(values), f'least {name}': min(values),
          f'most {name}': max(values)}


def _blocks(width: int) -> Iterator[int]:
  """Yields numbers of blocks, from half of the weights to 1 in 64."""
  return (2**k for k in range(1, _MOST_BLOCKS.bit_length()) if 2**k <= width)


def gaps(widths: Sequence[int], seeds: int = _FEW) -> list[Record]:
  """Returns both Ramanujan gaps of masks of pruned layers and of SAO's.

  Args:
    widths: of square layers; powers of two.
    seeds: of the pruned layers; SAO's gaps are the same whatever is drawn.

  Returns:
    Records; the gap is the mean over seeds. 'SAO' stands for 'debruijn',
    'random' and 'thesis'; 'weighing' exists for multiples of 7 and 13.
  """
  records = []
  for width, b in ((n, b) for n in widths for b in _blocks(n)):
    named = methods(width, width // b)
    for method in ('LMP-S', 'LRP-S'):
      masks = (kernel_and_mask(named[method], key, width)[1]
               for key in _keys(seeds))
      pairs = [si.diagnostics.ramanujan_gaps(mask) for mask in masks]
      records.append({
          'method': method, 'width': width, 'sparsity': 1 - 1 / b,
          **_summary('standard', [pair.standard for pair in pairs]),
          **_summary('thesis', [pair.thesis for pair in pairs])})
    records.append(_gap('SAO', si.sao.Topology((width, width), b)))
  for width, order in ((7, 7), (13, 13), (49, 49), (91, 91), (343, 343),
                       (1029, 7), (1029, 49), (1029, 343)):
    if width <= 1.01 * max(widths):
      records.append(_gap('SAO, weighing', si.sao.Topology(
          (width, width), order, 'weighing')))
  return sorted(records, key=lambda r: r['method'])


def _gap(method: str, topology: si.sao.Topology) -> Record:
  facts = topology.describe()
  return {'method': method, 'width': topology.shape[0],
          'sparsity': 1 - topology.density,
          **_summary('standard', [facts['ramanujan_gap']]),
          **_summary('thesis', [facts['thesis_gap']])}


def block_gaps(widths: Sequence[int], seeds: int = _FEW) -> list[Record]:
  """Returns the gap of the graph between the blocks of two layers.

  Args:
    widths: of square layers; powers of two.
    seeds: of what is drawn.

  Returns:
    Records; 'random, verified' is drawn again until the graph is Ramanujan.
  """
  records = []
  for width, b in ((n, b) for n in widths for b in _blocks(n)):
    found: dict[str, list[float]] = {}
    for key in _keys(seeds):
      one, other = jax.random.split(key)
      for kind in ('debruijn', 'thesis', 'random'):
        make = functools.partial(
            si.sao.topology, shape=(width, width), density=1 / b, kind=kind)
        first = make(one)
        seconds = {kind: make(other)}
        if kind == 'random':
          seconds['random, verified'] = make(other, previous=first)
        for name, second in seconds.items():
          found.setdefault(name, []).append(
              si.sao.ramanujan_gap(first, second))
    records += [
        {'kind': kind, 'width': width, 'sparsity': 1 - 1 / b,
         **_summary('gap', values), 'Ramanujan': sum(v >= 0 for v in values),
         'of': seeds} for kind, values in found.items()]
  return records


# ---- Figures 4.3 and 4.4.


def adjacency_spectra(widths: Sequence[int]) -> list[Record]:
  r"""Returns eigenvalues of the graph of SAO's mask, with multiplicity.

  They are $\pm \sigma$ of the mask's singular values.
  """
  records = []
  for width in widths:
    counts: dict[float, int] = {}
    for value, times in si.sao.spectrum(
        si.sao.Topology((width, width), min(width, _MOST_BLOCKS))):
      for signed in (-value + 0.0, value):  # 0, not -0
        counts[signed] = counts.get(signed, 0) + times
    records += [{'width': width, 'eigenvalue': value, 'multiplicity': times}
                for value, times in sorted(counts.items())]
  return records


def _chains(
    key: jax.Array, width: int, degree: int, layers: int
) -> Iterator[tuple[str, list[Any]]]:
  """Yields the masks of networks, by name."""
  named, keys = methods(width, degree), jax.random.split(key, layers)
  for method in ('LMP-S', 'LRP-S'):
    yield method, [
        kernel_and_mask(named[method], key, width)[1] for key in keys]
  shape = width, width
  for label, kind, drawn in (
      ('Algorithm 1, one structure', 'thesis', [keys[0]] * layers),
      ('Algorithm 1, one a layer', 'thesis', keys),
      ('SAO, de Bruijn', 'debruijn', keys)):
    yield label, [si.sao.topology(key, shape, degree=degree, kind=kind).mask
                  for key in drawn]


def reach(
    seeds: int, degree: int = 4, width: int = _WIDTH, layers: int = 12
) -> tuple[list[Record], dict[str, tuple[np.ndarray, ...]]]:
  """Returns what reaches what in networks of sparse layers.

  Returns:
    Records: the mean over seeds of the percentage of pairs of an input and an
    output that are connected by 1 to 6 layers and by `layers`; how many seeds
    connect everything, and the least and most layers that those take. And the
    matrices of the first seed, layer by layer.
  """
  found: dict[str, list[Any]] = {}
  for key in _keys(seeds):
    for name, masks in _chains(key, width, degree, layers):
      found.setdefault(name, []).append(
          si.diagnostics.reachability_matrices(masks))
  records = []
  for name, draws in found.items():
    means = np.array([[matrix.mean() for matrix in draw] for draw in draws])
    full = [int(np.argmax(row == 1)) + 1 for row in means if row[-1] == 1]
    records.append({
        'method': name,
        **{f'{layer} layers %': 100 * float(means[:, layer - 1].mean())
           for layer in (*_REACH, layers)},
        'connected': len(full), 'of': seeds,
        'least layers': min(full, default=None),
        'most layers': max(full, default=None)})
  return records, {name: draws[0] for name, draws in found.items()}


# ---- Figure 4.10.


def _deep_methods(width: int, degree: int) -> dict[str, Any]:
  named = methods(width, degree)
  del named['RG-S']
  sao = named['SAO']
  return named | {
      'EOI': si.pruning.givens(density=degree / width),
      'RG-N raw': si.pruning.normal(sao),
      'RG-N scaled': si.pruning.normal(sao, scale='fan_in')}


# The thesis's networks have a gain of 1.1. Those that look linear are: relu(h)
# Q - relu(-h) Q is h Q.
NETWORKS: Mapping[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    'tanh, gain 1': lambda x, kernel: jnp.tanh(x @ kernel),
    'tanh, gain 1.1': lambda x, kernel: jnp.tanh(x @ (1.1 * kernel)),
    'looks linear (ReLU)': lambda x, kernel: x @ kernel}


def deep_spectra(
    depths: Sequence[int], seeds: int = _FEW, degree: int = 4,
    width: int = _WIDTH,
) -> list[Record]:
  """Returns singular values of the end-to-end Jacobians of deep networks.

  At initialization and at an input of N(0, 1). Products are kept near 1 and
  their scale beside them, as 0.1 to the power of 1000 is no number.

  Args:
    depths: numbers of layers, ascending.
    seeds: how many independent networks.
    degree: inputs of an output.
    width: of all layers.

  Returns:
    Records of decimal logarithms, means over seeds: of the mean singular value,
    of the largest, and of the smallest. None for the latter where a seed's is
    less than float32 tells from 0 beside the largest.
  """
  found: dict[tuple[str, str, int], list[Any]] = {}
  for method, init in _deep_methods(width, degree).items():

    def layer(
        i: jax.Array, state: tuple[Any, ...], init: Any = init
    ) -> tuple[Any, ...]:
      key, networks = state
      kernel = kernel_and_mask(init, jax.random.fold_in(key, i), width)[0]
      after = {}
      for name, apply in NETWORKS.items():
        x, product, scale = networks[name]
        y, pushed = jax.linearize(
            lambda x, apply=apply, kernel=kernel: apply(x, kernel), x)
        product = jax.vmap(pushed)(product)
        norm = jnp.linalg.norm(product) / math.sqrt(width)
        after[name] = y, product / norm, scale + jnp.log10(norm)
      return key, after

    run = jax.jit(functools.partial(
        lambda layer, start, stop, state: jax.lax.fori_loop(
            start, stop, layer, state), layer))
    for key in _keys(seeds):
      x_key, key = jax.random.split(key)
      x = jax.random.normal(x_key, (width,))
      state = key, dict.fromkeys(
          NETWORKS, (x, jnp.eye(width), jnp.zeros(())))
      for start, stop in itertools.pairwise([0, *depths]):
        state = run(start, stop, state)
        for name, (_, product, scale) in state[1].items():
          values = np.linalg.svd(
              np.asarray(product, np.float64), compute_uv=False)
          resolved = values[-1] > _RESOLVED * math.sqrt(stop) * values[0]
          found.setdefault((name, method, stop), []).append((
              math.log10(values.mean()) + float(scale),
              math.log10(values[0]) + float(scale),
              math.log10(values[-1]) + float(scale) if resolved else math.nan))
  records = []
  for (network, method, depth), rows in found.items():
    mean, most, least = np.mean(rows, axis=0).tolist()
    records.append({
        'network': network, 'method': method, 'layers': depth,
        'log10 mean': mean, 'log10 most': most,
        'log10 least': None if math.isnan(least) else least})
  return sorted(records, key=lambda r: list(NETWORKS).index(r['network']))


# ---- Figure 4.25.


def storage() -> list[Record]:
  """Returns how many numbers a sparse square layer takes to store.

  Returns:
    Records: n**2 of a dense layer, 2 nnz + n + 1 of CSR, nnz + n + 1 of the
    thesis's format, and bytes / 4 of a file of `sao.save`, float32, without
    a permutation and with one.
  """
  width, records = _STORED, []
  for b in (2, 3, 4, 8, 16, 32, 64, 128, 256, 512):
    sizes = {}
    for kind in ('debruijn', 'random'):
      layer = si.sao.topology(
          jax.random.key(0), (width, width), density=1 / b, kind=kind)
      values = [np.ones(group, np.float32) for group in layer.groups]
      with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / 'layer.sao'
        si.sao.save(file, {'layer': (layer, values)})
        sizes[f'file, {kind}'] = math.ceil(file.stat().st_size / 4)
      nnz = layer.nnz
    records.append({
        'density': nnz / width**2, 'nonzeros': nnz, 'dense': width**2,
        'CSR': 2 * nnz + width + 1, 'thesis': nnz + width + 1, **sizes})
  return records


# ---- Pictures.


def _figure(width: float, height: float) -> Any:
  from matplotlib import figure
  return figure.Figure(figsize=(width, height), layout='constrained')


def _legend(canvas: Any, axis: Any, columns: int) -> None:
  canvas.legend(*axis.get_legend_handles_labels(), loc='outside upper center',
                ncols=columns)


def draw_spectra(rows: Mapping[str, Spectra]) -> Any:
  """Draws distribution functions: a row a network, a column an activation."""
  canvas = _figure(13, 3.1 * len(rows) + 0.5)
  axes = canvas.subplots(len(rows), len(ACTIVATIONS), squeeze=False,
                         sharey=True)
  for line, (title, spectra) in zip(axes, rows.items(), strict=True):
    for axis, activation in zip(line, ACTIVATIONS, strict=True):
      found = {method: np.sort(values.ravel())
               for (name, method), values in spectra.items()
               if name == activation}
      for color, (method, values) in zip(_COLORS, found.items(), strict=False):
        axis.step(
            np.concatenate([values[:1], values]),
            np.linspace(0, 1, len(values) + 1), where='post', color=color,
            linestyle='--' if method == 'dense' else '-',
            zorder=3 if method == 'dense' else 2, label=method)
      axis.set_title(f'{title}, {activation}', fontsize=10)
      axis.grid(alpha=0.3)
      if title == next(iter(rows)):
        axis.set_xlim(-0.05, 1.15)
      else:
        axis.set_xscale('log')
        axis.set_xlim(_FLOOR, 10)
        axis.set_xticks([1e-16, 1e-12, 1e-8, 1e-4, 1])
  for line in axes:
    line[0].set_ylabel('fraction below')
  canvas.supxlabel('singular value of the Jacobian')
  _legend(canvas, axes[0, 0], 5)
  return canvas


def _sparsity_axis(axis: Any) -> None:
  """Labels a logarithmic axis of density by the sparsity in percent."""
  axis.set_xscale('log', base=2)
  densities = [2.0**-k for k in range(1, 7)]
  axis.set_xticks(densities, [f'{100 * (1 - x):.4g}' for x in densities])
  axis.set_xticks([], minor=True)
  axis.set_xlim(0.8, 0.0125)


def draw_gaps(records: Sequence[Record]) -> Any:
  """Draws both gaps: a row a definition, a column a method."""
  columns = {'LMP-S': ('LMP-S',), 'LRP-S': ('LRP-S',),
             'SAO: disjoint blocks, and weighing': ('SAO', 'SAO, weighing')}
  rows = {'standard': r'$\sqrt{c-1} + \sqrt{d-1} - \sigma_2$' '\n(standard)',
          'thesis': r'$2 \sqrt{\sigma_1 - 1} - \lambda_2$' "\n(thesis's)"}
  canvas = _figure(12, 7)
  axes = canvas.subplots(2, 3, sharey='row', sharex=True)
  widths = sorted({r['width'] for r in records if r['method'] == 'SAO'})
  for line, (name, label) in zip(axes, rows.items(), strict=True):
    line[0].set_ylabel(f'Ramanujan gap {label}')
    for axis, (title, shown) in zip(line, columns.items(), strict=True):
      for color, width in zip(_COLORS, widths, strict=False):
        points = [r for r in records if r['method'] == shown[0]
                  and r['width'] == width]
        axis.plot([1 - r['sparsity'] for r in points],
                  [r[name] for r in points], '.-', color=color,
                  label=f'width {width}')
      for marker, large in (('x', False), ('D', True)):
        points = [r for r in records if r['method'] in shown[1:]
                  and (r['width'] > 1000) == large]
        if points:
          axis.plot([1 - r['sparsity'] for r in points],
                    [r[name] for r in points], marker, color='#D55E00',
                    markersize=5, label='weighing, width 1029' if large else
                    'weighing, width 7 to 343')
      axis.axhline(0, color='k', linewidth=0.8)
      axis.set_yscale('symlog', linthresh=1)
      _sparsity_axis(axis)
      axis.set_title(title, fontsize=10)
      axis.grid(alpha=0.3)
  canvas.supxlabel('sparsity (%)')
  _legend(canvas, axes[0, 2], 6)
  return canvas


def draw_block_gaps(records: Sequence[Record]) -> Any:
  """Draws the gap of the block graph, a panel a width."""
  widths = sorted({r['width'] for r in records})
  canvas = _figure(3.2 * max(len(widths), 2), 3.8)
  axes = canvas.subplots(1, len(widths), squeeze=False)[0]
  for axis, width in zip(axes, widths, strict=True):
    for color, kind in zip(
        _COLORS[1:], dict.fromkeys(r['kind'] for r in records), strict=False):
      points = [r for r in records
                if (r['width'], r['kind']) == (width, kind)]
      axis.plot([1 - r['sparsity'] for r in points],
                [r['gap'] for r in points], marker='.', color=color,
                linestyle='--' if 'verified' in kind else '-', label=kind)
    axis.axhline(0, color='k', linewidth=0.8)
    axis.set_yscale('symlog', linthresh=1)
    _sparsity_axis(axis)
    axis.tick_params(axis='x', labelsize=8)
    axis.set_title(f'width {width}', fontsize=10)
    axis.grid(alpha=0.3)
  axes[0].set_ylabel('Ramanujan gap of the block graph\n'
                     r'$\sqrt{c-1} + \sqrt{d-1} - \sigma_2$')
  canvas.supxlabel('sparsity of both layers (%)')
  _legend(canvas, axes[0], 4)
  return canvas


def draw_adjacency(records: Sequence[Record]) -> Any:
  """Draws the spectra of masks as bars, a panel a width."""
  widths = sorted({r['width'] for r in records})
  canvas = _figure(3.2 * max(len(widths), 2), 3.3)
  axes = canvas.subplots(1, len(widths), squeeze=False)[0]
  for axis, width in zip(axes, widths, strict=True):
    points = [r for r in records if r['width'] == width]
    values = [r['eigenvalue'] for r in points]
    bars = axis.bar(values, [r['multiplicity'] for r in points],
                    width=0.12 * max(values), color=_COLORS[1])
    axis.bar_label(bars, fontsize=9)
    axis.set_xticks(values, [f'{value:g}' for value in values])
    axis.set_title(f'width {width}', fontsize=10)
    axis.margins(y=0.12)
  axes[0].set_ylabel('multiplicity')
  canvas.supxlabel("eigenvalue of the mask's graph")
  return canvas


def draw_reach(
    chains: Mapping[str, Sequence[np.ndarray]],
    shown: Sequence[int] = _REACH) -> Any:
  """Draws reachability matrices, a row a method."""
  canvas = _figure(2 * len(shown) + 0.8, 2.3 * len(chains))
  axes = canvas.subplots(len(chains), len(shown), squeeze=False)
  for line, (name, matrices) in zip(axes, chains.items(), strict=True):
    line[0].set_ylabel(name.replace(', ', ',\n'))
    for axis, layer in zip(line, shown, strict=True):
      matrix = matrices[layer - 1]
      axis.imshow(matrix, cmap='Blues', vmin=0, vmax=1.3,
                  interpolation='none')
      axis.set_xticks([])
      axis.set_yticks([])
      percent = math.floor(1000 * matrix.mean()) / 10  # 100 is all of them
      axis.set_title(f'{layer} layer{"s" * (layer > 1)}: {percent:g} %',
                     fontsize=9)
  canvas.supxlabel('output of the last layer')
  canvas.supylabel('input of the first layer')
  return canvas


def draw_depth(records: Sequence[Record]) -> Any:
  """Draws mean and largest singular value by depth, a panel a network."""
  canvas = _figure(13, 5)
  axes = canvas.subplots(1, len(NETWORKS), sharey=True)
  for axis, network in zip(axes, NETWORKS, strict=True):
    named = dict.fromkeys(r['method'] for r in records)
    for color, method in zip(_COLORS, named, strict=False):
      points = [r for r in records
                if (r['network'], r['method']) == (network, method)]
      depths = [r['layers'] for r in points]
      # Those that are equal show through each other.
      style = {'dense': {'linestyle': '--', 'zorder': 4},
               'SAO': {'linewidth': 4}}.get(method, {})
      axis.plot(depths, [r['log10 mean'] for r in points], color=color,
                label=method, marker='.', **style)
      axis.plot(depths, [r['log10 most'] for r in points], color=color,
                linestyle=':', linewidth=1)
    axis.set_yscale('symlog', linthresh=10, linscale=2)
    ticks = (-1000, -100, -10, -5, 0, 5, 10, 100)
    axis.set_yticks(ticks, [str(tick) for tick in ticks])
    axis.set_yticks([], minor=True)
    axis.set_xlabel('layers')
    axis.set_title(network, fontsize=10)
    axis.grid(alpha=0.3)
  axes[0].set_ylabel('log10 of the singular values of the Jacobian\n'
                     'mean (marked) and largest (dotted)')
  _legend(canvas, axes[0], 7)
  return canvas


def draw_storage(records: Sequence[Record]) -> Any:
  """Draws numbers to store, and what they are beside the nonzeros."""
  canvas = _figure(11, 4.2)
  axes = canvas.subplots(1, 2)
  densities = [r['density'] for r in records]
  for color, marker, name in zip(
      _COLORS[1:], 'so.x', ('CSR', 'thesis', 'file, debruijn', 'file, random'),
      strict=False):
    axes[0].plot(densities, [r[name] / 1e6 for r in records],
                 marker=marker, color=color, label=name)
    axes[1].plot(densities, [r[name] / r['nonzeros'] for r in records],
                 marker=marker, color=color, label=name)
  axes[0].set_ylabel('numbers to store (millions)')
  axes[1].set_ylabel('numbers to store, per nonzero')
  axes[1].set_xscale('log')
  for axis in axes:
    axis.set_xlabel('density')
    axis.grid(alpha=0.3)
  _legend(canvas, axes[0], 4)
  return canvas


# ---- Files.


def _parts(
    seeds: int, widths: Sequence[int], depths: Sequence[int]
) -> Iterator[tuple[str, list[Record], Any]]:
  """Yields the name, the table and the picture of every part."""
  by_inputs = layer_spectra(seeds, 2, inputs=tuple(INPUTS))
  layer = by_inputs['N(0, 1)']
  yield 'table4_1', table_4_1(layer), None
  yield 'table4_1_inputs', compare_inputs(by_inputs), None
  network = layer_spectra(_FEW, 2, layers=_LAYERS)['N(0, 1)']
  rows = {'one layer': layer, f'{_LAYERS} layers': network}
  yield ('figure4_6', [{'network': name, **r} for name, spectra in rows.items()
                       for r in spreads(spectra)], draw_spectra(rows))
  records = gaps(widths)
  yield 'figure4_2', records, draw_gaps(records)
  records = block_gaps(widths)
  yield 'figure4_2_blocks', records, draw_block_gaps(records)
  records = adjacency_spectra(widths)
  yield 'figure4_3', records, draw_adjacency(records)
  records, chains = reach(_FEW)
  yield 'figure4_4', records, draw_reach(chains)
  records = deep_spectra(depths)
  yield 'figure4_10', records, draw_depth(records)
  records = storage()
  yield 'figure4_25', records, draw_storage(records)


def main() -> None:
  """Draws what chapter 4 of the thesis shows of networks before training."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True,
                      help='the folder that tables and pictures go to')
  parser.add_argument('--seeds', type=int, default=40,
                      help='of table 4.1')
  parser.add_argument('--widths', type=int, nargs='+',
                      default=(128, 256, 512, 1024),
                      help='of the layers of figures 4.2 and 4.3')
  parser.add_argument('--depths', type=int, nargs='+',
                      default=(50, 100, 200, 400, 600, 800, 1000),
                      help='of the networks of figure 4.10, ascending')
  arguments = parser.parse_args()
  out = arguments.out
  try:
    out.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise SystemExit(f'error: --out {out} is no folder: {error}') from error
  for name, records, canvas in _parts(
      arguments.seeds, arguments.widths, arguments.depths):
    (out / f'{name}.json').write_text(json.dumps(records, indent=1) + '\n')
    (out / f'{name}.md').write_text(tables.markdown(records))
    if canvas is not None:
      canvas.savefig(out / f'{name}.png', dpi=110)
    print(out / f'{name}.md', flush=True)


if __name__ == '__main__':
  main()
