"""Figure 2 of Vodrahalli et al. (2022), of a run: excess against accuracy.

    python -m experiments.lowrank_figures runs/lowrank_figure2

Of every low-rank initializer of a run, the mean multiplicative excess of the
objective, `L / min L - 1`, over layers and seeds; the least is that of all
initializers of the run for the same kernel. It is computed from the starts,
which the seeds make again. FOLDER/figure2.json, .md and .png are written.
"""

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import json
import pathlib
import statistics
from typing import Any

import ml_collections

from experiments import data
from experiments import figures
from experiments import initializers
from experiments import results
from experiments import summary
from experiments import tables
from experiments import train
import structinit_jax as si

__all__ = ['excesses', 'main', 'rows']


def excesses(
    recipes: Mapping[str, initializers.Recipe], shapes: Any, seed: int,
    activation: str = 'relu',
) -> dict[str, float]:
  """Returns the mean excess over the layers, of every recipe.

  Args:
    recipes: by label; those without factors are left out.
    shapes: of the parameters of the full model.
    seed: of the run.
    activation: that follows the layers.

  Returns:
    Excesses by label; 0 is the least.

  Raises:
    ValueError: if the recipes do not factorise the same kernels.
  """
  found: dict[str, dict[str, float]] = {}
  drawn: dict[str, Any] = {}
  for label, recipe in recipes.items():
    if recipe.factors is None:
      continue
    low = recipe.shapes(shapes)
    init_fn, _ = recipe.build(low)
    params, aux = init_fn.init_with_aux(train.key_of_seed(seed), low)
    for name, kernel in aux['kernels'].items():
      if (abs(drawn.setdefault(name, kernel) - kernel) > 0).any():
        raise ValueError(
            f'initializer {label!r} starts from another {name}/kernel than '
            'those before it: give all the same body')
    found[label] = {name: float(value) for name, value in
                    si.lowrank.layer_objectives(
                        aux['kernels'], params, activation=activation).items()}
  least = {name: min(layers[name] for layers in found.values())
           for name in drawn}
  return {label: statistics.mean(layers[name] / least[name] - 1
                                 for name in drawn)
          for label, layers in found.items()}


def rows(folder: pathlib.Path, activation: str) -> list[dict[str, Any]]:
  """Returns a line an initializer: its excess, its accuracies, their 95 %."""
  fields = results.read_config(folder)
  records = results.of_config(results.read_records(folder), fields)
  config = ml_collections.ConfigDict(fields)
  dataset = data.of_config(config)
  shapes = train.Trainer(config, dataset).shapes
  recipes = dict(initializers.make(entry) for entry in config.initializers)
  by_seed = {seed: excesses(recipes, shapes, seed, activation)
             for seed in sorted({record['seed'] for record in records})}
  found = []
  for label in recipes:
    own = [record for record in records
           if record['initializer'] == label and record['status'] == 'ok']
    if not own or label not in next(iter(by_seed.values())):
      continue
    row = {'initializer': label, 'runs': len(own),
           'excess %': 100 * statistics.mean(
               by_seed[record['seed']][label] for record in own)}
    for name in ('first epoch', 'final'):
      row[f'{name} %'], row[f'{name} ± %'] = summary.interval([
          100 * record[f'{name.replace(" ", "_")}_accuracy'] for record in own])
    found.append(row)
  if not found:
    raise ValueError(f'{folder} has no finished run of low-rank initializers')
  return found


def main(argv: Sequence[str] | None = None) -> None:
  """Writes the table and the picture into the run's folder."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument('folder', type=pathlib.Path, help='of the run')
  parser.add_argument('--activation', default='relu',
                      help='that follows the layers; default %(default)s')
  arguments = parser.parse_args(argv)
  try:
    found = rows(arguments.folder, arguments.activation)
  except ValueError as error:
    raise SystemExit(f'error: {error}') from error
  path = arguments.folder / 'figure2'
  path.with_suffix('.json').write_text(json.dumps(found, indent=1) + '\n')
  path.with_suffix('.md').write_text(tables.markdown(found))
  path.with_suffix('.png').write_bytes(figures.excess_plot(found))
  print(path.with_suffix('.md'))


if __name__ == '__main__':
  main()
