"""Parts of normalization layers: mixtures, scales and groups of channels."""

from collections.abc import Callable

import jax

__all__ = ["ORDERS", "affine", "check_channels", "mix_normalizations"]

ORDERS = ("gn_first", "bn_first", "parallel")

_Norm = Callable[[jax.Array], jax.Array]


def mix_normalizations(
    x: jax.Array,
    group_norm: _Norm,
    batch_norm: _Norm,
    mix: jax.Array,
    order: str,
) -> jax.Array:
    """Return `mix` of the group normalization, the rest of the other.

    Args:
        x: inputs.
        group_norm: normalizes by examples.
        batch_norm: normalizes by the batch.
        mix: weight of the group normalization, of shape ().
        order: one of `ORDERS`. The second normalization of a series has the
            outputs of the first.
    """
    if order == "gn_first":
        grouped = group_norm(x)
        batched = batch_norm(grouped)
    elif order == "bn_first":
        batched = batch_norm(x)
        grouped = group_norm(batched)
    else:
        grouped, batched = group_norm(x), batch_norm(x)
    mix = mix.astype(grouped.dtype)
    return mix * grouped + (1 - mix) * batched


def affine(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Return x times a scale plus a bias, of each channel.

    Args:
        x: of shape `(..., channels)`.
        scale: of shape `(channels,)`.
        bias: like scale.
    """
    shape = (1,) * (x.ndim - 1) + scale.shape
    scale, bias = scale.astype(x.dtype), bias.astype(x.dtype)
    return x * scale.reshape(shape) + bias.reshape(shape)


def check_channels(channels: int, num_groups: int) -> None:
    """Require groups of equal numbers of channels.

    Raises:
        ValueError: their number does not divide that of channels.
    """
    if num_groups < 1 or channels % num_groups:
        raise ValueError(
            f"num_groups={num_groups} does not divide {channels} channels: pass"
            " a divisor."
        )
