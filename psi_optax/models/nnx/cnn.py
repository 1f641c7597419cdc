"""A small convolutional network in NNX."""

import itertools
from typing import Unpack

import jax
from flax import nnx

from psi_optax.models.functions import mean_pixels
from psi_optax.models.nnx.layers import (
    BatchNormOptions,
    Layers,
    add_layers,
    layers_of,
)


class CNN(nnx.Module):
    """A convolutional network with batch normalization.

    Every hidden layer is a 3x3 convolution of stride 2 without bias, a batch
    normalization and a ReLU; the mean over all pixels goes through a linear
    head with a bias. The filters of `hidden_i/kernel` (its slices along the
    last axis) are scale groups. `norm_i/scale` and `norm_i/bias` are one scale
    group together, but for the last ones, which the head sees.

    Args:
        in_features: number of channels of the images.
        widths: number of channels of each hidden layer.
        num_classes: number of outputs.
        rngs: random keys; the stream `params` is used.
        options: `epsilon`, `momentum`, `axis_name` and `dtype`, as in
            `BatchNormOptions`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> model = CNN(in_features=1, widths=(8, 16), rngs=nnx.Rngs(0))
        >>> model.hidden_1.kernel.shape
        (3, 3, 8, 16)
        >>> model(jnp.ones((4, 8, 8, 1))).shape
        (4, 10)
    """

    def __init__(
        self,
        in_features: int,
        widths: tuple[int, ...] = (8, 16, 32),
        num_classes: int = 10,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[BatchNormOptions],
    ):
        layers = Layers(rngs, **options)
        sizes = (in_features, *widths)
        self.depth = len(widths)
        pairs = [
            (
                nnx.Conv(
                    fan_in,
                    width,
                    kernel_size=(3, 3),
                    strides=(2, 2),
                    use_bias=False,
                    kernel_init=nnx.initializers.he_normal(),
                    dtype=layers.dtype,
                    rngs=rngs,
                ),
                layers.norm(width),
            )
            for fan_in, width in itertools.pairwise(sizes)
        ]
        add_layers(self, "hidden", (hidden for hidden, _ in pairs))
        add_layers(self, "norm", (norm for _, norm in pairs))
        self.head = layers.head(sizes[-1], num_classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of images, of shape `(batch, height, width, channels)`.

        Returns:
            Logits of shape `(batch, num_classes)`.
        """
        for hidden, norm in zip(
            layers_of(self, "hidden", self.depth),
            layers_of(self, "norm", self.depth),
            strict=True,
        ):
            x = nnx.relu(norm(hidden(x)))
        return self.head(mean_pixels(x))
