"""The networks in Flax NNX.

Each has a twin of the same name in `psi_optax.models.linen` with the same
parameter paths, shapes and outputs. All take the number of features, or of
channels, of their inputs first and are called as `model(x)`. A new model is in
training mode: `model.eval()` switches to the running statistics and
`model.train()` back to those of the batch.
"""

from psi_optax.models.nnx.cnn import CNN
from psi_optax.models.nnx.mlp import MLP
from psi_optax.models.nnx.resnet import PreActResNet, ResNet
from psi_optax.models.nnx.vgg import VGG
from psi_optax.models.nnx.vit import ViT

__all__ = ["CNN", "MLP", "VGG", "PreActResNet", "ResNet", "ViT"]
