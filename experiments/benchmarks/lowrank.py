"""Time of low-rank solvers: exact against sampled, trees, layers at once.

    python -m experiments.benchmarks.lowrank --out lowrank.json
    python -m experiments.benchmarks.lowrank --out lowrank.json --kinds resnet50

Of the ReLU, in float32. Contestants take turns in one process; compiled
programs only, but for `first_seconds`, the first call with nothing compiled.

* solver: a dense kernel of variance 1 / d. `objective` is exact and measured in
  float64: of the truncated SVD, of its rescaled columns, and the optimum, where
  the same iteration from the singular vectors ends in float64. `exact`: the
  fewest steps that close a share of the gap between the SVD and the optimum,
  and the median milliseconds they take from the singular vectors on, zero steps
  being the rescaled columns; `shares` are those of 0, 1, ... steps. The vectors
  that 'exact' begins with are those of the smaller Gram matrix, which take
  `start_milliseconds`; `jnp.linalg.svd` takes `svd_milliseconds`. `adam`: the
  least milliseconds in which any of Algorithms 1 and 2 ('adam', 'adam_warm')
  closes 99 %, over the learning rates `rates` and budgets of steps that double
  up to `--adam-steps` and are then narrowed down to an eighth of the last. If
  none does they are null, `share` is the largest that any reached, and `spent`
  the milliseconds it took. `ratio` is Adam's time over that of `exact` for the
  share of 99 %: after the singular vectors of either ('after_start'), with
  those of the Gram matrix in both ('with_start'), and with those of
  `jnp.linalg.svd` ('with_svd').
* resnet50: `lfai` on the 53 convolutions of ResNet-50 at rank scale 0.1,
  separable; `ratio` is the time of 'exact' over that of 'spectral'.
* vmap: `lfai` by Adam on layers of one shape: all in one tree, one call a
  layer, and as a training loop is written, one call of a compiled step for
  every step of every layer; `ratio` is the time of either over the first's.

`load` is the mean number of processes that wanted a core in the minute before
the first and the last measurement, ours included.
"""

import argparse
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import functools
import os
import pathlib
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import common
import structinit_jax as si
from structinit_jax.lowrank import duals
from structinit_jax.lowrank import factors
from structinit_jax.lowrank import forms
from structinit_jax.lowrank import ranks
from structinit_jax.lowrank import solvers

_KINDS = ('solver', 'resnet50', 'vmap')
_SIZES = ((64, 256, 6), (256, 512, 25))  # inputs, outputs, rank
_SHARES = (0.99, 0.999)
_STEPS, _MOST_STEPS = 500, 100_000  # in float32 and in float64
_METHODS = ('adam', 'adam_warm')
_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
_BATCH, _FIRST_BUDGET, _HALVINGS = 1024, 50, 2
_RANK_SCALE, _BLOCKS = 0.1, (3, 4, 6, 3)
_LAYERS = ((8, 64, 128, 6), (64, 16, 16, 2))  # count, inputs, outputs, rank
_LAYER_OPTIONS = {'method': 'adam', 'steps': 200, 'batch': 256}
_ROUNDS, _TREE_ROUNDS = 15, 3


def _objective(w: jax.Array, u: Any, v: Any) -> float:
  with jax.enable_x64(True):
    return float(si.lowrank.objective(
        *(jnp.asarray(np.asarray(x, np.float64)) for x in (w, u, v))))


def _improve(
    basis: jax.Array, w: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
  """Returns the factors, not balanced, after so many steps."""
  found = solvers.improve(
      basis, w[:, None], duals.dual('relu'), steps=steps, tolerance=0)
  return found.basis, solvers.columns(found, w[:, None])[:, 0]


def _optimum(w: jax.Array, basis: jax.Array) -> float:
  with jax.enable_x64(True):
    wide = jnp.asarray(np.asarray(w, np.float64))
    start = jnp.linalg.qr(jnp.asarray(np.asarray(basis, np.float64)))[0]
    return _objective(w, *jax.jit(_improve)(start, wide, _MOST_STEPS))


def _milliseconds(step: common.Step, count: int = _ROUNDS) -> float:
  return 1e3 * statistics.median(
      found['step'] for found in common.rounds({'step': step}, count))


def _adam_step(
    w: jax.Array, rank: int, method: str, rate: float, steps: int
) -> common.Step:
  options = factors.check_options(
      method, 'relu', restarts=None, steps=steps, tolerance=None, batch=_BATCH,
      learning_rate=rate, norms='best')
  keys, inputs = jax.random.split(jax.random.key(1), 1), jax.random.key(2)
  return lambda: factors.fits(keys, w[None, :, None], rank, inputs, **options)


def _adam_runs(
    w: jax.Array, rank: int, share: Callable[..., float], steps: int,
    methods: Collection[str],
) -> list[dict[str, Any]]:
  """Returns the run at the best learning rate, for every method."""
  runs = []
  for method in methods:
    found: list[dict[str, Any]] = []
    for rate in _RATES:
      u, v = _adam_step(w, rank, method, rate, steps)()
      found.append({'share': share(u[0], v[0, :, 0]), 'method': method,
                    'learning_rate': rate, 'steps': steps})
    runs.append(max(found, key=lambda run: run['share']))
  return runs


def _adam(
    w: jax.Array, rank: int, share: Callable[..., float], most_steps: int
) -> dict[str, Any]:
  """Finds the fewest steps, nearly, in which a method closes 99 %."""

  def close(
      steps: int, methods: Collection[str]
  ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    runs = _adam_runs(w, rank, share, steps, methods)
    return ([run for run in runs if run['share'] >= _SHARES[0]],
            max(runs, key=lambda run: run['share']))

  fewer, steps = 0, min(_FIRST_BUDGET, most_steps)
  reached, best = close(steps, _METHODS)
  while not reached and steps < most_steps:
    fewer, steps = steps, min(2 * steps, most_steps)
    reached, top = close(steps, _METHODS)
    best = max(best, top, key=lambda run: run['share'])
  for _ in range(_HALVINGS if reached else 0):
    middle = (fewer + steps) // 2
    found, _ = close(middle, [run['method'] for run in reached])
    if found:
      reached, steps = found, middle
    else:
      fewer = middle
  for run in reached or [best]:
    # Any learning rate takes the same time.
    run['spent'] = _milliseconds(_adam_step(
        w, rank, run['method'], run['learning_rate'], run['steps']),
                                 _TREE_ROUNDS)
  best = min(reached or [best], key=lambda run: run['spent'])
  return {**best, 'milliseconds': best['spent'] if reached else None}


def _solver(d: int, n: int, rank: int, most_steps: int) -> dict[str, Any]:
  """Closes the gap of one kernel, by the exact iteration and by Adam."""
  w = factors.lecun_normal(jax.random.key(0), (d, n))
  svd = jax.jit(lambda w: solvers.top(w, rank))
  start = jax.jit(lambda w: solvers.dominant(w, rank))
  improve = jax.jit(_improve)
  basis = start(w)
  objective = {
      'svd': _objective(w, basis, basis.T @ w),
      'rescaled': _objective(w, *improve(basis, w, 0)),
      'optimum': _optimum(w, basis)}

  def share(u: jax.Array, v: jax.Array) -> float:
    return (objective['svd'] - _objective(w, u, v)) / (
        objective['svd'] - objective['optimum'])

  shares: list[float] = []
  for steps in range(1 + _STEPS):
    shares.append(share(*improve(basis, w, steps)))
    if shares[-1] >= _SHARES[-1]:
      break
  svd_time, start_time = (
      _milliseconds(lambda run=run: run(w)) for run in (svd, start))
  exact = []
  for target in _SHARES:
    steps = next((k for k, x in enumerate(shares) if x >= target), None)
    exact.append({
        'share': target, 'steps': steps, 'milliseconds': None if steps is None
        else _milliseconds(lambda steps=steps: improve(basis, w, steps))})
  adam = _adam(w, rank, share, most_steps)
  ratio = None
  if adam['milliseconds'] and exact[0]['milliseconds']:
    warm = adam['method'] == 'adam_warm'
    after = adam['milliseconds'] - warm * svd_time
    ours = exact[0]['milliseconds']
    ratio = {'after_start': after / ours} | {
        name: (after + warm * before) / (ours + before) for name, before in (
            ('with_start', start_time), ('with_svd', svd_time))}
  return {
      'kind': 'solver', 'd': d, 'n': n, 'rank': rank, 'objective': objective,
      'shares': shares, 'svd_milliseconds': svd_time,
      'start_milliseconds': start_time, 'exact': exact, 'adam': adam,
      'ratio': ratio}


def _resnet50() -> dict[str, tuple[int, ...]]:
  """Returns the shapes of all convolution kernels."""
  kernels: dict[str, tuple[int, ...]] = {'stem': (7, 7, 3, 64)}
  channels = 64
  for stage, blocks in enumerate(_BLOCKS):
    width = 64 * 2**stage
    for block in range(blocks):
      name = f'stage{stage + 1}_block{block + 1}'
      kernels[f'{name}_conv1'] = (1, 1, channels, width)
      kernels[f'{name}_conv2'] = (3, 3, width, width)
      kernels[f'{name}_conv3'] = (1, 1, width, 4 * width)
      if block == 0:
        kernels[f'{name}_projection'] = (1, 1, channels, 4 * width)
      channels = 4 * width
  return kernels


def _shapes(
    kernels: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
  shapes = {}
  for name, kernel in kernels.items():
    full = forms.of_kernel(kernel, 1)
    form = forms.of_kernel(
        kernel, ranks.scaled(_RANK_SCALE, *full.matrix))
    shapes[name] = {'u': jax.ShapeDtypeStruct(form.u, jnp.float32),
                    'v': jax.ShapeDtypeStruct(form.v, jnp.float32)}
  return shapes


def _race(steps: Mapping[str, common.Step], count: int) -> dict[str, Any]:
  """Times steps; ratios are the times of the others over the first one's."""
  first = {}
  for name, step in steps.items():
    jax.clear_caches()
    first[name] = common.seconds(step)
  rounds = common.rounds(steps, count)
  one, *others = steps
  return {
      'first_seconds': first,
      'seconds': {name: statistics.median(r[name] for r in rounds)
                  for name in steps},
      'first_ratio': {name: first[name] / first[one] for name in others},
      'ratio': {name: statistics.median(r[name] / r[one] for r in rounds)
                for name in others}}


def _tree(kernels: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
  key, shapes = jax.random.key(0), _shapes(kernels)
  inits = {method: si.lowrank.lfai(method=method)
           for method in ('spectral', 'exact')}
  return {
      'kind': 'resnet50', 'kernels': len(kernels), 'rank_scale': _RANK_SCALE,
      **_race({name: lambda init=init: init(key, shapes)
               for name, init in inits.items()}, _TREE_ROUNDS)}


def _step_by_step(
    keys: Iterable[jax.Array], d: int, n: int, rank: int, *, steps: int,
    batch: int,
) -> common.Step:
  """Returns Algorithm 1 as a loop of compiled steps, layer after layer."""
  optimizer = optax.adam(optax.cosine_decay_schedule(0.01, steps))

  @jax.jit
  def start(key: jax.Array) -> Any:
    w, *uv = (
        factors.lecun_normal(key, shape) for key, shape in zip(
            jax.random.split(key, 3), ((d, n), (d, rank), (rank, n)),
            strict=True))
    return w, uv, optimizer.init(uv)

  @jax.jit
  def step(key: jax.Array, w: jax.Array, uv: Any, state: Any) -> Any:
    def loss(uv: Any) -> jax.Array:
      x = jax.random.normal(key, (batch, d))
      return ((jax.nn.relu(x @ w) - jax.nn.relu(x @ uv[0] @ uv[1]))**2
              ).sum(1).mean()

    with jax.numpy_dtype_promotion('standard'):  # optax raises floats to ints
      updates, state = optimizer.update(jax.grad(loss)(uv), state)
    return optax.apply_updates(uv, updates), state

  def run() -> list[Any]:
    found = []
    for key in keys:
      w, uv, state = start(key)
      for one in jax.random.split(key, steps):
        uv, state = step(one, w, uv, state)
      found.append(uv)
    return found

  return run


def _vmap(count: int, d: int, n: int, rank: int) -> dict[str, Any]:
  init, key = si.lowrank.lfai(**_LAYER_OPTIONS), jax.random.key(0)
  shapes = {
      f'layer{i}': {'u': jax.ShapeDtypeStruct((d, rank), jnp.float32),
                    'v': jax.ShapeDtypeStruct((rank, n), jnp.float32)}
      for i in range(count)}
  return {
      'kind': 'vmap', 'layers': count, 'd': d, 'n': n, 'rank': rank,
      **_LAYER_OPTIONS, **_race({
          'together': lambda: init(key, shapes),
          'one by one': lambda: [
              init(key, {name: layer}) for name, layer in shapes.items()],
          'step by step': _step_by_step(
              jax.random.split(key, count), d, n, rank,
              steps=_LAYER_OPTIONS['steps'], batch=_LAYER_OPTIONS['batch'])
      }, _ROUNDS)}


def _line(row: Mapping[str, Any]) -> str:
  """Returns what is printed of a row."""
  if row['kind'] != 'solver':
    return ', '.join(
        [f'{name} {row["seconds"][name]:.3f} s (first {first:.1f} s)'
         for name, first in row['first_seconds'].items()]
        + [f'ratio {ratio:.2f} (first {row["first_ratio"][name]:.2f})'
           for name, ratio in row['ratio'].items()])
  facts = [f'd {row["d"]} n {row["n"]} r {row["rank"]}']
  facts += [f'{name} {value:.6f}' for name, value in row['objective'].items()]
  facts += [f'SVD {row["svd_milliseconds"]:.2f} ms, '
            f'by Gram matrix {row["start_milliseconds"]:.2f} ms']
  facts += [f'{run["share"]:.1%} in {run["steps"]} steps, '
            f'{run["milliseconds"]:.3f} ms'
            for run in row['exact'] if run['steps'] is not None]
  facts += ['{method} {learning_rate:g} {share:.2%} in {steps} steps, '
            '{spent:.0f} ms'.format(**row['adam'])]
  facts += [f'ratio {name} {ratio:.0f}'
            for name, ratio in (row['ratio'] or {}).items()]
  return ', '.join(facts)


def measure(
    kinds: Collection[str] = _KINDS, adam_steps: int = 2000
) -> Iterator[dict[str, Any]]:
  """Times every case and prints it; yields the rows."""
  cases: list[Callable[[], dict[str, Any]]] = []
  if 'solver' in kinds:
    cases += [functools.partial(_solver, *sizes, adam_steps)
              for sizes in _SIZES]
  if 'resnet50' in kinds:
    cases.append(lambda: _tree(_resnet50()))
  if 'vmap' in kinds:
    cases += [functools.partial(_vmap, *layers) for layers in _LAYERS]
  for case in cases:
    row = case()
    print(f'{row["kind"]:8s} {_line(row)}', flush=True)
    yield row


def main() -> None:
  """Measures and writes the JSON."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--kinds', choices=_KINDS, nargs='+', default=_KINDS)
  parser.add_argument(
      '--adam-steps', type=int, default=2000, metavar='STEPS',
      help='of Adam at most; default %(default)s')
  arguments = parser.parse_args()
  arguments.out.parent.mkdir(parents=True, exist_ok=True)
  rows, load = [], os.getloadavg()[0]
  for row in measure(arguments.kinds, arguments.adam_steps):
    rows.append(row)
    # So that a crash loses one row.
    common.write(
        arguments.out, rows, dtype='float32', batch=_BATCH, rates=_RATES,
        load=[load, os.getloadavg()[0]])


if __name__ == '__main__':
  main()
