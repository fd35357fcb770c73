"""Table 4.5 of Sparsity-Aware Orthogonal Initialization: SAO-ECO, CINIC-10.

    python -m experiments.main \
        --config=experiments/configs/sao/table4_5.py:0.03125 \
        --workdir=runs/table4_5

The network of figure 4.16 with SAO-ECO: circular, dilated convolutions, on
images padded from 32x32 to the 36x36 that the thesis gives networks with such
layers (it gives none here). Dense and at a density: `:0.5` (without it, too) or
`:0.03125`. N = 8 here; 16 by another depth in `--config.model`. The last two
convolutions pad with zeros: 3 does not divide what they halve.

Thesis, final accuracy in percent:

    sparsity       N = 8   N = 16
    0  (dense)     79.10    77.85
    50 %           77.92    75.24
    96.875 %       68.45    69.87

Ours: not run here.
"""

import ml_collections

from experiments.configs.sao import figure4_16


def get_config(density: str = '0.5') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = figure4_16.get_config(density)
  config.title = 'SAO, Table 4.5: SAO-ECO on CINIC-10'
  config.model = config.model[:-1] + ', circular=True, pad=2)'
  config.initializers = tuple(
      f"{entry[:-1]}, conv='eco')" for entry in config.initializers[:2])
  return config
