"""Training-step time of convolutions: patches times matrix against XLA's.

    python -m experiments.benchmarks.conv --out conv.json

Gradient descent on one convolution inside `lax.scan`, as the training epoch
is, with one seed and with ten vmapped seeds; both implementations in turn in
one process. The ratio is XLA's time over ours: above 1, patches are faster.
"""

import argparse
from collections.abc import Callable
import functools
import pathlib
import statistics
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from experiments.benchmarks import common
from experiments.models import conv

_CASES = (  # image size, window, channels in, channels out, stride
    (8, 3, 1, 32, 2), (4, 3, 32, 64, 2), (28, 3, 1, 32, 2), (14, 3, 32, 32, 1),
    (16, 11, 3, 16, 1), (16, 11, 16, 16, 2),
)
_BATCH, _ROUNDS, _STEPS = 32, 3, 2


def _xla(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  return lax.conv_general_dilated(
      x, kernel, (stride, stride), 'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _patches(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  numbers = lax.conv_dimension_numbers(
      x.shape, kernel.shape, ('NHWC', 'HWIO', 'NHWC'))
  return conv.conv_general_dilated(
      x, kernel, (stride, stride), 'SAME', dimension_numbers=numbers)


def _step(fn: Callable[..., jax.Array], stride: int) -> Callable[..., Any]:

  def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.mean(fn(x, kernel, stride)**2)

  def descend(carry: Any, _: None) -> tuple[Any, None]:
    gradients = jax.vmap(jax.grad(loss, argnums=(0, 1)))(*carry)
    return jax.tree.map(lambda p, g: p - 0.1 * g, carry, gradients), None

  return jax.jit(lambda *carry: lax.scan(descend, carry, length=_STEPS)[0])


def measure() -> list[dict[str, Any]]:
  """Times every case; returns medians in seconds and their ratio."""
  rows = []
  for size, window, c_in, c_out, stride in _CASES:
    for seeds in (1, 10):
      x_key, kernel_key = jax.random.split(jax.random.key(0))
      x = jax.random.normal(x_key, (seeds, _BATCH, size, size, c_in))
      kernel = jax.random.normal(
          kernel_key, (seeds, window, window, c_in, c_out))
      rounds = common.rounds({
          name: functools.partial(_step(fn, stride), x, kernel)
          for name, fn in (('xla', _xla), ('patches', _patches))}, _ROUNDS)
      xla, patches = (statistics.median(r[name] for r in rounds)
                      for name in ('xla', 'patches'))
      rows.append({
          'size': size, 'window': window, 'c_in': c_in, 'c_out': c_out,
          'stride': stride, 'seeds': seeds, 'xla_seconds': xla,
          'patches_seconds': patches,
          'ratio': statistics.median(
              r['xla'] / r['patches'] for r in rounds)})
  return rows


def main() -> None:
  """Measures and writes the JSON."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  arguments = parser.parse_args()
  rows = measure()
  for row in rows:
    print('{size:3d}x{size:<3d} window {window:2d} {c_in:3d} -> {c_out:3d} '
          'stride {stride} seeds {seeds:2d}: ratio {ratio:6.2f}'.format(**row))
  common.write(arguments.out, rows)


if __name__ == '__main__':
  main()
