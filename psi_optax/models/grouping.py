"""The scale groups of the models, stated by hand."""

from typing import Any

import psi_optax

__all__ = ["HIDDEN_KERNELS", "scale_groups"]

HIDDEN_KERNELS = r"hidden_\d+/kernel"
"""Matches the path of every kernel that a batch normalization follows."""


def scale_groups(params: Any) -> Any:
    r"""State which weights of `MLP` and `CNN` are scale-invariant.

    Batch normalization divides each channel by its own standard deviation, so
    each output channel of a hidden kernel is one group. The head, whose scale
    the loss does see, and the normalizations' own scale and bias are ordinary.

    Args:
        params: parameters of one of the models: the `params` collection in
            Linen, `nnx.state(model, nnx.Param)` in NNX.

    Returns:
        A tree like `params` with a `psi_optax.ScaleGroup` at the hidden
        kernels and `None` at every other leaf.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from psi_optax.models import linen
        >>> model = linen.CNN(widths=(8,))
        >>> images = jnp.ones((2, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), images, train=False)
        >>> groups = scale_groups(variables["params"])
        >>> groups["hidden_0"]["kernel"].axes
        (0, 1, 2)
        >>> print(groups["head"]["kernel"])
        None
    """
    return psi_optax.output_channels(params, where=HIDDEN_KERNELS)
