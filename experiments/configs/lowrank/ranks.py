"""What low-rank initialization is worth after training, by rank scale.

    python -m experiments.main \
        --config=experiments/configs/lowrank/ranks.py:weights \
        --workdir=runs/ranks

ResNet-20 on handwritten digits, all convolutions but the first as factors: at
rank scales 0.05 to 0.20, factors drawn as kernels are (baseline), from the SVD
of a kernel (spectral), by Adam on the function from either (LFAI-Adam,
LFAI-WS-Adam), and at its optimum (exact), also with columns of the kernel's
norms, beside the full network. Weight decay is of the factors, or (`:products`)
of their products, Frobenius decay. On other data:

    --config.dataset=cifar10 --config.augment=crop_flip --config.batch_size=128

Ours, final accuracy in percent, weight decay, 3 seeds:

    rank scale           0.05   0.10   0.15   0.20
    baseline            95.09  95.19  95.56  95.74
    spectral            94.81  94.81  94.91  95.46
    LFAI-Adam           94.35  95.09  95.09  94.91
    LFAI-WS-Adam        94.07  95.37  95.19  95.37
    exact               94.81  95.00  94.72  95.09
    exact, norms kept   94.91  95.74  95.74  95.00

and 95.74 with the full network; with Frobenius decay:

    baseline            93.70  95.19  94.72  95.46
    spectral            94.17  94.72  94.91  95.09
    LFAI-Adam           94.07  94.72  94.81  95.00
    LFAI-WS-Adam        95.09  95.56  95.28  94.91
    exact               94.26  94.81  94.81  95.19
    exact, norms kept   94.44  95.93  95.09  95.00

With three seeds their intervals overlap: after batch normalization no way to
begin is better, and neither decay is.
(`experiments/published/lowrank/ranks_weights/table.md`, `ranks_products`)
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
