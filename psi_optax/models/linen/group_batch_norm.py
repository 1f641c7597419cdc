"""A mixture of group and batch normalization, in Linen."""

import functools

import jax
from flax import linen as nn

from psi_optax._validation import check_choice
from psi_optax.models.functions.norm_parts import (
    ORDERS,
    affine,
    check_channels,
    mix_normalizations,
)


class GroupBatchNorm(nn.Module):
    r"""A learned mixture of group and batch normalization.

    In training an example is normalized partly by itself, so that small batches
    suffice. With a learned \(\lambda\) of shape (), `mix`,

    | order | outputs before scale and bias |
    |---|---|
    | "gn_first" | \(\lambda\,g + (1-\lambda)\,B(g)\), \(g = G(x)\) |
    | "bn_first" | \(\lambda\,G(b) + (1-\lambda)\,b\), \(b = B(x)\) |
    | "parallel" | \(\lambda\,G(x) + (1-\lambda)\,B(x)\) |

    With "bn_first" each channel of a kernel before it is a scale group. In the
    other orders the channels of a group are one, as `blocks`.

    In evaluation mode the batch normalization has running statistics.

    Attributes:
        num_groups: number of groups of channels.
        order: see the table.
        mix_init: \(\lambda\) before training: 1 for group normalization.
        use_running_average: True for evaluation mode; here or in the call.
        momentum: see `psi_optax.models.options.BatchNormOptions`.
        epsilon: see there.
        axis_name: see there.
        dtype: see there.

    Raises:
        ValueError: the number of groups does not divide that of channels; an
            unknown order.

    Examples:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(24.0).reshape(2, 3, 4)
        >>> layer = GroupBatchNorm(num_groups=2, use_running_average=False)
        >>> variables = layer.init(jax.random.key(0), x)
        >>> sorted(variables["params"])
        ['bias', 'mix', 'scale']
        >>> y, _ = layer.apply(variables, x, mutable=["batch_stats"])
        >>> y.shape
        (2, 3, 4)

    References:
        Summers and Dinneen, [Four things everyone should know to improve batch
        normalization](https://arxiv.org/abs/1906.03548), ICLR 2020; here with
        running statistics.
    """

    num_groups: int
    order: str = "gn_first"
    mix_init: float = 0.5
    use_running_average: bool | None = None
    momentum: float = 0.99
    epsilon: float = 1e-5
    axis_name: str | None = None
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, use_running_average: bool | None = None
    ) -> jax.Array:
        """Return normalized inputs of shape `(batch, ..., channels)`."""
        check_choice("order", self.order, ORDERS)
        check_channels(x.shape[-1], self.num_groups)
        options = {
            "epsilon": self.epsilon,
            "dtype": self.dtype,
            "use_bias": False,
            "use_scale": False,
            # The fast variance cancels, see `BatchNormOptions`.
            "use_fast_variance": False,
        }
        group_norm = nn.GroupNorm(self.num_groups, name="group_norm", **options)
        batch_norm = functools.partial(
            nn.BatchNorm(
                momentum=self.momentum,
                axis_name=self.axis_name,
                name="batch_norm",
                **options,
            ),
            use_running_average=nn.merge_param(
                "use_running_average",
                self.use_running_average,
                use_running_average,
            ),
        )
        start = nn.initializers.constant(self.mix_init)
        mix = self.param("mix", start, ())
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        y = mix_normalizations(x, group_norm, batch_norm, mix, self.order)
        y = affine(y, scale, bias)
        return y.astype(x.dtype if self.dtype is None else self.dtype)
