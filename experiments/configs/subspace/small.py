"""A small network against a subspace of a large one, Minut's section 3.3.

    python -m experiments.main \
        --config=experiments/configs/subspace/small.py:network \
        --workdir=runs/small_network
    python -m experiments.main \
        --config=experiments/configs/subspace/small.py:subspace \
        --workdir=runs/small_subspace

`network`: a perceptron 784-10-10 on MNIST, 7,960 parameters, all trained.
`subspace`: the perceptron 784-200-200-10 in as many dimensions, and in the
1,200 at which the report finds the same accuracy. Both train as `dimension.py`
says.

Ours, 10 epochs, 3 seeds, in percent: 89.92 +- 4.49 with the small network, of
whose ten units some are dead, and 96.61 +- 0.27 with as many dimensions of the
large one; 91.90 +- 0.89 with 1,200, and 97.51 +- 0.42 with all parameters. The
report has 91.6 for the small network and reaches that in 1,200 dimensions.
(`experiments/published/subspace/small_network/table.md`, `small_subspace`)
"""

import ml_collections

from experiments.configs.subspace import dimension

DIMS = (1200, 7960)


def get_config(chosen: str = 'network') -> ml_collections.ConfigDict:
  """Returns the config of either side."""
  if chosen not in ('network', 'subspace'):
    raise ValueError(f'{chosen!r} is unknown; use network or subspace')
  config = dimension.get_config('mnist,fc')
  if chosen == 'network':
    config.title = 'A network of 7,960 parameters'
    config.model = 'mlp(widths=(10,))'
  else:
    config.title = 'A subspace of a network of 199,210 parameters'
    config.initializers += tuple(
        f'{dim} dimensions = subspace(dim={dim})' for dim in DIMS)
  return config
