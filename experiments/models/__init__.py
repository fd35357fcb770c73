"""The models of the experiments (Flax Linen).

A model's first layer is called `stem` and its last `head`; it sows the output
of every ReLU as `relu`, which is how dead units are counted. A model that
behaves differently in training takes `train`. Equal layers that repeat are one
stack, `hidden`, whose leaves have a first axis of layers; it does not sow.
"""

from experiments import registry
from experiments.models import efficientnet
from experiments.models.conv8 import Conv8
from experiments.models.deep_mlp import DeepMLP
from experiments.models.efficientnet import EfficientNet
from experiments.models.lenet import LeNet
from experiments.models.lipconvnet import LipConvNet
from experiments.models.mixer import MixerNano
from experiments.models.mixer import ResMLP
from experiments.models.mlp import MLP
from experiments.models.resnet import ResNet
from experiments.models.resnet import resnet18
from experiments.models.resnet import resnet50
from experiments.models.resnet import resnet_cifar
from experiments.models.shallow_cnn import ShallowCNN
from experiments.models.vanilla_cnn import VanillaCNN
from experiments.models.vgg import VGG16

registry.MODELS['conv8'] = Conv8
registry.MODELS['deep_mlp'] = DeepMLP
registry.MODELS['efficientnet'] = efficientnet.efficientnet
registry.MODELS['lenet'] = LeNet
registry.MODELS['lipconvnet'] = LipConvNet
registry.MODELS['mixer_nano'] = MixerNano
registry.MODELS['mlp'] = MLP
registry.MODELS['resmlp'] = ResMLP
registry.MODELS['resnet'] = ResNet
registry.MODELS['resnet18'] = resnet18
registry.MODELS['resnet50'] = resnet50
registry.MODELS['resnet56'] = resnet_cifar
registry.MODELS['resnet_cifar'] = resnet_cifar
registry.MODELS['shallow_cnn'] = ShallowCNN
registry.MODELS['vanilla_cnn'] = VanillaCNN
registry.MODELS['vgg16'] = VGG16

__all__ = [
    'MLP', 'VGG16', 'Conv8', 'DeepMLP', 'EfficientNet', 'LeNet', 'LipConvNet',
    'MixerNano', 'ResMLP', 'ResNet', 'ShallowCNN', 'VanillaCNN', 'resnet18',
    'resnet50', 'resnet_cifar',
]
