"""Layers of networks with batch normalization, in Linen."""

import dataclasses

import jax
from flax import linen as nn

from psi_optax.models.architectures import ConvolutionArchitecture
from psi_optax.models.functions import head_input
from psi_optax.models.options import BatchNormOptions, conv_options

__all__ = ["BatchNormNetwork", "Layers", "NormedConv", "head"]


class BatchNormNetwork(nn.Module, BatchNormOptions):
    """Base class of networks with batch normalization.

    See `psi_optax.models.options.BatchNormOptions` for its attributes.
    """

    def layers(self, train: bool) -> "Layers":
        """Return the factory of the layers, in training mode or not."""
        return Layers(train=train, **self.keywords())


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class Layers(BatchNormOptions):
    """Factory of the layers of one network, for use in compact methods.

    Attributes:
        train: True to normalize by the statistics of the batch.
    """

    train: bool

    def norm(self, name: str) -> nn.BatchNorm:
        """Return a batch normalization."""
        return nn.BatchNorm(
            use_running_average=not self.train, name=name, **self.norm_options()
        )

    def conv(self, convolution: ConvolutionArchitecture, name: str) -> nn.Conv:
        """Return a convolution without bias."""
        options = conv_options(convolution, self.dtype)
        return nn.Conv(convolution.width, name=name, **options)


class NormedConv(nn.Module):
    """A convolution, `conv`, followed by a batch normalization, `norm`."""

    convolution: ConvolutionArchitecture
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the normalized convolution of images."""
        x = self.layers.conv(self.convolution, "conv")(x)
        return self.layers.norm("norm")(x)


def head(
    x: jax.Array, num_classes: int, dtype: jax.typing.DTypeLike | None
) -> jax.Array:
    """Return logits `(batch, num_classes)`, a linear map of x with a bias.

    Args:
        x: features of shape `(batch, features)`.
        num_classes: number of outputs.
        dtype: type of the computation up to the features. None for logits of
            the features' type, otherwise logits are in float32.

    Returns:
        Logits.
    """
    return nn.Dense(num_classes, name="head")(head_input(x, dtype))
