"""A mixture of group and batch normalization, in NNX."""

import jax
import jax.numpy as jnp
from flax import nnx

from psi_optax._validation import check_choice
from psi_optax.models.functions.norm_parts import (
    ORDERS,
    affine,
    check_channels,
    mix_normalizations,
)


class GroupBatchNorm(nnx.Module):
    """A learned mixture of group and batch normalization.

    See its twin `psi_optax.models.linen.GroupBatchNorm`.

    Args:
        num_features: number of channels.
        num_groups: see the twin, and so on.
        order: see the twin.
        mix_init: see the twin.
        momentum: see the twin.
        epsilon: see the twin.
        axis_name: see the twin.
        dtype: see the twin.
        rngs: random keys.

    Raises:
        ValueError: see the twin.

    Examples:
        >>> layer = GroupBatchNorm(4, num_groups=2, rngs=nnx.Rngs(0))
        >>> layer(jnp.arange(24.0).reshape(2, 3, 4)).shape
        (2, 3, 4)
        >>> layer.eval()
        >>> layer.batch_norm.use_running_average
        True
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int,
        *,
        order: str = "gn_first",
        mix_init: float = 0.5,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        axis_name: str | None = None,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        check_choice("order", order, ORDERS)
        check_channels(num_features, num_groups)
        self.order = order
        self.dtype = dtype
        self.group_norm = nnx.GroupNorm(
            num_features,
            num_groups,
            epsilon=epsilon,
            dtype=dtype,
            use_bias=False,
            use_scale=False,
            use_fast_variance=False,
            rngs=rngs,
        )
        self.batch_norm = nnx.BatchNorm(
            num_features,
            momentum=momentum,
            epsilon=epsilon,
            axis_name=axis_name,
            dtype=dtype,
            use_bias=False,
            use_scale=False,
            use_fast_variance=False,
            rngs=rngs,
        )
        self.mix = nnx.Param(jnp.full((), mix_init))
        self.scale = nnx.Param(jnp.ones(num_features))
        self.bias = nnx.Param(jnp.zeros(num_features))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return normalized inputs of shape `(batch, ..., channels)`."""
        y = mix_normalizations(
            x, self.group_norm, self.batch_norm, self.mix[...], self.order
        )
        y = affine(y, self.scale[...], self.bias[...])
        return y.astype(x.dtype if self.dtype is None else self.dtype)
