"""The networks in Flax Linen.

Each has a twin of the same name in `psi_optax.models.nnx` with the same
parameter paths, shapes and outputs. All are called as `model(x, train)`.
"""

from psi_optax.models.linen.cnn import CNN
from psi_optax.models.linen.mlp import MLP
from psi_optax.models.linen.resnet import PreActResNet, ResNet
from psi_optax.models.linen.vgg import VGG
from psi_optax.models.linen.vit import ViT

__all__ = ["CNN", "MLP", "VGG", "PreActResNet", "ResNet", "ViT"]
