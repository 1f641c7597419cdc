"""Options of layers, for both frameworks."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypedDict

import jax

from psi_optax.models.architectures import ConvolutionArchitecture

__all__ = [
    "BatchNormKeywords",
    "BatchNormOptions",
    "RMSNormKeywords",
    "RMSNormOptions",
    "TransformerLayerOptions",
    "conv_options",
    "hidden_conv_options",
    "hidden_options",
    "patch_options",
]

# Keeps the variance of the gradients through ReLUs (He et al., 2015). It counts
# the outputs that an input reaches, whichever the stride.
_HE_FAN_OUT = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# Keeps the variance of the activations through ReLUs.
_HE_FAN_IN = jax.nn.initializers.he_normal()


# Linen modules inherit from the options, and are dataclasses of this kind.
@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class BatchNormOptions:
    """Options of a network with batch normalization.

    Attributes:
        epsilon: number that batch normalization adds to the variance. At 0 the
            scale invariance is exact.
        momentum: decay rate of the running statistics, per step.
        axis_name: name of the mapped axis (of `jax.pmap`, `jax.shard_map` or
            `jax.vmap`) that divides the batch, for statistics of the whole
            batch. None for statistics of the local part. Under `jax.jit` they
            are statistics of the whole batch in any case.
        dtype: type of the computation, such as `jnp.bfloat16`. Parameters,
            statistics and logits remain in float32. None for the type of
            inputs and parameters.
    """

    epsilon: float = 1e-5
    momentum: float = 0.99
    axis_name: str | None = None
    dtype: jax.typing.DTypeLike | None = None

    def keywords(self) -> "BatchNormKeywords":
        """Return these options alone, by name."""
        return {
            "epsilon": self.epsilon,
            "momentum": self.momentum,
            "axis_name": self.axis_name,
            "dtype": self.dtype,
        }

    def norm_options(self) -> dict[str, Any]:
        """Return the keyword arguments of a batch normalization."""
        # The fast variance, E[x^2] - E[x]^2, cancels catastrophically and is
        # clipped at zero: neither keeps the invariance in floating point.
        return {**self.keywords(), "use_fast_variance": False}


class BatchNormKeywords(TypedDict, total=False):
    """Types of the keyword arguments of `BatchNormOptions`."""

    epsilon: float
    momentum: float
    axis_name: str | None
    dtype: jax.typing.DTypeLike | None


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class RMSNormOptions:
    """Options of a network with RMSNorm.

    Attributes:
        epsilon: number that RMSNorm adds to the mean square. At 0 the scale
            invariance is exact.
        dtype: type of the computation, such as `jnp.bfloat16`. Parameters and
            logits remain in float32. None for the type of inputs and
            parameters.
    """

    epsilon: float = 1e-6
    dtype: jax.typing.DTypeLike | None = None

    def norm_options(self) -> "RMSNormKeywords":
        """Return the keyword arguments of an RMSNorm."""
        return {"epsilon": self.epsilon, "dtype": self.dtype}


class RMSNormKeywords(TypedDict, total=False):
    """Types of the keyword arguments of `RMSNormOptions`."""

    epsilon: float
    dtype: jax.typing.DTypeLike | None


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class TransformerLayerOptions(RMSNormOptions):
    """Options of the layers of a Transformer with RMSNorm.

    Attributes:
        heads: number of attention heads.
        activation: function between the linear maps of a feed-forward network.
        causal: True for attention of each token to itself and earlier ones.
        post_norms: True for an RMSNorm also behind each attention and each
            feed-forward network.
    """

    heads: int
    activation: Callable[[jax.Array], jax.Array] = jax.nn.gelu
    causal: bool = False
    post_norms: bool = False


def conv_options(
    convolution: ConvolutionArchitecture, dtype: jax.typing.DTypeLike | None
) -> dict[str, Any]:
    """Return the keyword arguments of a convolution without bias.

    The padding keeps height and width at stride 1.
    """
    return {
        "kernel_size": (convolution.size, convolution.size),
        "strides": (convolution.stride, convolution.stride),
        "padding": convolution.size // 2,
        "use_bias": False,
        "kernel_init": _HE_FAN_OUT,
        "dtype": dtype,
    }


def hidden_options(dtype: jax.typing.DTypeLike | None) -> dict[str, Any]:
    """Return the keyword arguments of a hidden layer of `MLP` and `CNN`."""
    return {"use_bias": False, "kernel_init": _HE_FAN_IN, "dtype": dtype}


def hidden_conv_options(dtype: jax.typing.DTypeLike | None) -> dict[str, Any]:
    """Return the keyword arguments of a hidden convolution of `CNN`."""
    return {
        "kernel_size": (3, 3),
        "strides": (2, 2),
        **hidden_options(dtype),
    }


def patch_options(
    size: int, dtype: jax.typing.DTypeLike | None
) -> dict[str, Any]:
    """Return the keyword arguments of a convolution that embeds patches."""
    return {
        "kernel_size": (size, size),
        "strides": (size, size),
        "use_bias": False,
        "dtype": dtype,
    }
