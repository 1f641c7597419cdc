"""Normalization of images by their neighborhoods."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psi_optax._validation import check_nonnegative

__all__ = ["divisive_normalization"]


def divisive_normalization(
    x: jax.Array,
    sum_window: int | None = None,
    suppression_window: int | None = None,
    sigma: ArrayLike = 1.0,
) -> jax.Array:
    r"""Subtract the mean of a neighborhood and divide by its root mean square.

    With means over all channels and a window around each position,

    \[v = x - \mathrm{mean}_A\, x, \qquad
      y = v / \sqrt{\sigma^2 + \mathrm{mean}_B\, v^2}.\]

    Windows of the whole image give the layer normalization with epsilon
    \(\sigma^2\). At a border the mean is over the positions that exist. With
    \(\sigma = 0\) the kernel of a convolution before it is one scale group;
    otherwise it is ordinary.

    Args:
        x: floating, of shape `(batch, *positions, channels)`.
        sum_window: odd length of the window A along each axis of positions;
            None for the whole image.
        suppression_window: that of the window B.
        sigma: nonnegative, a number or an array of shape (), which may be
            learned. With zero, a window of equal elements gives NaN.

    Returns:
        An array like x.

    Raises:
        TypeError: sigma is not a number.
        ValueError: an even or nonpositive window; a negative sigma; x of less
            than two axes.

    Examples:
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> y = divisive_normalization(x, sigma=0.0)
        >>> bool(abs(y.mean()) < 1e-6), round(float(y.std()), 3)
        (True, 1.0)

    References:
        Ren et al., [Normalizing the
        normalizers](https://arxiv.org/abs/1611.04520), ICLR 2017.
    """
    if x.ndim < 2:
        raise ValueError(
            f"x of shape {x.shape}: pass (batch, *positions, channels)."
        )
    for name, window in (
        ("sum_window", sum_window),
        ("suppression_window", suppression_window),
    ):
        if window is not None and (window < 1 or window % 2 == 0):
            raise ValueError(f"{name}={window}: pass an odd length, or None.")
    check_nonnegative("sigma", sigma)
    v = x - _local_mean(x, sum_window)
    square = jnp.asarray(sigma, x.dtype) ** 2 + _local_mean(
        v * v, suppression_window
    )
    return v / jnp.sqrt(square)


def _local_mean(x: jax.Array, window: int | None) -> jax.Array:
    """Return the mean over channels and a window, of one channel."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    positions = tuple(range(1, x.ndim - 1))
    if window is None:
        return jnp.mean(mean, axis=positions, keepdims=True)
    return _sum(mean, window) / _sum(jnp.ones_like(mean[:1]), window)


def _sum(x: jax.Array, window: int) -> jax.Array:
    """Return sums over windows of the positions that exist."""
    lengths = (1, *(window,) * (x.ndim - 2), 1)
    zero = x.dtype.type(0)
    return jax.lax.reduce_window(
        x, zero, jax.lax.add, lengths, (1,) * x.ndim, "SAME"
    )
