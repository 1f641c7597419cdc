"""The network of the PSI paper's analysis: a norm behind every linear map."""

from collections.abc import Callable

import jax
from flax import linen as nn

__all__ = ["TwoLayers"]


class TwoLayers(nn.Module):
    """Two linear maps without bias, each with a batch normalization.

    The last one too, unlike in the networks of `psi_optax.models`: both
    kernels are scale groups, column by column, and what else there is are
    scales and biases of normalizations. It is called as `model(x, train)`.

    Attributes:
        width: number of hidden units.
        num_classes: number of outputs.
        epsilon: what batch normalization adds to the variance.
        momentum: decay rate of its running statistics.
        activation: of the hidden units.

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
    epsilon: float = 1e-5
    momentum: float = 0.9
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits of images (batch, ...); in training by the batch's moments."""
        x = self._normed(x.reshape(len(x), -1), 0, self.width, train)
        return self._normed(self.activation(x), 1, self.num_classes, train)

    def _normed(self, x: jax.Array, index: int, width: int, train: bool):
        x = nn.Dense(
            width,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            name=f"hidden_{index}",
        )(x)
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            use_fast_variance=False,
            name=f"norm_{index}",
        )(x)
