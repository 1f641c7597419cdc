r"""The part of a layer's weights that gradients can change.

The gradient of a linear map \(z = xW\) is \(\sum_n x_n\,dz_n^\top\), a
combination of its inputs. Before BatchNorm the sum of \(dz_n\) is zero, so the
gradient has no part along the mean of the inputs either. SGD changes the part
of the weights outside this span by weight decay alone.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from psi_optax.groups.reductions import accumulation_dtype


def split_by_input_span(
    kernel: jax.Array, inputs: jax.Array, *, centered: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Split a kernel into the part that its gradients can change, and the rest.

    The span is from a singular value decomposition of the inputs, of n · fan_in
    · min(n, fan_in) operations. Directions with a singular value below
    max(n, fan_in) times the dtype's precision, relative to the largest, are not
    part of it.

    Args:
        kernel: of shape (..., out), floating; fan_in is the product of all
            axes but the last.
        inputs: of shape (n, fan_in), in the order of the kernel's weights: all
            inputs of the layer; see `input_patches` for convolutions.
        centered: whether to subtract the mean of the inputs, as before
            BatchNorm. BatchNorm subtracts the mean of *each* batch: for several
            batches, center the inputs of each, and pass all of them with
            `centered=False`.

    Returns:
        (inside, outside), of the kernel's shape and dtype. Their sum is the
        kernel. The columns of one are orthogonal to those of the other.

    Raises:
        ValueError: the inputs do not have the shape (n, fan_in).

    Examples:
        >>> kernel = jnp.array([[1.0], [2.0]])
        >>> inputs = jnp.array([[5.0, 0.0], [7.0, 0.0]])
        >>> inside, outside = split_by_input_span(kernel, inputs)
        >>> inside.tolist(), outside.tolist()
        ([[1.0], [0.0]], [[0.0], [2.0]])

    References:
        Liu et al., [Implicit biases of SGD on networks with batch
        normalization](https://arxiv.org/abs/2102.03497v1), 2021.
    """
    wide = accumulation_dtype(kernel.dtype)
    weights = kernel.astype(wide).reshape(-1, kernel.shape[-1])
    if inputs.ndim != 2 or inputs.shape[1] != len(weights):
        raise ValueError(
            f"inputs have shape {inputs.shape}: a kernel of shape"
            f" {kernel.shape} needs (n, {len(weights)})."
        )
    inputs = inputs.astype(wide)
    for _ in range(2 * centered):  # Twice, as the mean is rounded.
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
    """Return the inputs of a convolution, one row per position.

    Args:
        images: of shape (batch, height, width, channels), floating.
        window: height and width of the kernel.
        strides: of the convolution.
        padding: of the convolution, "SAME", "VALID" or two pairs.

    Returns:
        An array of shape (n, window height * window width * channels), in the
        order of a kernel (height, width, in, out), n counting images and
        positions. Its product with the reshaped kernel is the convolution.

    Raises:
        ValueError: the images are not of rank four.

    Examples:
        >>> input_patches(jnp.ones((2, 8, 8, 3)), (3, 3), strides=(2, 2)).shape
        (32, 27)
    """
    if images.ndim != 4:
        raise ValueError(
            f"images have shape {images.shape}: pass an array of shape (batch,"
            " height, width, channels)."
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
    # Patches have the channels first, kernels have them last.
    patches = patches.reshape(-1, channels, window[0] * window[1])
    return patches.transpose(0, 2, 1).reshape(len(patches), -1)
