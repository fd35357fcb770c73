"""Time of sparse orthogonal layers beside dense ones and sparse libraries.

    python -m experiments.benchmarks.sao --out sao.json
    python -m experiments.benchmarks.sao --out sao.json --dtype bfloat16

A step is a forward and a backward pass, for the inputs and for the parameters;
four of them run inside `lax.scan`, as in a training epoch, where a buffer is
allocated once. Convolutions are timed step by step: XLA's, inside a scan, take
many times longer on CPU. All contestants of a row take turns in one process; a
ratio is the median over the rounds of the dense layer's time over theirs: above
1, they are faster. The rounds are taken in several passes over all rows: a
neighbour that takes the machine for some seconds disturbs a few rounds of a row
and not its median. A row's first round in a pass, with cold caches, is dropped.

* dense: `SAODense` (batch-major in and out) against `nn.Dense`, n inputs and
  outputs, d of them for an output, 256 samples. Beside it, in float32, JAX's
  BCOO and BCSR and scipy's CSR (on the host's CPU) with the same nonzeros,
  feature-major, which spares them two transposes. `crossover` is the largest
  density of the layers of one size up to which none is slower than dense.
* stack: `SAOStack` against as many dense layers under one scan, both with ReLU.
* conv: `SAOConv` against `nn.Conv`, 3x3, 512 channels of 8x8 pixels.
* sampling: nanoseconds a nonzero of `sao.orthogonal_values`.

`load` is the mean number of processes that wanted a core in the minute before
the first and the last measurement, ours included.
"""

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib
import statistics
from typing import Any
from typing import NamedTuple

import flax.linen as nn
import jax
from jax.experimental import sparse
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from experiments.benchmarks import common
import structinit_jax as si
from structinit_jax import layers

_BATCH, _STEPS, _DEPTH = 256, 4, 4
_PASSES, _ROUNDS = 5, 3
_SIZES, _DEGREES = (1024, 4096), (4, 16, 64)
_DENSER = (256, 512, 1024, 2048)  # degrees to find the crossover with
_CHANNELS, _PIXELS, _IMAGES = 512, 8, (8, 32)
_CHUNK = 2**14  # nonzeros whose gradient scipy's step makes at a time


class _Case(NamedTuple):
  """A row to be: its facts, the contestants, and how many steps each takes."""

  facts: dict[str, Any]
  contestants: Mapping[str, common.Step]
  steps: int = _STEPS

  def row(self, rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Adds milliseconds a step and ratios to 'dense'."""
    names = list(self.contestants)
    return self.facts | {
        'milliseconds': {
            name: 1e3 / self.steps * statistics.median(r[name] for r in rounds)
            for name in names},
        'ratio': {name: statistics.median(r['dense'] / r[name] for r in rounds)
                  for name in names if name != 'dense'}}


def _step(
    fn: Callable[..., Any], params: Any, x: jax.Array, count: int = _STEPS
) -> common.Step:
  """Returns steps of `fn(params, x)`, whose output is its cotangent too.

  The gradient by x is the x of the next step.
  """

  @jax.jit
  def steps(params: Any, x: jax.Array) -> Any:
    def step(carry: Any, _: None) -> tuple[Any, None]:
      y, pull = jax.vjp(fn, params, carry[1])
      return pull(y), None

    if count == 1:  # a scan of one step is a loop, too
      return step((params, x), None)[0]
    return jax.lax.scan(step, (params, x), length=count)[0]

  return lambda: steps(params, x)


def _layer_step(
    layer: nn.Module, params: Any, x: jax.Array, count: int = _STEPS
) -> common.Step:
  return _step(lambda p, x: layer.apply({'params': p}, x), params, x, count)


def _scipy_step(kernel: np.ndarray, x: np.ndarray) -> common.Step:
  """What `_step` does, of the transposed product and by scipy."""
  forward = scipy.sparse.csr_array(kernel.T)
  backward = scipy.sparse.csr_array(kernel)
  columns, rows = forward.nonzero()

  def steps() -> tuple[np.ndarray, ...]:
    inputs, data = x, np.zeros(0, x.dtype)
    for _ in range(_STEPS):
      y = forward @ inputs
      data = np.concatenate([
          np.einsum('ij,ij->i', inputs[rows[i:i + _CHUNK]],
                    y[columns[i:i + _CHUNK]])
          for i in range(0, len(rows), _CHUNK)])
      inputs = backward @ y
    return inputs, data

  return steps


def _peers(kernel: jax.Array, x: jax.Array) -> dict[str, common.Step]:
  transposed, rows = kernel.T, jnp.asarray(x.T)
  nnz = int((transposed != 0).sum())
  bcoo = sparse.BCOO.fromdense(transposed, nse=nnz)
  bcsr = sparse.BCSR.from_bcoo(bcoo)
  return {
      'BCOO': _step(lambda data, x: sparse.BCOO(
          (data, bcoo.indices), shape=bcoo.shape, indices_sorted=True,
          unique_indices=True) @ x, bcoo.data, rows),
      'BCSR': _step(lambda data, x: sparse.BCSR(
          (data, bcsr.indices, bcsr.indptr), shape=bcsr.shape,
          indices_sorted=True, unique_indices=True) @ x, bcsr.data, rows),
      'scipy CSR': _scipy_step(np.asarray(kernel), np.asarray(rows))}


def _dense(n: int, degree: int, dtype: Any, peers: bool) -> _Case:
  key = jax.random.key(0)
  x = jax.random.normal(key, (_BATCH, n), dtype)
  layer = layers.SAODense(n, degree, param_dtype=dtype)
  params = layer.init(key, x)['params']
  dense_params = layer.to_dense(params)
  contestants = {'dense': _layer_step(nn.Dense(n), dense_params, x),
                 'SAODense': _layer_step(layer, params, x)}
  if peers:
    contestants |= _peers(dense_params['kernel'], x)
  return _Case({'kind': 'dense', 'n': n, 'degree': degree,
                'density': degree / n}, contestants)


def _stack(n: int, degree: int, dtype: Any) -> _Case:
  key = jax.random.key(0)
  x = jax.random.normal(key, (_BATCH, n), dtype)
  stack = layers.SAOStack(_DEPTH, n, degree, nn.relu, param_dtype=dtype)
  params = stack.init(key, x)['params']

  def dense(params: Any, x: jax.Array) -> jax.Array:
    return jax.lax.scan(
        lambda h, p: (nn.relu(h @ p['kernel'] + p['bias'][None]), None), x,
        params)[0]

  return _Case(
      {'kind': 'stack', 'n': n, 'degree': degree, 'depth': _DEPTH},
      {'dense': _step(dense, stack.to_dense(params), x),
       'SAOStack': _layer_step(stack, params, x)})


def _conv(images: int, degree: int, dtype: Any) -> _Case:
  key = jax.random.key(0)
  x = jax.random.normal(key, (images, _PIXELS, _PIXELS, _CHANNELS), dtype)
  layer = layers.SAOConv(_CHANNELS, (3, 3), degree=degree, param_dtype=dtype)
  params = layer.init(key, x)['params']
  dense = nn.Conv(_CHANNELS, (3, 3))
  return _Case(
      {'kind': 'conv', 'n': _CHANNELS, 'degree': degree, 'images': images,
       'pixels': _PIXELS},
      {'dense': _layer_step(dense, layer.to_dense(params), x, 1),
       'SAOConv': _layer_step(layer, params, x, 1)}, 1)


def _sampling(n: int, degree: int) -> dict[str, Any]:
  topology = si.sao.topology(jax.random.key(0), (n, n), degree=degree)
  keys = jax.random.split(jax.random.key(1), 1 + _PASSES * _ROUNDS)
  seconds = [
      common.seconds(lambda key=key: si.sao.orthogonal_values(key, topology))
      for key in keys]
  return {'kind': 'sampling', 'n': n, 'degree': degree, 'nanoseconds':
          1e9 * statistics.median(seconds[1:]) / topology.nnz}


def measure(dtype: Any) -> list[dict[str, Any]]:
  """Times every case and prints it; returns the rows."""
  cases = [
      *(_dense(n, degree, dtype, peers=dtype == jnp.float32)
        for n in _SIZES for degree in _DEGREES),
      *(_dense(_SIZES[-1], degree, dtype, peers=False) for degree in _DENSER),
      *(_stack(_SIZES[-1], degree, dtype) for degree in _DEGREES),
      *(_conv(images, degree, dtype)
        for images in _IMAGES for degree in _DEGREES)]
  passes = [[common.rounds(case.contestants, _ROUNDS) for case in cases]
            for _ in range(_PASSES)]
  rows = [case.row([turn for rounds in passes for turn in rounds[i]])
          for i, case in enumerate(cases)]
  rows += [_sampling(n, degree)
           for n in (*_SIZES, 4 * _SIZES[-1]) for degree in _DEGREES]
  for row in rows:
    facts = [f'{name} {ratio:.1f}' for name, ratio in row['ratio'].items()
             ] if 'ratio' in row else [f"{row['nanoseconds']:.0f} ns a nonzero"]
    print(f"{row['kind']:8s} n {row['n']:<5d} d {row['degree']:<4d}",
          ', '.join(facts))
  return rows


def crossover(rows: list[dict[str, Any]]) -> dict[str, float | None]:
  """Returns the largest density below which no dense row is slower, by n."""
  found: dict[str, float | None] = {}
  for n in _SIZES:
    found[str(n)] = None
    for row in sorted((row for row in rows if row['kind'] == 'dense'
                       and row['n'] == n), key=lambda row: row['density']):
      if row['ratio']['SAODense'] < 1:
        break
      found[str(n)] = row['density']
  return found


def main() -> None:
  """Measures and writes the JSON."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument(
      '--dtype', choices=('float32', 'bfloat16'), default='float32')
  arguments = parser.parse_args()
  arguments.out.parent.mkdir(parents=True, exist_ok=True)
  load = [os.getloadavg()[0]]
  rows = measure(jnp.dtype(arguments.dtype))
  load.append(os.getloadavg()[0])
  common.write(
      arguments.out, rows, dtype=arguments.dtype, batch=_BATCH, load=load,
      crossover=crossover(rows))


if __name__ == '__main__':
  main()
