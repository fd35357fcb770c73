"""Figure 3 of Joint K-Means Weight Initialization: filters before training.

    python -m experiments.main \
        --config=experiments/configs/kmeans/figure3.py --workdir=runs/figure3

The first layer's 11x11 filters, made by k-means alone: as the paper has it,
without the penalty; with it; and by this library's methods. The report shows
them before and after one epoch of training; the run of table 2 has them after
all of it (figure 2). Ours: not run here.
"""

import ml_collections

from experiments.configs.kmeans import table2


def get_config() -> ml_collections.ConfigDict:
  """Returns the config."""
  config = table2.get_config('sgd')
  config.title = 'Joint k-means, Figure 3: filters of the first layer'
  config.epochs = 1
  config.schedule = 'constant'
  config.seeds = 1
  config.initializers = (
      'He = he_normal',
      "joint, no penalty = "
      f"kmeans(method='joint', penalty=0.0, {table2.SELECT})",
      f"joint = kmeans(method='joint', {table2.SELECT})",
      f"whitened = kmeans(method='whitened', {table2.SELECT})",
  )
  return config
