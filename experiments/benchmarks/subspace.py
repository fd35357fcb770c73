"""Time and memory of random projections, and of training through them.

    python -m experiments.benchmarks.subspace --out subspace.json

D = 472,610, d = 4,500, float32. Contestants take turns in one process;
compiled programs only.

* product: `P w` and `P^T g`, medians in milliseconds; `mebibytes`, the working
  memory of either program by XLA's own account, beside what it is given and
  returns; `state`, what is stored. 'dense' is measured on a sixteenth of the
  rows and multiplied by 16. 'BCOO' and 'BCSR' hold the nonzeros of
  'very_sparse'. `ratio` is dense's time, the sum of both products, over theirs.
  Kinds that take seconds are timed fewer times.
* step: a training step of a perceptron 3072-150-72-10 (472,552 parameters),
  batch 64, by SGD: of all parameters, of 4,500 coordinates by `reparameterize`,
  and the same by `within`. `ratio` is their time over the first's.
* growth: working memory of `P w` and `P^T g` by 'hadamard', in bytes for each
  of D + d numbers; compiled, not run.

`load` is the mean number of processes that wanted a core in the minute before
the first and the last measurement, ours included.
"""

import argparse
import os
import pathlib
import statistics
from typing import Any

import jax
from jax.experimental import sparse
import jax.numpy as jnp
import optax

from experiments import models
from experiments.benchmarks import common
import structinit_jax as si

_SIZE, _DIM = 472_610, 4_500
_KINDS = ('hadamard', 'srht', 'fastfood', 'identity', 'very_sparse', 'sparse')
_SLOW = ('gaussian',)
_SLICE = 16
_ROUNDS, _SLOW_ROUNDS = 15, 1
_BATCH, _WIDTHS = 64, (150, 72)
_GROWTH = (472_610, 5_000_000, 25_557_032)
_MIB = 2**20


def _apply(p: Any, w: jax.Array) -> jax.Array:
  return p.apply(w)


def _transpose(p: Any, g: jax.Array) -> jax.Array:
  return p.transpose(g)


def _temporary(program: jax.stages.Compiled) -> int:
  """Returns the bytes a program works in."""
  memory: Any = program.memory_analysis()
  return memory.temp_size_in_bytes


class _Pair:
  """Both products of a contestant, compiled."""

  def __init__(
      self, apply: Any, transpose: Any, p: Any, size: int, dim: int,
      times: int = 1):
    w = jnp.ones(dim) / dim
    g = jnp.ones(size) / size
    self.apply, self.transpose, self.matrix = apply, transpose, p
    self.times = times
    self.state = sum(x.nbytes for x in jax.tree.leaves(p)
                     if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key))
    programs = [jax.jit(fn).lower(p, x).compile()
                for fn, x in ((apply, w), (transpose, g))]
    self.steps = {
        'P w': lambda: programs[0](p, w), 'P^T g': lambda: programs[1](p, g)}
    self.temporary = [_temporary(program) for program in programs]

  def row(self, seconds: dict[str, list[float]]) -> dict[str, Any]:
    milliseconds = {
        name: 1e3 * self.times * statistics.median(values)
        for name, values in seconds.items()}
    return {
        'milliseconds': milliseconds,
        'mebibytes': max(self.temporary) / _MIB,
        'state': self.times * self.state / _MIB}


def _contestants() -> dict[str, _Pair]:
  key = jax.random.key(0)
  found = {}
  for kind in (*_KINDS, *_SLOW):
    p = si.subspace.projection(kind, key, _SIZE, _DIM)
    found[kind] = _Pair(_apply, _transpose, p, _SIZE, _DIM)
  bcoo = si.subspace.projection('very_sparse', key, _SIZE, _DIM).to_bcoo()
  bcsr = sparse.BCSR.from_bcoo(bcoo)
  for name, matrix in (('BCOO', bcoo), ('BCSR', bcsr)):
    found[name] = _Pair(
        lambda p, w: p @ w, lambda p, g: jax.vjp(
            lambda w, p=p: p @ w, jnp.zeros(_DIM))[1](g)[0],
        matrix, _SIZE, _DIM)
  rows = _SIZE // _SLICE
  dense = jax.random.normal(key, (rows, _DIM))
  found['dense'] = _Pair(
      lambda p, w: p @ w, lambda p, g: g @ p, dense, rows, _DIM, _SLICE)
  return found


def _products() -> list[dict[str, Any]]:
  pairs = _contestants()
  times: dict[str, dict[str, list[float]]] = {}
  for slow in (False, True):
    steps = {f'{name}: {what}': step for name, pair in pairs.items()
             for what, step in pair.steps.items() if (name in _SLOW) == slow}
    for turn in common.rounds(steps, _SLOW_ROUNDS if slow else _ROUNDS):
      for step, seconds in turn.items():
        name, what = step.split(': ')
        times.setdefault(name, {}).setdefault(what, []).append(seconds)
  rows = {name: pair.row(times[name]) for name, pair in pairs.items()}
  total = {name: sum(row['milliseconds'].values())
           for name, row in rows.items()}
  memory = {name: row['mebibytes'] + row['state'] for name, row in rows.items()}
  return [{'case': 'product', 'kind': name, **row,
           'ratio': total['dense'] / total[name],
           'memory_ratio': memory['dense'] / memory[name]}
          for name, row in rows.items()]


def _step() -> dict[str, Any]:
  key = jax.random.key(0)
  model = models.MLP(10, _WIDTHS)
  x = jax.random.normal(key, (_BATCH, 32, 32, 3))
  y = jax.random.randint(key, (_BATCH,), 0, 10)
  params = model.init(key, x)['params']
  optimizer = optax.sgd(0.1, momentum=0.9)

  def loss(params: Any) -> jax.Array:
    logits: Any = model.apply({'params': params}, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  def stepper(optimizer: Any, params: Any, loss: Any) -> common.Step:
    state = [params, optimizer.init(params)]

    @jax.jit
    def step(params: Any, opt_state: Any) -> Any:
      updates, opt_state = optimizer.update(
          jax.grad(loss)(params), opt_state, params)
      return optax.apply_updates(params, updates), opt_state

    return lambda: step(*state)

  subspace = si.subspace.reparameterize(key, params, _DIM)
  steps = {
      'direct': stepper(optimizer, params, loss),
      'reparameterize': stepper(
          optimizer, subspace.w, lambda w: loss(subspace.expand(w))),
      'within': stepper(
          si.subspace.within(key, optimizer, _DIM), params, loss)}
  rounds = common.rounds(steps, 4 * _ROUNDS)
  return {
      'case': 'step', 'parameters': sum(
          x.size for x in jax.tree.leaves(params)),
      'milliseconds': {name: 1e3 * statistics.median(r[name] for r in rounds)
                       for name in steps},
      'ratio': {name: statistics.median(r[name] / r['direct'] for r in rounds)
                for name in steps if name != 'direct'}}


def _growth() -> list[dict[str, Any]]:
  rows = []
  for size in _GROWTH:
    p = si.subspace.projection('hadamard', jax.random.key(0), size, _DIM)
    found = {}
    for name, fn, n in (('P w', _apply, _DIM), ('P^T g', _transpose, size)):
      found[name] = _temporary(jax.jit(fn).lower(
          p, jax.ShapeDtypeStruct((n,), jnp.float32)).compile())
    rows.append({
        'case': 'growth', 'size': size, 'bytes': found,
        'bytes_a_number': max(found.values()) / (size + _DIM)})
  return rows


def main() -> None:
  """Measures and writes the JSON."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  arguments = parser.parse_args()
  arguments.out.parent.mkdir(parents=True, exist_ok=True)
  load = [os.getloadavg()[0]]
  rows = [*_products(), _step(), *_growth()]
  load.append(os.getloadavg()[0])
  for row in rows:
    facts = {name: value for name, value in row.items() if name != 'case'}
    print(f"{row['case']:8s}", ', '.join(
        f'{name} {value:.4g}' if isinstance(value, float) else
        f'{name} {value}' for name, value in facts.items()))
  common.write(
      arguments.out, rows, size=_SIZE, dim=_DIM, batch=_BATCH, load=load)


if __name__ == '__main__':
  main()
