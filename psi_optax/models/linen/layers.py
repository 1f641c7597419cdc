"""The layers of networks with batch normalization, in Linen."""

import dataclasses
from typing import Any

import jax
from flax import linen as nn

from psi_optax.models.architectures import Convolution
from psi_optax.models.functions import HE_FAN_OUT, in_float32


class BatchNormNetwork(nn.Module, kw_only=True):
    """A network with batch normalization: the options that all of them have.

    Attributes:
        epsilon: what batch normalization adds to the variance. At 0 the scale
            invariance is exact.
        momentum: decay rate of the running statistics, per step.
        axis_name: of the mapped axis (of `jax.pmap`, `jax.shard_map` or
            `jax.vmap`) over which the batch is divided, so that the statistics
            are those of the whole batch; None: those of the part at hand.
            Under `jax.jit` they are of the whole batch anyway, wherever it is.
        dtype: of the computation, such as `jnp.bfloat16`; parameters,
            statistics and logits are in float32. None: as inputs and
            parameters have it.
    """

    epsilon: float = 1e-5
    momentum: float = 0.99
    axis_name: str | None = None
    dtype: jax.typing.DTypeLike | None = None

    def layers(self, train: bool) -> "Layers":
        """What makes the layers, in training mode or not."""
        return Layers(
            train, self.epsilon, self.momentum, self.axis_name, self.dtype
        )


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the layers of one network, inside of a compact method."""

    train: bool
    epsilon: float
    momentum: float
    axis_name: str | None
    dtype: Any

    def norm(self, name: str) -> nn.BatchNorm:
        """A batch normalization."""
        # The fast variance, E[x^2] - E[x]^2, cancels catastrophically and is
        # clipped at zero: neither keeps the invariance in floating point.
        return nn.BatchNorm(
            use_running_average=not self.train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            axis_name=self.axis_name,
            dtype=self.dtype,
            use_fast_variance=False,
            name=name,
        )

    def conv(self, convolution: Convolution, name: str) -> nn.Conv:
        """A convolution without bias, padded so that stride 1 keeps size."""
        width, size, stride = convolution
        return nn.Conv(
            width,
            kernel_size=(size, size),
            strides=(stride, stride),
            padding=size // 2,
            use_bias=False,
            kernel_init=HE_FAN_OUT,
            dtype=self.dtype,
            name=name,
        )


class NormedConv(nn.Module):
    """A convolution and its batch normalization: `conv` and `norm`."""

    convolution: Convolution
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Of shape (batch, height, width, channels), as x is."""
        x = self.layers.conv(self.convolution, "conv")(x)
        return self.layers.norm("norm")(x)


def head(x: jax.Array, num_classes: int, dtype: Any) -> jax.Array:
    """Logits by a linear map with a bias, in float32.

    Args:
        x: of shape (batch, width).
        num_classes: number of outputs.
        dtype: of the computation before; None leaves x as it is.

    Returns:
        Logits of shape (batch, num_classes).
    """
    return nn.Dense(num_classes, name="head")(in_float32(x, dtype))
