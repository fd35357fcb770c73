"""Figure 4.10 of Sparsity-Aware Orthogonal Initialization: MLP-N on MNIST.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_10.py:200 \
        --workdir=runs/figure4_10_200

MLP-N with tanh at degree 4, N after the colon, all layers but the last sparse,
weights scaled by 1.1: SAO beside everything it is compared with. SGD with
momentum and a weight decay of 1e-4, 100 epochs, learning rates of table 3.5
(section 3.5.3.1), which the thesis lowers to 1e-5 where nothing trains. Scaled
RG-N and EOI are added: the thesis's RG-N and RG-U are weak by their scale, and
EOI is orthogonal, too. Batches of 128 are ours.

Thesis, without legible numbers: dense and SAO train at every N; GMP, LMP, RG-S
and RG-T at none, for any learning rate; RG-N and RG-U with 1e-5, less well.

Ours: `depth.py`. Singular values at initialization: `experiments.sao_figures`.
"""

import ml_collections

from experiments.configs.sao import table4_2


def get_config(depth: str = '50') -> ml_collections.ConfigDict:
  """Returns the config at a depth."""
  config = table4_2.get_config(depth)
  config.title = f'SAO, Figure 4.10: MLP-{depth} on MNIST'
  config.epochs = 100
  form = table4_2.FORM
  density = 4 / 256
  config.initializers = (
      'Dense = sao(density=1.0, gain=1.1)',
      f'SAO = sao(degree=4, {form})',
      f'RG-S = rg(degree=4, {form})',
      f'RG-T = rg(degree=4, trained=True, {form})',
      f'RG-N = rg_normal(degree=4, {form})',
      f'RG-U = rg_uniform(degree=4, {form})',
      f"RG-N, scaled = rg_normal(degree=4, scale='fan_in', {form})",
      f'EOI = eoi(density={density}, {form})',
      f'LMP-S = lmp(density={density}, {form})',
      f'LMP-T = lmp(density={density}, trained=True, {form})',
      f'GMP-S = gmp(density={density}, {form})',
      f'GMP-T = gmp(density={density}, trained=True, {form})',
  )
  config.baseline = 'Dense'
  return config
