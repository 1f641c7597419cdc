"""A network whose weights, hidden layers or neither are normalized."""

from collections.abc import Callable

import jax
from flax import linen as nn

from psi_optax.models.functions import flatten
from psi_optax.models.linen.layers import BatchNormNetwork, head


def identity(kernel: jax.Array) -> jax.Array:
    """Return a kernel as it is."""
    return kernel


class Network(BatchNormNetwork):
    """A multilayer perceptron, with or without normalizations.

    A filter is a column of a hidden layer's kernel.

    Attributes:
        widths: number of units of each hidden layer.
        num_classes: number of outputs.
        function: makes the weights of a hidden layer from its kernel.
        batch_norm: whether a batch normalization follows each hidden layer.
        scaled: whether each unit without one has a learned scale.

    Examples:
        >>> import jax.numpy as jnp
        >>> images = jnp.ones((4, 8, 8, 1))
        >>> variables = Network((16,)).init(jax.random.key(0), images, False)
        >>> sorted(variables["params"]["norm_0"])
        ['bias', 'scale']
    """

    widths: tuple[int, ...]
    num_classes: int = 10
    function: Callable[[jax.Array], jax.Array] = identity
    batch_norm: bool = False
    scaled: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits of images `(batch, ...)`."""
        layers, x = self.layers(train), flatten(x)
        for index, width in enumerate(self.widths):
            name = f"norm_{index}"
            x = _Linear(width, self.function, name=f"hidden_{index}")(x)
            if self.batch_norm:
                x = layers.norm(name)(x)
            else:
                x = _Affine(self.scaled, name=name)(x)
            x = nn.relu(x)
        return head(x, self.num_classes, self.dtype)


class _Linear(nn.Module):
    """A linear map whose weights are a function of its kernel."""

    width: int
    function: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = x.shape[-1], self.width
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        return x @ self.function(kernel)


class _Affine(nn.Module):
    """A learned bias of each unit, behind a learned scale or none."""

    scaled: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1],)
        if self.scaled:
            x = x * self.param("scale", nn.initializers.ones, shape)[None]
        return x + self.param("bias", nn.initializers.zeros, shape)[None]
