"""A smooth multilayer perceptron with a square loss, for second derivatives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

import psi_optax
from psi_optax.models.functions import flatten
from psi_optax.models.linen.layers import BatchNormNetwork, head
from psi_optax.models.options import hidden_options


class TanhMLP(BatchNormNetwork):
    """Linear maps without bias, each with a tanh behind it, and a head.

    With batch normalizations before the activations, the columns of
    `hidden_i/kernel` are scale groups.

    Attributes:
        widths: number of units of each hidden layer.
        num_classes: number of outputs.
        normalized: True for batch normalizations.
        dropout: share of hidden units that training drops.

    Examples:
        >>> images = jnp.ones((4, 8, 8, 1))
        >>> model = TanhMLP((16,), normalized=False)
        >>> variables = model.init(jax.random.key(0), images, train=False)
        >>> sorted(variables["params"])
        ['head', 'hidden_0']
    """

    widths: tuple[int, ...] = (32, 32)
    num_classes: int = 10
    normalized: bool = True
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits of images `(batch, ...)`."""
        layers, options = self.layers(train), hidden_options(self.dtype)
        x = flatten(x)
        for index, width in enumerate(self.widths):
            x = nn.Dense(width, name=f"hidden_{index}", **options)(x)
            if self.normalized:
                x = layers.norm(f"norm_{index}")(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(jnp.tanh(x))
        return head(x, self.num_classes, self.dtype)


def make_loss(model: TanhMLP) -> Callable:
    """Return the training loss of a model.

    `loss(params, variables, images, labels, key=None)` returns half the mean
    squared distance between logits and one-hot labels, and the new statistics.
    The key draws the dropped units.
    """

    def loss(params, variables, images, labels, key=None):
        logits, statistics = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={} if key is None else {"dropout": key},
        )
        errors = logits - jax.nn.one_hot(labels, model.num_classes)
        return jnp.square(errors).sum(1).mean() / 2, statistics

    return loss


def column_groups(params: Any) -> Any:
    """Return the columns of hidden kernels as scale groups."""
    return psi_optax.output_channels(params, where="hidden_./kernel")
