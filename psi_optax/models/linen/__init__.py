"""Networks and normalization layers in Flax Linen.

Each has a twin of the same name in `psi_optax.models.nnx` with the same
parameter paths, shapes and outputs.

Networks are called as `model(x, train)` and return logits of shape
`(batch, num_classes)`, the Transformer `(batch, length, vocabulary)`. With
`train` batch normalization uses the statistics of the batch, and updates the
running statistics if `batch_stats` is mutable. Otherwise it uses the running
statistics.

`GroupBatchNorm` and `WhitenedBatchNorm` are layers, called as `layer(x)`. Like
Flax's `BatchNorm` they take `use_running_average`.
"""

from psi_optax.models.linen.cnn import CNN
from psi_optax.models.linen.group_batch_norm import GroupBatchNorm
from psi_optax.models.linen.mlp import MLP
from psi_optax.models.linen.resnet import PreActResNet, ResNet
from psi_optax.models.linen.transformer import Transformer
from psi_optax.models.linen.vgg import VGG
from psi_optax.models.linen.vit import ViT
from psi_optax.models.linen.whitened_batch_norm import WhitenedBatchNorm

__all__ = [
    "CNN",
    "MLP",
    "VGG",
    "GroupBatchNorm",
    "PreActResNet",
    "ResNet",
    "Transformer",
    "ViT",
    "WhitenedBatchNorm",
]
