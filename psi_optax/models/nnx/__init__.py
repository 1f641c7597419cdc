"""Networks and normalization layers in Flax NNX.

Each has a twin of the same name in `psi_optax.models.linen` with the same
parameter paths, shapes and outputs, which describes its layers and its scale
groups. The constructors take the number of input features or channels first
(the Transformer does not), then the arguments of the twin, and random keys, of
which they use the stream `params`.

Networks are called as `model(x)` and return logits of shape
`(batch, num_classes)`, the Transformer `(batch, length, vocabulary)`. A new
model is in training mode: batch normalization uses the statistics of the batch,
and updates the running statistics. `model.eval()` switches to the running
statistics and `model.train()` back.

`GroupBatchNorm` and `WhitenedBatchNorm` are layers, called as `layer(x)`, with
the same modes.
"""

from psi_optax.models.nnx.cnn import CNN
from psi_optax.models.nnx.group_batch_norm import GroupBatchNorm
from psi_optax.models.nnx.mlp import MLP
from psi_optax.models.nnx.resnet import PreActResNet, ResNet
from psi_optax.models.nnx.transformer import Transformer
from psi_optax.models.nnx.vgg import VGG
from psi_optax.models.nnx.vit import ViT
from psi_optax.models.nnx.whitened_batch_norm import WhitenedBatchNorm

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
