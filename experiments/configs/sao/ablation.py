"""What of SAO matters: its mask, its values, its topology; on digits.

    python -m experiments.main \
        --config=experiments/configs/sao/ablation.py:tanh \
        --workdir=runs/ablation_tanh

A hundred layers of 64 units at a sixteenth of the weights, ten seeds: SAO with
every topology and with tied values; its mask with other values (RG); other
masks with orthogonal ones (EOI) or what pruning leaves of them (LMP-S, LRP-S);
with tanh, or (`:crelu`) in the form that looks linear at the start. RG-N is
shown as the thesis has it and at the scale that keeps variances, a fair rival.

Ours, final accuracy in percent, tanh and in the form that looks linear:

    SAO            92.61  93.31
    SAO 1          91.44  92.39
    SAO 2          92.19  93.33
    SAO 3          91.75  93.08
    SAO, random    91.81  93.56
    EOI            91.75  92.89
    RG-N, scaled   36.19  10.19
    RG-U, scaled   54.78  10.22
    RG-N, raw       9.64  10.25
    RG-U, raw      17.19  10.14
    RG-S           10.11  10.08
    LMP-S          10.11  10.14
    LRP-S          10.11  10.08
    Dense          18.67  77.89

That the values are orthogonal decides; which exactly orthogonal sparse kernels
they are does not: EOI, on an irregular mask, is as good. The dense network,
which has 16 times the weights, does not keep what it learned at this learning
rate. (`experiments/published/sao/ablation_<activation>/table.md`)
"""

import ml_collections

from experiments.configs.sao import depth


def get_config(activation: str = 'tanh') -> ml_collections.ConfigDict:
  """Returns the config for an activation."""
  config = depth.get_config(activation)
  form = depth.FORMS[activation]
  config.title = f'100 layers of 64 units at degree 4, {activation}'
  config.model = (
      f"deep_mlp(depth=100, widths=(64,), activation='{activation}')")
  config.learning_rate = 1e-3
  config.epochs = 15
  config.seeds = 10
  config.initializers = (
      f'Dense = sao(density=1.0, {form})',
      f'SAO = sao(degree=4, {form})',
      f"SAO, random = sao(degree=4, kind='random', {form})",
      f"SAO 1 = sao(degree=4, kind='thesis', shared=True, {form})",
      f"SAO 2 = sao(degree=4, kind='thesis', shared=True, tied=True, {form})",
      f"SAO 3 = sao(degree=4, kind='thesis', {form})",
      f'EOI = eoi(density=0.0625, {form})',
      f"RG-N, scaled = rg_normal(degree=4, scale='fan_in', {form})",
      f"RG-U, scaled = rg_uniform(degree=4, scale='fan_in', {form})",
      f'RG-N, raw = rg_normal(degree=4, {form})',
      f'RG-U, raw = rg_uniform(degree=4, {form})',
      f'RG-S = rg(degree=4, {form})',
      f'LMP-S = lmp(density=0.0625, {form})',
      f'LRP-S = lrp(density=0.0625, {form})',
  )
  return config
