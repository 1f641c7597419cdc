"""The layers of networks with batch normalization, in NNX."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, TypedDict

import jax
from flax import nnx

from psi_optax.models.architectures import Convolution
from psi_optax.models.functions import HE_FAN_OUT, in_float32


class BatchNormOptions(TypedDict, total=False):
    """The options that all networks with batch normalization have.

    Attributes:
        epsilon: what batch normalization adds to the variance, 1e-5 by default.
            At 0 the scale invariance is exact.
        momentum: decay rate of the running statistics, per step, 0.99 by
            default.
        axis_name: of the mapped axis (of `jax.pmap`, `jax.shard_map` or
            `jax.vmap`) over which the batch is divided, so that the statistics
            are those of the whole batch; None, by default: those of the part at
            hand. Under `jax.jit` they are of the whole batch anyway, wherever
            it is.
        dtype: of the computation, such as `jnp.bfloat16`; parameters,
            statistics and logits are in float32. None, by default: as inputs
            and parameters have it.
    """

    epsilon: float
    momentum: float
    axis_name: str | None
    dtype: jax.typing.DTypeLike | None


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the layers of one network."""

    rngs: nnx.Rngs
    epsilon: float = 1e-5
    momentum: float = 0.99
    axis_name: str | None = None
    dtype: Any = None

    def norm(self, width: int) -> nnx.BatchNorm:
        """A batch normalization."""
        # The fast variance, E[x^2] - E[x]^2, cancels catastrophically and is
        # clipped at zero: neither keeps the invariance in floating point.
        return nnx.BatchNorm(
            width,
            momentum=self.momentum,
            epsilon=self.epsilon,
            axis_name=self.axis_name,
            dtype=self.dtype,
            use_fast_variance=False,
            rngs=self.rngs,
        )

    def conv(self, width_in: int, convolution: Convolution) -> nnx.Conv:
        """A convolution without bias, padded so that stride 1 keeps size."""
        width, size, stride = convolution
        return nnx.Conv(
            width_in,
            width,
            kernel_size=(size, size),
            strides=(stride, stride),
            padding=size // 2,
            use_bias=False,
            kernel_init=HE_FAN_OUT,
            dtype=self.dtype,
            rngs=self.rngs,
        )

    def head(self, width_in: int, num_classes: int) -> "Head":
        """A linear map with a bias."""
        return Head(width_in, num_classes, dtype=self.dtype, rngs=self.rngs)


class Head(nnx.Linear):
    """A linear map to logits, with a bias, in float32.

    Args:
        width_in: number of inputs.
        num_classes: number of outputs.
        dtype: of the computation before; None leaves inputs as they are.
        rngs: random keys.
    """

    def __init__(
        self,
        width_in: int,
        num_classes: int,
        *,
        dtype: jax.typing.DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        super().__init__(width_in, num_classes, rngs=rngs)
        self.input_dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of shape (batch, num_classes)."""
        return super().__call__(in_float32(x, self.input_dtype))


class NormedConv(nnx.Module):
    """A convolution and its batch normalization: `conv` and `norm`."""

    def __init__(self, width_in: int, convolution: Convolution, layers: Layers):
        self.conv = layers.conv(width_in, convolution)
        self.norm = layers.norm(convolution.width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Of shape (batch, height, width, channels), as x is."""
        return self.norm(self.conv(x))


# Layers are attributes, not an nnx.List, so that the paths are those of Linen.


def add_layers(
    module: nnx.Module, name: str, layers: Iterable[nnx.Module]
) -> None:
    """Make layers the attributes `name_0`, `name_1`, ... of a module."""
    for index, layer in enumerate(layers):
        setattr(module, f"{name}_{index}", layer)


def layers_of(module: nnx.Module, name: str, count: int) -> Iterator[Any]:
    """The first `count` layers that `add_layers` has added."""
    return (getattr(module, f"{name}_{index}") for index in range(count))
