"""The models of the experiments (Flax Linen).

A model's first layer is called `stem` and its last `head`; it sows the output
of every ReLU as `relu`, which is how dead units are counted.
"""

from experiments import registry
from experiments.models.mlp import MLP
from experiments.models.shallow_cnn import ShallowCNN

registry.MODELS['mlp'] = MLP
registry.MODELS['shallow_cnn'] = ShallowCNN

__all__ = ['MLP', 'ShallowCNN']
