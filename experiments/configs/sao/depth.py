"""A thousand sparse layers: who trains.

    python -m experiments.main --config=experiments/configs/sao/depth.py:tanh \
        --workdir=runs/depth_tanh

1,000 layers of 256 units at degree 4, 98.4 % sparse: SAO and its rivals, with
tanh, or (`:crelu`) in the form that looks linear at the start. On MNIST:

    --config.dataset=mnist --config.batch_size=256 --config.epochs=1

10,000 layers of 64 units are `depth_10000.py`.

Ours, on digits after 3 epochs, accuracy in percent, mean of 3 seeds with tanh,
one seed (`--config.seeds=1`) in the form that looks linear:

    SAO           91.57      89.72
    EOI           91.20      92.50
    Dense         11.76      58.61
    RG-N, scaled  10.28      10.00
    RG-N, raw     diverged   diverged
    RG-S          10.19      10.00
    LMP-S         10.19      10.00
    LRP-S         10.19      10.00

The dense network has 64 times the weights, and a step at this learning rate is
too large for it: with tanh and `--config.learning_rate=1e-5` it reaches 93.06,
SAO 80.56, EOI 83.61, and the others do not train, one seed each.
(`experiments/published/sao/depth_<activation>/table.md`, `depth_tanh_1e-5`)

On MNIST after one epoch, one seed, four of them: SAO 92.94 with tanh and 95.98
in the form that looks linear, LMP-S and LRP-S 11.35 in both, and RG-N, raw,
diverges. (`experiments/published/sao/depth_mnist_<activation>/table.md`)
"""

import ml_collections

from experiments.configs import default

# tanh takes a gain a little above 1; see figure4_10 of sao_figures.
FORMS = {'tanh': 'gain=1.02', 'crelu': 'looks_linear=True'}


def get_config(activation: str = 'tanh') -> ml_collections.ConfigDict:
  """Returns the config for an activation."""
  if activation not in FORMS:
    raise ValueError(
        f'activation {activation!r} is unknown; use {" or ".join(FORMS)}')
  form = FORMS[activation]
  config = default.get_config()
  config.title = f'1,000 layers of 256 units at degree 4, {activation}'
  config.dataset = 'digits'
  config.model = (
      f"deep_mlp(depth=1000, widths=(256,), activation='{activation}')")
  config.optimizer = 'adam'
  config.learning_rate = 1e-4
  config.epochs = 3
  config.initializers = (
      f'Dense = sao(density=1.0, {form})',
      f'SAO = sao(degree=4, {form})',
      f'EOI = eoi(density=0.015625, {form})',
      f"RG-N, scaled = rg_normal(degree=4, scale='fan_in', {form})",
      f'RG-N, raw = rg_normal(degree=4, {form})',
      f'RG-S = rg(degree=4, {form})',
      f'LMP-S = lmp(density=0.015625, {form})',
      f'LRP-S = lrp(density=0.015625, {form})',
  )
  config.baseline = 'SAO'
  return config
