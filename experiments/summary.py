"""Aggregates runs over seeds: means, intervals, paired differences."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np
import scipy.stats

from experiments import registry

__all__ = ['Row', 'by_initializer', 'interval', 'summarise']

_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the table: an initializer, over its seeds.

  Accuracies are in percent. A pair is `(mean, half width)` of the 95 %
  confidence interval of the mean (Student's t); the half width is NaN for
  fewer than two seeds.

  Attributes:
    label: the initializer.
    runs: number of runs.
    diverged: how many of them met a loss that is not finite; accuracies and
      differences are over the others.
    first: test accuracy after the first epoch.
    first_difference: to the baseline, paired by seed; None for the baseline.
    final: test accuracy after the last epoch.
    final_difference: to the baseline, paired by seed.
    dead: ReLU units silent on the whole test set, at the end, in percent.
    near_zero: first-layer filters nearly zero, at the end, in percent.
    distance: mean pairwise chordal distance of first-layer filters,
      initial and final.
    coherence: largest |cosine| of two first-layer filters, initial and final.
    seconds: training time of one seed (all are trained together), without
      compilation.
    paper: published first-epoch accuracy, if any.
  """

  label: str
  runs: int
  diverged: int
  first: tuple[float, float]
  first_difference: tuple[float, float] | None
  final: tuple[float, float]
  final_difference: tuple[float, float] | None
  dead: float
  near_zero: float
  distance: tuple[float, float]
  coherence: tuple[float, float]
  seconds: float
  paper: float | None


def interval(values: Sequence[float]) -> tuple[float, float]:
  """Returns the mean and the half width of its 95 % confidence interval.

  Args:
    values: independent measurements.

  Returns:
    `(mean, half width)`, by Student's t; NaN where there are too few values.
  """
  n = len(values)
  if not n:
    return math.nan, math.nan
  mean = float(np.mean(values))
  if n < 2:
    return mean, math.nan
  error = float(np.std(values, ddof=1)) / math.sqrt(n)
  return mean, error * float(scipy.stats.t.ppf((1 + _CONFIDENCE) / 2, n - 1))


def _mean(values: Sequence[float | None]) -> float:
  known = [value for value in values if value is not None]
  return float(np.mean(known)) if known else math.nan


def by_initializer(
    records: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> dict[str, list[Mapping[str, Any]]]:
  """Groups records by initializer.

  Args:
    records: of one run directory.
    config: its config, for the order; others come last.

  Returns:
    Records by label.
  """
  groups: dict[str, list[Mapping[str, Any]]] = {}
  for record in records:
    groups.setdefault(record['initializer'], []).append(record)
  order = [registry.split_label(entry)[0]
           for entry in config.get('initializers', ())]
  return dict(sorted(groups.items(), key=lambda item: (
      order.index(item[0]) if item[0] in order else len(order))))


def summarise(
    records: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> list[Row]:
  """Aggregates records over seeds.

  Args:
    records: of one run directory.
    config: its config: the baseline, the order, the published values.

  Returns:
    One row an initializer, in the config's order.
  """
  groups = by_initializer(records, config)
  paper = {(d, label): value for d, label, value in config.get('paper', ())}
  healthy = {label: {r['seed']: r for r in group if r['status'] == 'ok'}
             for label, group in groups.items()}
  base = healthy.get(config.get('baseline', ''), {})
  rows = []
  for label, group in groups.items():
    own = healthy[label]

    def accuracy(name: str, own: Any = own) -> tuple[float, float]:
      return interval([100 * r[name] for r in own.values()])

    def difference(
        name: str, own: Any = own, label: str = label
    ) -> tuple[float, float] | None:
      if label == config.get('baseline') or not base:
        return None
      return interval([100 * (own[seed][name] - base[seed][name])
                        for seed in sorted(own.keys() & base.keys())])

    def kernels(name: str, group: Any = group) -> tuple[float, float]:
      first, last = (_mean([r['kernels'][when][name] for r in group])
                     for when in ('initial', 'final'))
      return first, last

    rows.append(Row(
        label=label, runs=len(group), diverged=len(group) - len(own),
        first=accuracy('first_epoch_accuracy'),
        first_difference=difference('first_epoch_accuracy'),
        final=accuracy('final_accuracy'),
        final_difference=difference('final_accuracy'),
        dead=_mean([100 * r['curves']['dead_units'][-1]
                    / max(r['num_units'], 1) for r in group]),
        near_zero=_mean([100 * r['kernels']['final']['near_zero']
                         / max(r['kernels']['final']['filters'], 1)
                         for r in group]),
        distance=kernels('chordal_distance'), coherence=kernels('coherence'),
        seconds=_mean([r['seconds'] for r in group]),
        paper=paper.get((config.get('dataset'), label))))
  return rows
