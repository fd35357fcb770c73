"""Figure 4.12 of Sparsity-Aware Orthogonal Initialization: MLP-Mixer.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_12.py:0.0625 \
        --workdir=runs/figure4_12

Mixer-Nano on CIFAR-10, dense and at a density: `:0.0625` is a sparsity of
93.75 %, the largest legible in the figure, which also has 87.5 %; without it,
12.5 %. The N = 33 layers are depth 8, N = 65 is
`--config.model='mixer_nano(depth=16)'`. Adam, a cosine from 1e-3 to 1e-6 after
5 epochs of warmup, 300 epochs, AutoAugment and CutMix (section 3.5.3.2, table
3.14). Batches of 128, those of the implementation that the thesis names, and 3
runs are ours; its masks are `kind='thesis'`, ours the default.

Thesis: up to 90 % for dense networks; at N = 33 SAO's advantage over LMP-S
grows with sparsity, at N = 65 it is less apparent, and SAO is ahead of RG-S.
One bar at N = 65 is labelled 65.06, of which series cannot be read. Ours: not
run here.
"""

import ml_collections

from experiments.configs import default


def get_config(density: str = '0.125') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = default.get_config()
  config.title = 'SAO, Figure 4.12: Mixer-Nano on CIFAR-10'
  config.dataset = 'cifar10'
  config.model = 'mixer_nano(depth=8)'
  config.optimizer = 'adam(b2=0.99)'
  config.schedule = 'cosine(warmup=5, final=1e-6)'
  config.learning_rate = 1e-3
  config.weight_decay = 5e-4
  config.batch_size = 128
  config.augment = 'autoaugment + cutmix(p=0.5)'
  config.label_smoothing = 0.1
  config.epochs = 300
  config.initializers = (
      'Dense = orthogonal',
      f'SAO = sao(density={density})',
      f'LMP-S = lmp(density={density})',
      f'RG-S = rg(density={density})',
  )
  config.baseline = 'Dense'
  return config
