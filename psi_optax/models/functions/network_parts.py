"""Operations of the networks of both frameworks."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

__all__ = [
    "flatten",
    "global_average_pool",
    "head_input",
    "identity",
    "max_pool_2x2",
    "max_pool_3x3",
    "position_encoding",
    "squared_relu",
    "tied_logits",
    "tokens_with_positions",
    "vgg_features",
    "vgg_num_features",
    "zero_pad_shortcut",
]

# Height and width that VGG's stages leave of an image of 224 x 224 pixels.
_VGG_PIXELS = 7


def identity(x: jax.Array) -> jax.Array:
    """Return x, in place of a normalization."""
    return x


def squared_relu(x: jax.Array) -> jax.Array:
    """Return the squares of positive elements, and zero for others.

    Unlike GELU it is homogeneous: a positive factor of x is a factor of the
    result. It is the activation of [Primer](https://arxiv.org/abs/2109.08668).
    """
    return jax.nn.relu(x) ** 2


def flatten(x: jax.Array) -> jax.Array:
    """Return inputs `(batch, ...)` as `(batch, features)`."""
    return x.reshape(x.shape[0], -1)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Return the maxima of 2x2 windows with stride 2, cut at odd edges."""
    return linen.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")


def max_pool_3x3(x: jax.Array) -> jax.Array:
    """Return the maxima of 3x3 windows with stride 2 and padding 1."""
    padding = ((1, 1), (1, 1))
    return linen.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


def global_average_pool(x: jax.Array) -> jax.Array:
    """Return the mean over height and width, `(batch, channels)`."""
    return x.mean((1, 2))


def zero_pad_shortcut(x: jax.Array, width: int, stride: int) -> jax.Array:
    """Return every `stride`-th pixel, zero-padded to `width` channels."""
    more = width - x.shape[-1]
    if stride > 1:
        x = x[:, ::stride, ::stride]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more))) if more else x


def head_input(x: jax.Array, dtype: jax.typing.DTypeLike | None) -> jax.Array:
    """Return the input of the head: in float32 after a computation in dtype."""
    return x if dtype is None else x.astype(jnp.float32)


def tied_logits(
    x: jax.Array, embedding: jax.Array, dtype: jax.typing.DTypeLike | None
) -> jax.Array:
    """Return logits, the products of x with the embeddings of all tokens.

    Args:
        x: features of shape `(batch, length, channels)`.
        embedding: embeddings of shape `(vocabulary, channels)`.
        dtype: type of the computation up to the features. None for logits of
            the features' type, otherwise logits are in float32.

    Returns:
        Logits of shape `(batch, length, vocabulary)`.
    """
    return head_input(x, dtype) @ embedding.T


def vgg_num_features(width: int, has_dense: bool) -> int:
    """Return the number of features that `vgg_features` returns."""
    return width * _VGG_PIXELS**2 if has_dense else width


def vgg_features(x: jax.Array, has_dense: bool) -> jax.Array:
    """Return all pixels for VGG's dense layers, or their mean for a head alone.

    Args:
        x: output of the last stage, `(batch, height, width, channels)`.
        has_dense: True for dense layers before the head.

    Returns:
        Features of shape `(batch, features)`.

    Raises:
        ValueError: if dense layers get images of another size than 224 x 224.
    """
    if not has_dense:
        return global_average_pool(x)
    if x.shape[1:3] != (_VGG_PIXELS, _VGG_PIXELS):
        raise ValueError(
            f"VGG's dense layers take {_VGG_PIXELS} x {_VGG_PIXELS} pixels, and"
            f" its stages return features of shape {x.shape}: pass images of"
            " 224 x 224 pixels, or dense=() for a head alone."
        )
    return flatten(x)


def tokens_with_positions(x: jax.Array) -> jax.Array:
    """Return embedded patches as tokens, with their positions added.

    Args:
        x: patches of shape `(batch, height, width, channels)`.

    Returns:
        Tokens of shape `(batch, height * width, channels)`.
    """
    x = x + position_encoding(*x.shape[1:]).astype(x.dtype)[None]
    return x.reshape(len(x), -1, x.shape[-1])


def position_encoding(height: int, width: int, channels: int) -> np.ndarray:
    """Return sines and cosines of the coordinates of each cell of a grid.

    Args:
        height: number of rows.
        width: number of columns.
        channels: multiple of 4, for sines and cosines of rows and columns.

    Returns:
        Array in float32, of shape `(height, width, channels)`.
    """
    quarter = channels // 4
    # Wavelengths from 2 pi to 10,000 times that (Vaswani et al., 2017).
    frequencies = 10_000.0 ** -(np.arange(quarter) / quarter)
    rows, columns = np.indices((height, width))[..., None] * frequencies
    waves = np.sin(rows), np.cos(rows), np.sin(columns), np.cos(columns)
    return np.concatenate(waves, axis=-1).astype(np.float32)
