"""How close `si.grassmann.pack` comes to the best packings known.

    python -m experiments.benchmarks.packing --out packing.json
    python -m experiments.benchmarks.packing --out packing.json --peer pymanopt

Every size is packed with one fixed key and the default options, and measured
in float64 with numpy. The gap is to the best squared chordal distance known,
negative where ours is larger; `first_seconds` includes compilation, `seconds`
is the median of three more calls. `totals` adds the seconds up and counts the
gaps within 1e-4, and within 1e-6 of a proven optimum. Other sizes:
`--cases 7,2,9 16,1,29=0.96`.

With `--peer pymanopt` (`pip install -e '.[bench]'`) pymanopt packs in the same
process: 4,2,10, 6,2,15 and 16,1,32, or the sizes of `--cases`. It minimises the
same log-sum-exp of squared inner products over its product of Grassmannians, in
float64, by conjugate gradients with a gradient written by hand: one evaluation
serves the cost and the gradient of a point, and each sharpness starts where
the last one ended. Rule, line search and schedule, the JSON's `peer`, were
tuned on these three sizes together; trust regions with the exact Hessian were
no faster over the three. Seeded random starts follow one another until a
packing is as good as ours up to float32 rounding, looked for after every
sharpness, or until `--budget` seconds are over; `restarts` counts them, and
`ratio` is its seconds over ours: a lower bound where ours is not `reached`, and
a search against a lookup where our `method` is an exactly known packing.

Source of the distances: N. J. A. Sloane's tables of packings in Grassmannian
spaces, kept by H. Cohn; `proven` where they attain a proven bound or are
otherwise known to be optimal.
"""

import argparse
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import importlib
import pathlib
import statistics
import time
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import common
import structinit_jax as si

_Sizes = tuple[int, int, int]  # dim, rank, num
_Best = tuple[float | None, bool]  # squared distance, proven
_BEST: dict[_Sizes, _Best] = {
    (3, 1, 6): (0.8, True), (3, 1, 7): (2 / 3, True),
    (3, 1, 8): (0.5806285146, True), (3, 1, 16): (0.3685242697, False),
    (4, 1, 6): (8 / 9, True), (5, 1, 16): (0.8, True),
    (7, 1, 28): (8 / 9, True), (8, 1, 120): (0.75, True),
    (15, 1, 36): (0.96, True), (16, 1, 32): (0.9632503, False),
    (23, 1, 276): (0.96, True), (4, 2, 9): (1.1230624449, False),
    (4, 2, 10): (10 / 9, True), (4, 2, 18): (1.0, True),
    (5, 2, 10): (4 / 3, True), (5, 2, 14): (1.2790114729, False),
    (6, 2, 15): (1.4285668598, False), (6, 3, 16): (1.6, True),
    (7, 3, 28): (16 / 9, True), (8, 4, 70): (2.0, True),
    (16, 3, 40): (2.5, True), (64, 3, 49): (3 * 61 / 64 * 49 / 48, True),
}
_CALLS = 3
_PEER_SIZES = ((4, 2, 10), (6, 2, 15), (16, 1, 32))
_PEER = {
    'optimizer': 'ConjugateGradient', 'beta_rule': 'PolakRibiere',
    'line_searcher': 'AdaptiveLineSearcher', 'line_search_iterations': 30,
    'initial_step_size': 0.01, 'iterations': 150, 'min_gradient_norm': 1e-6,
    'sharpness': np.geomspace(1, 1e5, 8).tolist(), 'seed': 0,
    'tolerance': 1e-7,
}


def _smallest_squared(frames: np.ndarray) -> float:
  """Returns the smallest squared chordal distance, in float64."""
  frames = np.linalg.qr(np.asarray(frames, np.float64))[0]
  num, dim, rank = frames.shape
  stacked = frames.transpose(1, 0, 2).reshape(dim, num * rank)
  gram = (stacked.T @ stacked).reshape(num, rank, num, rank)
  shared = np.sum(gram**2, axis=(1, 3))
  return float(rank - shared[~np.eye(num, dtype=bool)].max())


def _case(text: str) -> tuple[_Sizes, _Best]:
  form = f'{text!r} is not DIM,RANK,NUM or DIM,RANK,NUM=SQUARED'
  sizes, equals, best = text.partition('=')
  try:
    dim, rank, num = map(int, sizes.split(','))
    squared = float(best) if equals else None
  except ValueError:
    raise argparse.ArgumentTypeError(f'{form}, like 16,1,29=0.96') from None
  if not 1 <= rank <= dim or num < 2:
    raise argparse.ArgumentTypeError(
        f'{form} with 1 <= RANK <= DIM and NUM >= 2')
  if squared is None:
    return (dim, rank, num), _BEST.get((dim, rank, num), (None, False))
  bound = si.grassmann.upper_bound(dim, rank, num)**2
  if not 0 <= squared <= bound + 1e-6:
    raise argparse.ArgumentTypeError(
        f'{form} with SQUARED between 0 and the bound, {bound:.10g}')
  return (dim, rank, num), (squared, False)


def _smooth_max(
    manifold: Any, sizes: _Sizes, sharpness: float) -> tuple[Any, Any]:
  """Returns pymanopt's cost, a smoothed largest similarity, and gradient."""
  dim, rank, num = sizes
  numpy = importlib.import_module('pymanopt').function.numpy
  last: list[Any] = [None, None]

  def evaluate(frames: np.ndarray) -> tuple[float, np.ndarray]:
    # pymanopt asks for the cost and the gradient of the same array in turn.
    if last[0] is not frames:
      stacked = frames.transpose(1, 0, 2).reshape(dim, num * rank)
      gram = (stacked.T @ stacked).reshape(num, rank, num, rank)
      similarity = np.sum(gram**2, axis=(1, 3))
      np.fill_diagonal(similarity, -np.inf)
      largest = similarity.max()
      weights = np.exp(sharpness * (similarity - largest))
      total = weights.sum()
      pull = (weights / total)[:, None, :, None] * gram
      gradient = 4 * stacked @ pull.reshape(num * rank, num * rank)
      last[:] = frames, (
          largest + np.log(total) / sharpness,
          gradient.reshape(dim, num, rank).transpose(1, 0, 2))
    return last[1]

  return (numpy(manifold)(lambda frames: evaluate(frames)[0]),
          numpy(manifold)(lambda frames: evaluate(frames)[1]))


def _pymanopt(sizes: _Sizes, target: float, budget: float) -> dict[str, Any]:
  """Restarts pymanopt until `target`, a squared distance, or for `budget` s."""
  pymanopt = importlib.import_module('pymanopt')
  optimizers = importlib.import_module('pymanopt.optimizers')
  line_search = importlib.import_module('pymanopt.optimizers.line_search')
  dim, rank, num = sizes
  manifold = pymanopt.manifolds.Grassmann(dim, rank, k=num)
  rng = np.random.default_rng(_PEER['seed'])
  squared, restarts, seconds = 0.0, 0, 0.0
  start = time.perf_counter()
  while True:
    restarts += 1
    frames = np.linalg.qr(rng.standard_normal((num, dim, rank)))[0]
    for sharpness in _PEER['sharpness']:
      cost, gradient = _smooth_max(manifold, sizes, sharpness)
      optimizer = optimizers.ConjugateGradient(
          beta_rule=_PEER['beta_rule'], verbosity=0,
          line_searcher=line_search.AdaptiveLineSearcher(
              max_iterations=_PEER['line_search_iterations'],
              initial_step_size=_PEER['initial_step_size']),
          max_iterations=_PEER['iterations'], max_time=budget - seconds,
          min_gradient_norm=_PEER['min_gradient_norm'])
      with np.errstate(divide='ignore', invalid='ignore'):  # at a gradient of 0
        frames = optimizer.run(
            pymanopt.Problem(manifold, cost, euclidean_gradient=gradient),
            initial_point=frames).point
      squared = max(squared, _smallest_squared(frames))
      seconds = time.perf_counter() - start
      reached = squared >= target - _PEER['tolerance']
      if reached or seconds >= budget:
        return {'squared': squared, 'seconds': seconds, 'reached': reached,
                'restarts': restarts}


def _gap(best: float | None, squared: float) -> tuple[float | None, str]:
  if best is None:
    return None, 'best unknown'
  return best - squared, f'gap {best - squared:8.1e}'


def measure(
    cases: Mapping[_Sizes, _Best], peer_sizes: Collection[_Sizes] = (),
    budget: float = 60,
) -> Iterator[dict[str, Any]]:
  """Packs every size, and `peer_sizes` with pymanopt too; yields the rows."""
  for (dim, rank, num), (best, proven) in cases.items():
    seconds = []
    for _ in range(1 + _CALLS):
      start = time.perf_counter()
      found = jax.block_until_ready(si.grassmann.pack(
          jax.random.key(0), dim=dim, rank=rank, num=num))
      seconds.append(time.perf_counter() - start)
    squared = _smallest_squared(found.frames)
    warm = statistics.median(seconds[1:])
    gap, shown = _gap(best, squared)
    row = {
        'dim': dim, 'rank': rank, 'num': num, 'squared': squared,
        'bound_squared': found.bound**2, 'best_known_squared': best,
        'gap': gap, 'proven': proven, 'method': found.method,
        'first_seconds': seconds[0], 'seconds': warm}
    print(f'{dim:3d},{rank},{num:<4d} {squared:.10f} {shown:12s} '
          f'{warm:8.4f} s  {found.method}', flush=True)
    if (dim, rank, num) in peer_sizes:
      peer = _pymanopt((dim, rank, num), squared, budget)
      gap, shown = _gap(best, peer['squared'])
      row['peer'] = {**peer, 'gap': gap, 'ratio': peer['seconds'] / warm}
      print('  pymanopt {squared:.10f} {shown:12s} {seconds:8.4f} s  {more}'
            '{ratio:.1f} times ours, starts: {restarts}'.format(
                **row['peer'], shown=shown,
                more='' if peer['reached'] else 'not reached, more than '),
            flush=True)
    yield row


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
  """Adds up the seconds and counts the rows that come close enough."""
  known = [row['gap'] for row in rows if row['gap'] is not None]
  proven = [row['gap'] for row in rows if row['proven']]
  return {
      'rows': len(rows),
      'known': len(known), 'within_1e-4': sum(gap <= 1e-4 for gap in known),
      'proven': len(proven),
      'proven_within_1e-6': sum(abs(gap) <= 1e-6 for gap in proven),
      'first_seconds': sum(row['first_seconds'] for row in rows),
      'seconds': sum(row['seconds'] for row in rows)}


def markdown(rows: list[dict[str, Any]]) -> str:
  """Returns the rows as a table; the peer's column says how it ended."""
  lines = ['| m, k, N | d² | gap to the best known | seconds | method | '
           'pymanopt |', '| --- | ---: | ---: | ---: | --- | --- |']
  for row in rows:
    gap, peer = row['gap'], row.get('peer')
    ended = ''
    if peer is not None:
      ended = (f'{peer["ratio"]:.0f} times as long' if peer['reached'] else
               f'gap {peer["gap"]:.1e} in {peer["ratio"]:.0f} times as long'
               if peer['gap'] is not None else
               f'not reached in {peer["ratio"]:.0f} times as long')
    lines.append(
        f'| {row["dim"]}, {row["rank"]}, {row["num"]} | {row["squared"]:.9f} | '
        f'{"" if gap is None else f"{gap:.1e}"}'
        f'{" (proven)" if row["proven"] else ""} | {row["seconds"]:.4f} | '
        f'{row["method"]} | {ended} |')
  return '\n'.join(lines) + '\n'


def main() -> None:
  """Measures; writes the JSON, and beside it the table."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument(
      '--cases', type=_case, nargs='+', metavar='DIM,RANK,NUM[=SQUARED]')
  parser.add_argument('--peer', choices=('pymanopt',))
  parser.add_argument(
      '--budget', type=int, default=60, metavar='SECONDS',
      help='what the peer may spend on a size; default %(default)s')
  arguments = parser.parse_args()
  cases = dict(arguments.cases) if arguments.cases else _BEST
  peer, peer_sizes = {}, ()
  if arguments.peer:
    try:
      version = importlib.import_module(arguments.peer).__version__
    except ImportError:
      parser.error(f"--peer {arguments.peer} is not installed; "
                   "run: pip install -e '.[bench]'")
    peer_sizes = cases if arguments.cases else _PEER_SIZES
    peer = {'peer': {'name': arguments.peer, 'version': version,
                     'budget_seconds': arguments.budget, **_PEER}}
  if arguments.out.is_dir():
    parser.error(f'--out {arguments.out} is a folder; name a file in it')
  arguments.out.parent.mkdir(parents=True, exist_ok=True)
  rows, totals = [], {}
  for row in measure(cases, peer_sizes, arguments.budget):
    rows.append(row)
    totals = summarise(rows)
    # So that a crash loses one row.
    common.write(arguments.out, rows, **peer, totals=totals)
    arguments.out.with_suffix('.md').write_text(markdown(rows))
  print(', '.join(f'{name} {value:.6g}' for name, value in totals.items()))


if __name__ == '__main__':
  main()
