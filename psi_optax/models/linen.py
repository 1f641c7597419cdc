"""Batch-normalized networks in Flax Linen.

Each has a twin of the same name in `psi_optax.models.nnx` with the same
parameter paths, shapes and outputs.
"""

from collections.abc import Callable

import jax
from flax import linen as nn

__all__ = ["CNN", "MLP"]


class MLP(nn.Module):
    """A multilayer perceptron with batch normalization.

    Every hidden layer is a linear map without bias, a batch normalization and
    a ReLU; the head is linear with a bias. The loss of a training batch does
    not change when a column of `hidden_i/kernel` is multiplied by a positive
    number (up to `epsilon`), so the columns are scale groups.

    Attributes:
        widths: number of units of each hidden layer.
        num_classes: number of outputs.
        epsilon: what batch normalization adds to the variance. At 0 the scale
            invariance is exact.
        momentum: decay rate of the running statistics, per step.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model = MLP(widths=(16,), num_classes=10)
        >>> images = jnp.ones((4, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), images, train=False)
        >>> jax.tree.map(jnp.shape, variables["params"]["hidden_0"])
        {'kernel': (64, 16)}
        >>> logits, updates = model.apply(
        ...     variables, images, train=True, mutable=["batch_stats"]
        ... )
        >>> logits.shape
        (4, 10)
    """

    widths: tuple[int, ...] = (64, 64)
    num_classes: int = 10
    epsilon: float = 1e-5
    momentum: float = 0.99

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of inputs, of shape `(batch, ...)`; all but the first
                axis are flattened.
            train: normalize by the statistics of this batch, and update the
                running ones if `batch_stats` is mutable; otherwise normalize
                by the running ones.

        Returns:
            Logits of shape `(batch, num_classes)`.
        """
        norm = _batch_norm(self.epsilon, self.momentum, train)
        x = x.reshape(x.shape[0], -1)
        for index, width in enumerate(self.widths):
            x = nn.Dense(
                width,
                use_bias=False,
                kernel_init=nn.initializers.he_normal(),
                name=f"hidden_{index}",
            )(x)
            x = nn.relu(norm(name=f"norm_{index}")(x))
        return nn.Dense(self.num_classes, name="head")(x)


class CNN(nn.Module):
    """A convolutional network with batch normalization.

    Every hidden layer is a 3x3 convolution of stride 2 without bias, a batch
    normalization and a ReLU; the mean over all pixels goes through a linear
    head with a bias. The filters of `hidden_i/kernel` (its slices along the
    last axis) are scale groups.

    Attributes:
        widths: number of channels of each hidden layer.
        num_classes: number of outputs.
        epsilon: what batch normalization adds to the variance. At 0 the scale
            invariance is exact.
        momentum: decay rate of the running statistics, per step.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model = CNN(widths=(8, 16), num_classes=10)
        >>> images = jnp.ones((4, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), images, train=False)
        >>> jax.tree.map(jnp.shape, variables["params"]["hidden_1"])
        {'kernel': (3, 3, 8, 16)}
        >>> model.apply(variables, images, train=False).shape
        (4, 10)
    """

    widths: tuple[int, ...] = (8, 16, 32)
    num_classes: int = 10
    epsilon: float = 1e-5
    momentum: float = 0.99

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of images, of shape `(batch, height, width, channels)`.
            train: normalize by the statistics of this batch, and update the
                running ones if `batch_stats` is mutable; otherwise normalize
                by the running ones.

        Returns:
            Logits of shape `(batch, num_classes)`.
        """
        norm = _batch_norm(self.epsilon, self.momentum, train)
        for index, width in enumerate(self.widths):
            x = nn.Conv(
                width,
                kernel_size=(3, 3),
                strides=(2, 2),
                use_bias=False,
                kernel_init=nn.initializers.he_normal(),
                name=f"hidden_{index}",
            )(x)
            x = nn.relu(norm(name=f"norm_{index}")(x))
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


def _batch_norm(
    epsilon: float, momentum: float, train: bool
) -> Callable[..., nn.BatchNorm]:
    """Return a constructor of the normalization, which still lacks a name."""

    def norm(name: str) -> nn.BatchNorm:
        # The fast variance, E[x^2] - E[x]^2, cancels catastrophically and is
        # clipped at zero: neither keeps the invariance in floating point.
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=momentum,
            epsilon=epsilon,
            use_fast_variance=False,
            name=name,
        )

    return norm
