"""Figure 4.14 of Sparsity-Aware Orthogonal Initialization: deep tanh CNNs.

    python -m experiments.main \
        --config=experiments/configs/sao/figure4_14.py:0.5 \
        --workdir=runs/figure4_14

Vanilla CNN with tanh on CIFAR-10, dense and at a density: `:0.5`, or 12.5 %
without it. N = 128, W = 32 here; the legible others are N = 32, W = 256; N =
128, W = 128; and N = 512, W = 32:

    --config.model="vanilla_cnn(depth=512, width=32, activation='tanh')"
    --config.learning_rate=1e-4 --config.schedule='cosine(warmup=10)'

The learning rate is 1e-2 for N = 32, 1e-3 for 128 and 256, 1e-4 for more (table
3.8), divided by 10 at epochs 50 and 150; from N = 512 a cosine after 10 epochs
of warmup. 200 epochs; what is -T is pruned then, and trained for 200 more.
Batches of 128, shifts and mirrors, and 3 runs are ours, as the thesis gives
none; its masks are `kind='thesis'`, ours the default.

Thesis, section 4.4.1.1, without legible numbers: only SAO remains trainable in
all but one case at the highest sparsity of a width, and from 256 layers on at
50 %. Ours: not run here.
"""

import ml_collections

from experiments.configs import default


def get_config(density: str = '0.125') -> ml_collections.ConfigDict:
  """Returns the config at a density."""
  config = default.get_config()
  config.title = 'SAO, Figure 4.14: vanilla CNN (tanh) on CIFAR-10'
  config.dataset = 'cifar10'
  config.model = "vanilla_cnn(depth=128, width=32, activation='tanh')"
  config.schedule = 'multistep(at=(50, 150), factor=0.1)'
  config.learning_rate = 1e-3
  config.weight_decay = 1e-4
  config.batch_size = 128
  config.augment = 'crop_flip'
  config.epochs = 200
  config.initializers = (
      'Dense = sao(density=1.0)',
      f'SAO = sao(density={density})',
      f'LMP-S = lmp(density={density})',
      f'LMP-T = lmp(density={density}, trained=True)',
      f'RG-S = rg(density={density})',
  )
  config.baseline = 'Dense'
  return config
