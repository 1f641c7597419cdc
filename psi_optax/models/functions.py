"""What both frameworks share, without parameters."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

__all__ = [
    "HE_FAN_OUT",
    "VGG_PIXELS",
    "check_vit",
    "grid_positions",
    "in_float32",
    "mean_pixels",
    "pad_shortcut",
    "pool_2x2",
    "pool_stem",
    "vgg_features",
]

# Keeps the gradients' variance through ReLUs (He et al., 2015), whichever the
# strides: what counts is to how many outputs an input goes.
HE_FAN_OUT = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# What VGG leaves of an image of 224 x 224 pixels.
VGG_PIXELS = 7


def pool_2x2(x: jax.Array) -> jax.Array:
    """The maximum of every 2x2 pixels; those at an odd edge are fewer."""
    return linen.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")


def pool_stem(x: jax.Array) -> jax.Array:
    """The maximum of 3x3 pixels, around every other one."""
    padding = ((1, 1), (1, 1))
    return linen.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


def pad_shortcut(x: jax.Array, width: int, stride: int) -> jax.Array:
    """Each `stride`-th pixel, with channels of zeros up to `width`."""
    more = width - x.shape[-1]
    if stride > 1:
        x = x[:, ::stride, ::stride]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more))) if more else x


def mean_pixels(x: jax.Array) -> jax.Array:
    """The mean over all pixels, of images (batch, height, width, channels)."""
    return x.mean((1, 2))


def vgg_features(x: jax.Array, has_dense: bool) -> jax.Array:
    """What VGG's dense layers see: all pixels; a head alone sees their mean.

    Raises:
        ValueError: dense layers, and images of another size than they are for.
    """
    if not has_dense:
        return mean_pixels(x)
    if x.shape[1:3] != (VGG_PIXELS, VGG_PIXELS):
        raise ValueError(
            f"{x.shape[1]} x {x.shape[2]} pixels are left for VGG's dense"
            f" layers, which take {VGG_PIXELS} x {VGG_PIXELS}: pass images of"
            " 224 x 224 pixels, or dense=() for a head alone."
        )
    return x.reshape(len(x), -1)


def in_float32(x: jax.Array, dtype: jax.typing.DTypeLike | None) -> jax.Array:
    """What the head sees: logits are no less precise than float32."""
    return x if dtype is None else x.astype(jnp.float32)


def check_vit(shape: tuple[int, ...], patch: int, width: int, heads: int):
    """Whether images and width can be cut up.

    Raises:
        ValueError: if they cannot.
    """
    if shape[1] % patch or shape[2] % patch:
        raise ValueError(
            f"images of shape {shape[1:]} cannot be cut into patches of"
            f" {patch} x {patch} pixels: choose a patch_size that divides"
            f" {shape[1]} and {shape[2]}."
        )
    if width % heads or width % 4:
        raise ValueError(
            f"width={width}, heads={heads}: the width has to be a multiple of"
            " the number of heads, and of 4, for the positions."
        )


def grid_positions(height: int, width: int, channels: int) -> np.ndarray:
    """Sines and cosines of the two coordinates of each cell of a grid.

    Args:
        height: of the grid.
        width: of the grid.
        channels: a multiple of 4: sine and cosine, row and column.

    Returns:
        float32, of shape `(height, width, channels)`.
    """
    quarter = channels // 4
    # Wave lengths from 2 pi to 10,000 times that, as of words in a sentence.
    frequencies = 10_000.0 ** -(np.arange(quarter) / quarter)
    rows, columns = np.indices((height, width))[..., None] * frequencies
    waves = np.sin(rows), np.cos(rows), np.sin(columns), np.cos(columns)
    return np.concatenate(waves, axis=-1).astype(np.float32)
