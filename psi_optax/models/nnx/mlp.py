"""A multilayer perceptron in NNX."""

import itertools
from typing import Unpack

import jax
from flax import nnx

from psi_optax.models.architectures import MLP_WIDTHS, NUM_CLASSES
from psi_optax.models.functions import flatten
from psi_optax.models.nnx.layers import Layers, get_layers
from psi_optax.models.options import BatchNormKeywords, hidden_options


class MLP(nnx.Module):
    """A multilayer perceptron with batch normalization.

    See its twin `psi_optax.models.linen.MLP` for layers and scale groups.

    Args:
        in_features: number of features of one input, flattened.
        widths: number of units of each hidden layer.
        num_classes: number of outputs.
        rngs: random keys.
        options: see `psi_optax.models.options.BatchNormOptions`.

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
        widths: tuple[int, ...] = MLP_WIDTHS,
        num_classes: int = NUM_CLASSES,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[BatchNormKeywords],
    ):
        layers = Layers(rngs=rngs, **options)
        sizes = (in_features, *widths)
        linear = hidden_options(layers.dtype)
        self.depth = len(widths)
        for index, (width_in, width) in enumerate(itertools.pairwise(sizes)):
            hidden = nnx.Linear(width_in, width, rngs=rngs, **linear)
            setattr(self, f"hidden_{index}", hidden)
            setattr(self, f"norm_{index}", layers.norm(width))
        self.head = layers.head(sizes[-1], num_classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits of inputs `(batch, ...)`, which are flattened."""
        x = flatten(x)
        for hidden, norm in zip(
            get_layers(self, "hidden", self.depth),
            get_layers(self, "norm", self.depth),
            strict=True,
        ):
            x = nnx.relu(norm(hidden(x)))
        return self.head(x)
