"""Time to a value of the joint k-means loss, and what filters there are.

    python -m experiments.benchmarks.kmeans --out kmeans.json

The network of Zhou's table 1 and the first 256 training images of CIFAR-10,
scaled to [-1, 1]; convolutions alone are made. Compiled programs, one after the
other in one process: an hour and a half on two cores, unless `--steps` are
fewer.

* loss: the paper's loss, raw scores and lambda = 100, averaged over the
  quarters of the batch, and the seconds to get there. 'paper' takes 10,000
  steps of Adam on minibatches of 64 from He's kernels, at the rate of its
  training; 'ours' some hundreds at a rate that falls as a cosine, from k-means
  of raw patches layer by layer. `ratio` is the paper's time over theirs.
* filters: of every layer but the last, how many filters win no patch, the
  largest |cosine| of two and how evenly they share patches, with raw scores
  and with whitened ones; 'he_normal' are the model's own. No method makes the
  dense layers.

The filters of the first layer are drawn in a PNG of the same name; both files
are written after every method.

`load` is the mean number of processes that wanted a core in the minute before
the first and the last measurement, ours included.
"""

import argparse
from collections.abc import Iterator
import os
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import data
from experiments import figures
from experiments import models
from experiments.benchmarks import common
import structinit_jax as si

_IMAGES, _QUARTER = 256, 64
_WIDTH = 16
_SELECT = r'(stem|conv_\d)/kernel'
_OURS = {'steps': 300, 'learning_rate': 3e-3, 'decay': True, 'start': 'greedy'}


def _methods(steps: int) -> dict[str, dict[str, Any]]:
  return {
      'paper': {'method': 'joint', 'steps': steps},
      'ours': {'method': 'joint', **_OURS},
      'greedy': {'method': 'greedy'},
      'whitened': {'method': 'whitened'}}


def _filters(name: str, stats: Any, whiten: bool) -> dict[str, Any]:
  return {
      'case': 'filters', 'method': name, 'whiten': whiten,
      'layers': {
          leaf: {'dead': int(s.dead.sum()), 'filters': len(s.dead),
                 'coherence': float(s.coherence),
                 'coverage': float(s.coverage)}
          for leaf, s in stats.items() if leaf != 'head/kernel'}}


def _measure(
    images: np.ndarray, steps: int
) -> Iterator[tuple[str, list[dict[str, Any]], np.ndarray]]:
  """Yields methods, what is measured of them and the first layer's kernel."""
  batch = jnp.asarray(images, jnp.float32) / 127.5 - 1
  model = models.Conv8(10, width=_WIDTH)
  shapes = jax.eval_shape(model.init, jax.random.key(0), batch)['params']
  rest = si.partition([
      ('.*kernel', jax.nn.initializers.he_normal()),
      ('.*scale', jax.nn.initializers.ones), ('.*bias', si.zeros)])

  @jax.jit
  def loss(params: Any) -> jax.Array:
    return jnp.stack([
        si.kmeans.joint_loss(model, params, part, select=_SELECT)
        for part in jnp.split(batch, _IMAGES // _QUARTER)]).mean()

  def filters(name: str, params: Any) -> list[dict[str, Any]]:
    return [
        _filters(name, si.kmeans.layer_statistics(
            model, params, batch, whiten=whiten), whiten)
        for whiten in (False, True)]

  seconds = {}
  own = rest(jax.random.key(0), shapes)
  print('he_normal: loss', float(loss(own)), flush=True)
  yield 'he_normal', filters('he_normal', own), own['stem']['kernel']
  for name, options in _methods(steps).items():
    init_fn = si.kmeans.joint(
        model, batch, select=_SELECT, rest=rest, **options)
    program = jax.jit(lambda key, make=init_fn: make(key, shapes)).lower(
        jax.random.key(0)).compile()
    start = time.perf_counter()
    params = jax.block_until_ready(program(jax.random.key(0)))
    seconds[name] = time.perf_counter() - start
    row = {'case': 'loss', 'method': name, 'seconds': seconds[name],
           'loss': float(loss(params)),
           'ratio': seconds['paper'] / seconds[name]}
    print(row, flush=True)
    yield name, [row, *filters(name, params)], params['stem']['kernel']


def main() -> None:
  """Measures and writes the JSON."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--data_dir', default='')
  parser.add_argument('--steps', type=int, default=10_000)
  arguments = parser.parse_args()
  arguments.out.parent.mkdir(parents=True, exist_ok=True)
  dataset = data.load('cifar10', data_dir=arguments.data_dir)
  load, rows, kernels = os.getloadavg()[0], [], {}
  for name, more, kernel in _measure(
      dataset.train_images[:_IMAGES], arguments.steps):
    rows += more
    kernels[name] = np.asarray(kernel)
    common.write(
        arguments.out, rows, images=_IMAGES, width=_WIDTH,
        load=[load, os.getloadavg()[0]], steps=arguments.steps)
    arguments.out.with_suffix('.png').write_bytes(
        figures.filter_pictures(kernels))


if __name__ == '__main__':
  main()
