"""A multilayer perceptron in NNX."""

import itertools
from typing import Unpack

import jax
from flax import nnx

from psi_optax.models.nnx.layers import (
    BatchNormOptions,
    Layers,
    add_layers,
    layers_of,
)


class MLP(nnx.Module):
    """A multilayer perceptron with batch normalization.

    Every hidden layer is a linear map without bias, a batch normalization and
    a ReLU; the head is linear with a bias. The loss of a training batch does
    not change when a column of `hidden_i/kernel` is multiplied by a positive
    number (up to `epsilon`), so the columns are scale groups. `norm_i/scale`
    and `norm_i/bias` are one scale group together, but for the last ones, which
    the head sees.

    Args:
        in_features: number of features of one input, flattened.
        widths: number of units of each hidden layer.
        num_classes: number of outputs.
        rngs: random keys; the stream `params` is used.
        options: `epsilon`, `momentum`, `axis_name` and `dtype`, as in
            `BatchNormOptions`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> model = MLP(in_features=64, widths=(16,), rngs=nnx.Rngs(0))
        >>> model.hidden_0.kernel.shape
        (64, 16)
        >>> model(jnp.ones((4, 8, 8, 1))).shape
        (4, 10)
    """

    def __init__(
        self,
        in_features: int,
        widths: tuple[int, ...] = (64, 64),
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
                nnx.Linear(
                    fan_in,
                    width,
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
            x: batch of inputs, of shape `(batch, ...)`; all but the first
                axis are flattened.

        Returns:
            Logits of shape `(batch, num_classes)`.
        """
        x = x.reshape(x.shape[0], -1)
        for hidden, norm in zip(
            layers_of(self, "hidden", self.depth),
            layers_of(self, "norm", self.depth),
            strict=True,
        ):
            x = nnx.relu(norm(hidden(x)))
        return self.head(x)
