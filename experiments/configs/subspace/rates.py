"""Which learning rate a subspace needs, by optimizer, on MNIST.

    python -m experiments.main \
        --config=experiments/configs/subspace/rates.py:sgd --workdir=runs/rates

The perceptron 784-200-200-10 in 750 dimensions (`:adam` likewise): with columns
of norm c SGD's learning rate counts c^2 fold and Adam's c fold, so the
initializers of a run are learning rates, by the direct one's.

Ours, three epochs, 3 seeds: SGD (0.1) reaches 97.05 % directly, and 81.66,
87.75, 89.54 and 89.51 % at 0.3, 1, 3 and 10 times the rate; Adam (0.001)
97.19 %, and 77.85, 86.14, 88.93, 89.68 and 88.65 % at 1, 3, 10, 30 and 100
times it. So in a subspace SGD takes several times the ordinary rate and Adam
tens of times; then neither is better.
(`experiments/published/subspace/rates_sgd/table.md`, `rates_adam`)
"""

import ml_collections

from experiments.configs.subspace import dimension

RATES = {'sgd': ('sgd(momentum=0.9)', 0.1, (0.3, 1, 3, 10)),
         'adam': ('adam', 0.001, (1, 3, 10, 30, 100))}


def get_config(optimizer: str = 'sgd') -> ml_collections.ConfigDict:
  """Returns the config of an optimizer."""
  if optimizer not in RATES:
    raise ValueError(f'{optimizer!r} is unknown; use {", ".join(RATES)}')
  config = dimension.get_config('mnist,fc')
  config.title = f'Learning rates in 750 dimensions, {optimizer}'
  config.optimizer, config.learning_rate, factors = RATES[optimizer]
  config.epochs = 3
  config.initializers = ('direct = lecun_normal', *(
      f'learning rate times {factor} = subspace(dim=750, column_norm='
      f'{factor**0.5 if optimizer == "sgd" else float(factor)!r})'
      for factor in factors))
  return config
