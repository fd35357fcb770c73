"""What low-rank initialization is worth after training, by rank scale.

    python -m experiments.main \
        --config=experiments/configs/lowrank/ranks.py:weights \
        --workdir=runs/ranks

ResNet-20 on handwritten digits, all layers but the first and the last as
factors: at rank scales 0.05 to 0.20, factors drawn as kernels are (baseline),
from the SVD of a kernel (spectral), by Adam on the function from either
(LFAI-Adam, LFAI-WS-Adam), and at its optimum (exact), also with columns of the
kernel's norms, beside the full network. Weight decay is of the factors, or
(`:products`) of their products, Frobenius decay. `:weights,mnist` is a
perceptron of three times 256 units on MNIST, `:weights,cifar10` the demo's
network on the first 5,000 images of CIFAR-10, both without batch normalization.

Ours, ResNet-20, final accuracy in percent, weight decay, 3 seeds:

    rank scale           0.05   0.10   0.15   0.20
    baseline            94.72  95.09  95.19  95.46
    spectral            93.89  94.54  95.28  95.46
    LFAI-Adam           94.44  94.44  95.37  94.44
    LFAI-WS-Adam        94.07  95.28  94.81  96.11
    exact               95.00  95.83  95.00  95.09
    exact, norms kept   94.63  95.09  95.19  95.28

and 94.81 with the full network; with Frobenius decay:

    baseline            93.24  95.00  95.19  95.65
    spectral            94.26  94.91  95.09  95.00
    LFAI-Adam           94.63  94.81  95.46  95.28
    LFAI-WS-Adam        94.54  95.19  95.28  95.19
    exact               95.00  94.72  94.72  95.83
    exact, norms kept   93.61  95.93  94.44  95.56

With three seeds nearly all intervals overlap, and what stands out at one rank
does not at the next: after batch normalization no way to begin is better, and
neither decay is. The perceptron on MNIST, two epochs, weight decay:

    baseline            97.50  97.71  97.66  97.81
    spectral            97.57  97.66  97.66  97.80
    LFAI-Adam           97.60  97.76  97.71  97.77
    LFAI-WS-Adam        97.66  97.72  97.75  97.81
    exact               97.67  97.72  97.69  97.81
    exact, norms kept   97.73  97.79  97.77  97.86

and 97.82 with the full network: two layers of few hundred units hardly matter.
Four convolutions on CIFAR-10, three epochs:

    baseline            44.97  45.62  45.92  46.06
    spectral            34.77  38.53  41.93  43.20
    LFAI-Adam           40.12  42.97  43.29  43.98
    LFAI-WS-Adam        40.17  41.51  43.06  43.86
    exact               39.31  41.46  43.28  44.05
    exact, norms kept   44.41  45.54  45.95  46.38

and 46.91. Here the start does matter: the SVD is the worst, and the function's
approximations gain a third to a half of what it loses at the two lower ranks, a
fifth to a quarter at the higher ones. Most of the rest is the scale of the
outputs, which the factors closest to the function shrink: factors of full
scale, drawn or with the kernel's norms, are the best, and equally good. On both
sets Frobenius decay changes no accuracy by more than 0.25.
(`experiments/published/lowrank/ranks_weights/table.md`, `ranks_products`, the
same with `_mnist` and `_cifar10`)
"""

import ml_collections

from experiments.configs import default

DECAYS = {'weights': 'weight_decay', 'products': 'frobenius_decay'}
METHODS = {
    'baseline': "method='baseline'",
    'spectral': "method='spectral'",
    'LFAI-Adam': "method='adam', steps=300, batch=256",
    'LFAI-WS-Adam': "method='adam_warm', steps=300, batch=256",
    'exact': "method='exact'",
    'exact, norms kept': "method='exact', norms='kept'",
}


DATASETS = {
    'digits': {'model': 'resnet_cifar(depth=20)', 'learning_rate': 0.1,
               'epochs': 8},
    'mnist': {'model': 'mlp(widths=(256, 256, 256))', 'learning_rate': 0.05,
              'batch_size': 128, 'epochs': 2},
    'cifar10': {'model': 'shallow_cnn', 'learning_rate': 0.02, 'epochs': 3,
                'train_size': 5000},
}


def get_config(chosen: str = 'weights,digits') -> ml_collections.ConfigDict:
  """Returns the config of a decay, and a data set if not digits."""
  decay, _, dataset = chosen.partition(',')
  dataset = dataset or 'digits'
  if decay not in DECAYS or dataset not in DATASETS:
    raise ValueError(
        f'{chosen!r} is unknown; use DECAY or DECAY,DATASET with a decay of '
        f'{", ".join(DECAYS)} and a data set of {", ".join(DATASETS)}')
  config = default.get_config()
  config.title = f'Low-rank networks on {dataset}, decay of the {decay}'
  config.dataset = dataset
  config.update(DATASETS[dataset])
  config[DECAYS[decay]] = 5e-4
  config.schedule = 'cosine(warmup=1)'
  config.initializers = ('full = lecun_normal', *(
      f'{name}, {scale} = lfai({options}, rank_scale={scale})'
      for scale in ('0.05', '0.10', '0.15', '0.20')
      for name, options in METHODS.items()))
  config.baseline = 'full'
  return config
