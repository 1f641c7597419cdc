"""Batch-normalized networks in Flax NNX.

Each has a twin of the same name in `psi_optax.models.linen` with the same
parameter paths, shapes and outputs.
"""

import itertools

import jax
from flax import nnx

__all__ = ["CNN", "MLP"]


class MLP(nnx.Module):
    """A multilayer perceptron with batch normalization.

    Every hidden layer is a linear map without bias, a batch normalization and
    a ReLU; the head is linear with a bias. The loss of a training batch does
    not change when a column of `hidden_i/kernel` is multiplied by a positive
    number (up to `epsilon`), so the columns are scale groups.

    A new model is in training mode. `model.eval()` switches to the running
    statistics and `model.train()` back to those of the batch.

    Args:
        in_features: number of features of one input, flattened.
        widths: number of units of each hidden layer.
        num_classes: number of outputs.
        epsilon: what batch normalization adds to the variance. At 0 the scale
            invariance is exact.
        momentum: decay rate of the running statistics, per step.
        rngs: random keys; the stream `params` is used.

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
        epsilon: float = 1e-5,
        momentum: float = 0.99,
        rngs: nnx.Rngs,
    ):
        sizes = (in_features, *widths)
        self.depth = len(widths)
        for index, (fan_in, width) in enumerate(itertools.pairwise(sizes)):
            layer = nnx.Linear(
                fan_in,
                width,
                use_bias=False,
                kernel_init=nnx.initializers.he_normal(),
                rngs=rngs,
            )
            norm = _batch_norm(width, epsilon, momentum, rngs)
            _add_hidden(self, index, layer, norm)
        self.head = nnx.Linear(sizes[-1], num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of inputs, of shape `(batch, ...)`; all but the first
                axis are flattened.

        Returns:
            Logits of shape `(batch, num_classes)`.
        """
        return self.head(_hidden(self, x.reshape(x.shape[0], -1)))


class CNN(nnx.Module):
    """A convolutional network with batch normalization.

    Every hidden layer is a 3x3 convolution of stride 2 without bias, a batch
    normalization and a ReLU; the mean over all pixels goes through a linear
    head with a bias. The filters of `hidden_i/kernel` (its slices along the
    last axis) are scale groups.

    A new model is in training mode. `model.eval()` switches to the running
    statistics and `model.train()` back to those of the batch.

    Args:
        in_features: number of channels of the images.
        widths: number of channels of each hidden layer.
        num_classes: number of outputs.
        epsilon: what batch normalization adds to the variance. At 0 the scale
            invariance is exact.
        momentum: decay rate of the running statistics, per step.
        rngs: random keys; the stream `params` is used.

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
        epsilon: float = 1e-5,
        momentum: float = 0.99,
        rngs: nnx.Rngs,
    ):
        sizes = (in_features, *widths)
        self.depth = len(widths)
        for index, (fan_in, width) in enumerate(itertools.pairwise(sizes)):
            layer = nnx.Conv(
                fan_in,
                width,
                kernel_size=(3, 3),
                strides=(2, 2),
                use_bias=False,
                kernel_init=nnx.initializers.he_normal(),
                rngs=rngs,
            )
            norm = _batch_norm(width, epsilon, momentum, rngs)
            _add_hidden(self, index, layer, norm)
        self.head = nnx.Linear(sizes[-1], num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of images, of shape `(batch, height, width, channels)`.

        Returns:
            Logits of shape `(batch, num_classes)`.
        """
        return self.head(_hidden(self, x).mean((1, 2)))


def _batch_norm(
    width: int, epsilon: float, momentum: float, rngs: nnx.Rngs
) -> nnx.BatchNorm:
    # The fast variance, E[x^2] - E[x]^2, cancels catastrophically and is
    # clipped at zero: neither keeps the invariance in floating point.
    return nnx.BatchNorm(
        width,
        momentum=momentum,
        epsilon=epsilon,
        use_fast_variance=False,
        rngs=rngs,
    )


def _add_hidden(
    model: MLP | CNN,
    index: int,
    layer: nnx.Linear | nnx.Conv,
    norm: nnx.BatchNorm,
) -> None:
    # Attributes, not an nnx.List, so that the paths are those of Linen.
    setattr(model, f"hidden_{index}", layer)
    setattr(model, f"norm_{index}", norm)


def _hidden(model: MLP | CNN, x: jax.Array) -> jax.Array:
    """Apply every hidden layer, its normalization and the ReLU."""
    for index in range(model.depth):
        x = getattr(model, f"hidden_{index}")(x)
        x = nnx.relu(getattr(model, f"norm_{index}")(x))
    return x
