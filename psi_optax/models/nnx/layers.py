"""Layers of networks with batch normalization, in NNX."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from flax import nnx

from psi_optax.models.architectures import ConvolutionArchitecture
from psi_optax.models.functions import head_input
from psi_optax.models.options import BatchNormOptions, conv_options

__all__ = ["Head", "Layers", "NormedConv", "add_layers", "get_layers"]


@dataclasses.dataclass(kw_only=True)
class Layers(BatchNormOptions):
    """Factory of the layers of one network.

    Attributes:
        rngs: random keys of the initial values.
    """

    rngs: nnx.Rngs

    def norm(self, width: int) -> nnx.BatchNorm:
        """Return a batch normalization."""
        return nnx.BatchNorm(width, rngs=self.rngs, **self.norm_options())

    def conv(
        self, width_in: int, convolution: ConvolutionArchitecture
    ) -> nnx.Conv:
        """Return a convolution without bias."""
        options = conv_options(convolution, self.dtype)
        return nnx.Conv(width_in, convolution.width, rngs=self.rngs, **options)

    def head(self, width_in: int, num_classes: int) -> "Head":
        """Return a linear map to logits, with a bias."""
        return Head(width_in, num_classes, dtype=self.dtype, rngs=self.rngs)


class Head(nnx.Linear):
    """A linear map to logits, with a bias.

    Args:
        width_in: number of inputs.
        num_classes: number of outputs.
        dtype: type of the computation up to the inputs. None for logits of the
            inputs' type, otherwise logits are in float32.
        rngs: random keys.
    """

    def __init__(
        self,
        width_in: int,
        num_classes: int,
        *,
        dtype: jax.typing.DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        super().__init__(width_in, num_classes, rngs=rngs)
        self.input_dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits of shape `(batch, num_classes)`."""
        return super().__call__(head_input(x, self.input_dtype))


class NormedConv(nnx.Module):
    """A convolution, `conv`, followed by a batch normalization, `norm`."""

    def __init__(
        self,
        width_in: int,
        convolution: ConvolutionArchitecture,
        layers: Layers,
    ):
        self.conv = layers.conv(width_in, convolution)
        self.norm = layers.norm(convolution.width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the normalized convolution of images."""
        return self.norm(self.conv(x))


# Layers are attributes, not an nnx.List, for the same paths as in Linen.


def add_layers(
    module: nnx.Module, name: str, layers: Iterable[nnx.Module]
) -> None:
    """Set layers as the attributes `name_0`, `name_1`, ... of a module."""
    for index, layer in enumerate(layers):
        setattr(module, f"{name}_{index}", layer)


def get_layers(module: nnx.Module, name: str, count: int) -> Iterator[Any]:
    """Return the first `count` layers that `add_layers` has set."""
    return (getattr(module, f"{name}_{index}") for index in range(count))
