"""The demo: ordinary and structured initializers on 8x8 handwritten digits.

    make demo

is

    python -m experiments.main --config=experiments/configs/demo.py \
        --workdir=runs/demo

Four convolutions, 10 seeds each, trained in minutes on two cores. Seeds and
batches are the same for every initializer, so differences are paired.
"""

import ml_collections

from experiments.configs import default


def get_config() -> ml_collections.ConfigDict:
  """Returns the config."""
  config = default.get_config()
  config.title = 'Initializers on handwritten digits'
  config.dataset = 'digits'
  config.batch_size = 32
  config.epochs = 10
  config.seeds = 10
  config.initializers = (
      'he_normal',
      'glorot_normal',
      'lecun_normal',
      'orthogonal',
      'orthogonal, ReLU gain = orthogonal(scale=1.4142135623730951)',
      "orthogonal, first layer = orthogonal(where='stem')",
      'delta_orthogonal',
      'normal(1e-3) = normal(stddev=0.001)',
      'grassmann',
      'grassmann, frozen = grassmann(freeze=True)',
      "grassmann, Kaiming-scaled = grassmann(scale='kaiming')",
      "grassmann, filters = grassmann(layout='filters')",
      "tight frame, filters = tight_frame(layout='filters')",
      'simplex head = simplex_head',
      'simplex head, frozen = simplex_head(freeze=True)',
      'SAO-Delta, 25 % = sao(density=0.25, gain=1.4142135623730951)',
      'EOI, 25 % = eoi(density=0.25, gain=1.4142135623730951)',
      'LMP-S, 25 % = lmp(density=0.25, gain=1.4142135623730951)',
      *(f"rank 10 %, {label} = lfai({options}, rank_scale=0.1, "
        "body='he_normal')" for label, options in (
            ('drawn', "method='baseline'"),
            ('SVD', "method='spectral'"),
            ('exact', "method='exact'"),
            ('exact, norms kept', "norms='kept'"))),
      *(f'1000 {label} = subspace(dim=1000, projection={kind!r}, '
        "column_norm=4.0, body='he_normal')" for label, kind in (
            ('dimensions', 'hadamard'), ('of the weights', 'identity'))),
      'LSUV = lsuv',
      'k-means, whitened = kmeans(patches=4096)',
      "k-means, joint, 100 steps = kmeans(method='joint', steps=100)",
  )
  config.baseline = 'he_normal'
  return config
