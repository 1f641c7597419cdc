"""The network of the PSI paper's analysis: a norm behind every linear map."""

from collections.abc import Callable

import jax
from flax import linen as nn

from psi_optax.models.functions import flatten
from psi_optax.models.linen.layers import BatchNormNetwork
from psi_optax.models.options import hidden_options


class TwoLayers(BatchNormNetwork):
    """Two linear maps without bias, each with a batch normalization.

    The columns of both kernels are scale groups.

    Examples:
        >>> import jax.numpy as jnp
        >>> images = jnp.ones((4, 8, 8, 1))
        >>> model = TwoLayers(16)
        >>> variables = model.init(jax.random.key(0), images, train=False)
        >>> jax.tree.map(jnp.shape, variables["params"])["hidden_1"]
        {'kernel': (16, 10)}
    """

    width: int = 100
    num_classes: int = 10
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits of images `(batch, ...)`."""
        layers, options = self.layers(train), hidden_options(self.dtype)
        x = nn.Dense(self.width, name="hidden_0", **options)(flatten(x))
        x = self.activation(layers.norm("norm_0")(x))
        x = nn.Dense(self.num_classes, name="hidden_1", **options)(x)
        return layers.norm("norm_1")(x)
