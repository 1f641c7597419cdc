r"""Which part of the weights the inputs of a layer can reach.

The gradient of a linear map \(z = xW\) is \(\sum_n x_n\,dz_n^\top\), a
combination of its inputs; in front of BatchNorm the sum of \(dz_n\) is zero, so
that even the mean of the inputs is out of reach. What gradients never touch
stays as it was initialized: SGD leaves it, and weight decay alone removes it.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from psi_optax.groups.reductions import accumulation_dtype


def split_by_input_span(
    kernel: jax.Array, inputs: jax.Array, *, centered: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Splits a kernel into what its gradients can change and the rest.

    By a singular value decomposition of the inputs: n · fan_in ·
    min(n, fan_in) operations. Directions whose singular value is below
    max(n, fan_in) times the dtype's precision of the largest count as no part
    of the span.

    Args:
        kernel: of shape (..., out), floating; fan_in is the product of all
            axes but the last.
        inputs: of shape (n, fan_in), in the order of the kernel's weights: all
            that the layer was shown; see `input_patches` for convolutions.
        centered: whether the mean of the inputs is taken off, as in front of
            BatchNorm. It is BatchNorm's over *each* batch; the span for
            batches of one run is that of the centred inputs of all of them.

    Returns:
        (inside, outside), of the kernel's shape and dtype, orthogonal column
        by column, with the kernel as their sum.

    Raises:
        ValueError: shapes that do not fit.

    Examples:
        >>> kernel = jnp.array([[1.0], [2.0]])
        >>> inputs = jnp.array([[5.0, 0.0], [7.0, 0.0]])
        >>> inside, outside = split_by_input_span(kernel, inputs)
        >>> inside.tolist(), outside.tolist()
        ([[1.0], [0.0]], [[0.0], [2.0]])

    References:
        Liu et al., [Implicit biases of SGD on networks with batch
        normalization](https://arxiv.org/abs/2102.03497), 2021.
    """
    wide = accumulation_dtype(kernel.dtype)
    weights = kernel.astype(wide).reshape(-1, kernel.shape[-1])
    if inputs.ndim != 2 or inputs.shape[1] != len(weights):
        raise ValueError(
            f"inputs have shape {inputs.shape}, but a kernel of shape"
            f" {kernel.shape} needs (n, {len(weights)})."
        )
    inputs = inputs.astype(wide)
    for _ in range(2 * centered):  # Twice: the mean is rounded.
        inputs = inputs - inputs.mean(0, keepdims=True)
    _, values, basis = jnp.linalg.svd(inputs, full_matrices=False)
    limit = max(inputs.shape) * jnp.finfo(values.dtype).eps
    basis = jnp.where((values > limit * values[0])[:, None], basis, 0)
    dot = jax.lax.Precision.HIGHEST
    reached = jnp.matmul(basis, weights, precision=dot)
    inside = jnp.matmul(basis.T, reached, precision=dot)

    def like_kernel(part: jax.Array) -> jax.Array:
        return part.reshape(kernel.shape).astype(kernel.dtype)

    return like_kernel(inside), like_kernel(weights - inside)


def input_patches(
    images: jax.Array,
    window: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    padding: Literal["SAME", "VALID"] | Sequence[tuple[int, int]] = "SAME",
) -> jax.Array:
    """What a convolution sees as its inputs, one row a position.

    Args:
        images: of shape (batch, height, width, channels), floating.
        window: the kernel's height and width.
        strides: the convolution's.
        padding: the convolution's, "SAME", "VALID" or two pairs.

    Returns:
        An array of shape (n, window height * window width * channels), in the
        order of a kernel (height, width, in, out), n counting images and
        positions. Its product with the reshaped kernel is the convolution.

    Raises:
        ValueError: images are not of rank four.

    Examples:
        >>> input_patches(jnp.ones((2, 8, 8, 3)), (3, 3), strides=(2, 2)).shape
        (32, 27)
    """
    if images.ndim != 4:
        raise ValueError(
            f"images have shape {images.shape}, not (batch, height, width,"
            " channels)."
        )
    channels = images.shape[-1]
    # A convolution with ones and zeros: exact at the highest precision.
    patches = jax.lax.conv_general_dilated_patches(
        images,
        window,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    # It lays channels out first, kernels have them last.
    patches = patches.reshape(-1, channels, window[0] * window[1])
    return patches.transpose(0, 2, 1).reshape(len(patches), -1)
