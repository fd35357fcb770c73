r"""Finds the intrinsic dimension: how few coordinates train well enough.

    python -m experiments.intrinsic_dimension \
        --config=experiments/configs/subspace/dimension.py:mnist,fc \
        --workdir=runs/mnist_fc

d90 is the least d at which training in a random subspace of d dimensions
reaches 90 % (`--share`) of the test accuracy of the config's baseline, both at
the end and averaged over the config's seeds. It is bisected on a logarithmic
grid. A seed also crosses at a d of its own, linear in log d between the
dimensions that were tried, and if all seeds do, these have an interval.

Results are appended as they come, so a rerun resumes; `dimension.json`, `.md`
and `.png` are written beside them.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import json
import math
import pathlib
import statistics
from typing import Any

from absl import app
from absl import flags
from absl import logging
import numpy as np

from experiments import figures
from experiments import summary
from experiments import sweep
from experiments import tables
import experiments.main as _main  # defines --config and --workdir

del _main

__all__ = ['bisect', 'crossing', 'ends', 'find', 'grid']

_SHARE = flags.DEFINE_float(
    'share', 0.9, "Of the baseline's accuracy.", lower_bound=0, upper_bound=1)
_RANGE = flags.DEFINE_list(
    'range', ['10', '10000'], 'The least and the most dimensions to try.')
_PER_DECADE = flags.DEFINE_integer(
    'per_decade', 24, 'Dimensions on the grid, from d to 10 d.', lower_bound=1)
_OPTIONS = flags.DEFINE_string(
    'options', '', 'Further options of the initializer `subspace`, such as '
    "\"projection='sparse', column_norm=30.0\".")


def ends(values: Sequence[str]) -> tuple[int, int]:
  """Returns the ends of a range, from its parts as text."""
  try:
    least, most = map(int, values)
  except ValueError:
    raise ValueError(
        f'--range={",".join(values)} must be two dimensions, the least and the '
        'most, such as 10,10000') from None
  return least, most


def grid(least: int, most: int, per_decade: int) -> list[int]:
  """Returns dimensions from `least` to `most`, equally far apart in log d."""
  if not 1 <= least < most:
    raise ValueError(
        f'range {least},{most}: the least dimension must be at least 1 and '
        'below the most')
  steps = math.ceil(per_decade * math.log10(most / least))
  return sorted({round(least * (most / least)**(i / steps))
                 for i in range(steps + 1)})


def bisect(
    reaches: Callable[[int], bool], dims: Sequence[int]) -> int | None:
  """Returns the least of ascending dimensions that reaches, or None.

  `reaches` is taken to be monotone, and called for few dimensions: first for
  the last.
  """
  if not reaches(dims[-1]):
    return None
  low, high = -1, len(dims) - 1
  while high - low > 1:
    middle = (low + high) // 2
    if reaches(dims[middle]):
      high = middle
    else:
      low = middle
  return dims[high]


def crossing(points: Mapping[int, float], threshold: float) -> float | None:
  """Returns where accuracy reaches the threshold, linear in log d.

  Args:
    points: accuracy by dimension.
    threshold: of the accuracy.

  Returns:
    The dimension, between the last that is below and the next; None if none
    is below, or no larger one is at least there.
  """
  dims = sorted(points)
  below = [d for d in dims if points[d] < threshold]
  if not below or below[-1] == dims[-1]:
    return None
  d0, d1 = below[-1], dims[dims.index(below[-1]) + 1]
  part = (threshold - points[d0]) / (points[d1] - points[d0])
  return math.exp(math.log(d0) + part * math.log(d1 / d0))


def find(
    config: Any, workdir: pathlib.Path, dims: Sequence[int], share: float,
    options: str = '',
) -> dict[str, Any]:
  """Trains what the search asks for.

  Args:
    config: with the baseline as its only initializer.
    workdir: where results are kept.
    dims: ascending dimensions to search among.
    share: of the baseline's accuracy.
    options: further options of the subspace.

  Returns:
    'dimension', the least on the grid, or None; 'crossings' of the seeds, None
    of one that does not cross where it was tried; 'crossing' and 'interval',
    their mean and its 95 % interval, both in log d, None unless all cross;
    'threshold', 'baseline' (accuracies in percent) and 'tried', a row a
    dimension.

  Raises:
    ValueError: for a config that makes no sense.
  """
  extra = f', {options}' if options else ''

  def measure(entry: str, label: str) -> list[float]:
    with config.unlocked():
      config.initializers = (*baseline_entry, *(
          () if entry in baseline_entry else (entry,)))
    records = [r for r in sweep.compare(config, workdir)
               if r['initializer'] == label]
    return [100 * r['final_accuracy']
            for r in sorted(records, key=lambda r: r['seed'])]

  baseline_entry = tuple(config.initializers)
  baselines = measure(baseline_entry[0], config.baseline)
  threshold = share * statistics.mean(baselines)
  accuracies: dict[int, list[float]] = {}

  def reaches(dim: int) -> bool:
    accuracies[dim] = measure(
        f'{dim} dimensions = subspace(dim={dim}{extra})', f'{dim} dimensions')
    return statistics.mean(accuracies[dim]) >= threshold

  found = bisect(reaches, dims)
  tried = sorted(accuracies)
  crossings = [
      crossing({d: accuracies[d][i] for d in tried}, share * baseline)
      for i, baseline in enumerate(baselines)]
  # Those that do not cross lie beyond the others: a mean without them is off.
  known = [math.log(d) for d in crossings if d is not None]
  mean, half = summary.interval(
      known if len(known) == len(crossings) else [])
  return {
      'dimension': found, 'share': share, 'threshold': threshold,
      'baseline': statistics.mean(baselines),
      'crossing': _exp(mean), 'interval': [_exp(mean - half),
                                           _exp(mean + half)],
      'crossings': crossings,
      'tried': [{'d': d, 'accuracy %': statistics.mean(accuracies[d]),
                 '± %': summary.interval(accuracies[d])[1],
                 'of the baseline %': 100 * statistics.mean(accuracies[d])
                                      / statistics.mean(baselines)}
                for d in tried]}


def _exp(value: float) -> float | None:
  return float(np.exp(value)) if math.isfinite(value) else None


def main(argv: Sequence[str]) -> None:
  """Searches and writes the result."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
  workdir = pathlib.Path(flags.FLAGS.workdir or '.')  # the flag is required
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)
  try:
    least, most = ends(_RANGE.value)
    dims = grid(least, most, _PER_DECADE.value)
    found = find(
        flags.FLAGS.config, workdir, dims, _SHARE.value, _OPTIONS.value)
  except ValueError as error:
    raise SystemExit(f'error: {error}') from error
  path = workdir / 'dimension'
  path.with_suffix('.json').write_text(json.dumps(found, indent=1) + '\n')
  path.with_suffix('.md').write_text(tables.markdown(found['tried']))
  path.with_suffix('.png').write_bytes(figures.dimension_plot(found))
  if found['dimension'] is None:
    print(f'{most} dimensions do not reach {found["threshold"]:.2f} %')
  else:
    low, high = found['interval']
    crossings = found['crossings']
    if found['crossing'] is None:
      crossed = sum(d is not None for d in crossings)
      shown = f'{crossed} of {len(crossings)} seeds cross where they were tried'
    else:
      shown = f'seeds cross at {found["crossing"]:.0f}'
    shown += f', 95 % interval {low:.0f} to {high:.0f}' if low else ''
    print(f'{found["dimension"]} dimensions reach {found["threshold"]:.2f} %, '
          f'{found["share"]:.0%} of {found["baseline"]:.2f} %; {shown}')
  print(path.with_suffix('.png'))


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main)
