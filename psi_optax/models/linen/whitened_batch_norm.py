"""Batch normalization that removes correlations of channels, in Linen."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from psi_optax._validation import check_choice
from psi_optax.models.functions.norm_parts import affine, check_channels
from psi_optax.models.functions.whitening import (
    METHODS,
    batch_covariance,
    inverse_root,
    whiten,
)


class WhitenedBatchNorm(nn.Module):
    r"""A batch normalization by the whole covariance of channels.

    \[y = (\Sigma + \epsilon)^{-1/2} (x - \mu),\]

    within groups of channels, then a scale and a bias. The channels of a group
    are one scale group of a kernel before it, as `blocks` if there are several.
    A batch should have more positions than a group has channels.

    In evaluation mode mean and covariance are running ones, from which the
    matrix follows: a running mean of matrices whitens nothing.

    The cost per step is that of a product of c channels with their group, and
    3 products of matrices per step of "newton_schulz".

    Attributes:
        num_groups: number of groups of channels.
        method: "newton_schulz", by matrix products, or "eigh", exact.
        steps: of Newton-Schulz. Few steps whiten partly: directions of a
            variance below about \((3/2)^{-2 t}\) of the sum remain small.
        use_running_average: True for evaluation mode; here or in the call.
        momentum: see `psi_optax.models.options.BatchNormOptions`.
        epsilon: number that is added to the variances. At 0 the scale
            invariance is exact, and a group of constant channels gives NaN.
        axis_name: see `BatchNormOptions`.
        dtype: type of the outputs; the computation is in float32 at least. None
            for that of the inputs.

    Raises:
        ValueError: the number of groups does not divide that of channels; an
            unknown method.

    Examples:
        >>> x = jax.random.normal(jax.random.key(0), (64, 3)) + 1
        >>> layer = WhitenedBatchNorm(use_running_average=False)
        >>> variables = layer.init(jax.random.key(0), x)
        >>> y, _ = layer.apply(variables, x, mutable=["batch_stats"])
        >>> bool(jnp.allclose(y.T @ y / 64, jnp.eye(3), atol=1e-3))
        True

    References:
        Huang et al., [Decorrelated batch
        normalization](https://arxiv.org/abs/1804.08450), CVPR 2018;
        Huang et al., [Iterative
        normalization](https://arxiv.org/abs/1904.03441), CVPR 2019, here with
        the coupled iteration, which does not diverge.
    """

    num_groups: int = 1
    method: str = "newton_schulz"
    steps: int = 12
    use_running_average: bool | None = None
    momentum: float = 0.99
    epsilon: float = 1e-5
    axis_name: str | None = None
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, use_running_average: bool | None = None
    ) -> jax.Array:
        """Return normalized inputs of shape `(..., channels)`."""
        check_choice("method", self.method, METHODS)
        check_channels(x.shape[-1], self.num_groups)
        statistics = self._statistics(
            x,
            nn.merge_param(
                "use_running_average",
                self.use_running_average,
                use_running_average,
            ),
        )
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        mean, covariance = statistics
        root = inverse_root(covariance, self.method, self.steps, self.epsilon)
        y = affine(whiten(x, mean, root), scale, bias)
        return y.astype(x.dtype if self.dtype is None else self.dtype)

    def _statistics(
        self, x: jax.Array, is_running: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Return the mean and covariance, and update the running ones."""
        channels, n = x.shape[-1], x.shape[-1] // self.num_groups
        shape = (self.num_groups, n, n)
        running = (
            self.variable("batch_stats", "mean", jnp.zeros, (channels,)),
            self.variable(
                "batch_stats",
                "covariance",
                lambda: jnp.broadcast_to(jnp.eye(n), shape),
            ),
        )
        if is_running:
            return running[0].value, running[1].value
        is_initializing = self.is_initializing()
        axis_name = None if is_initializing else self.axis_name
        found = batch_covariance(x, self.num_groups, axis_name)
        if not is_initializing:
            for old, new in zip(running, found, strict=True):
                new = (1 - self.momentum) * new.astype(old.value.dtype)
                old.value = self.momentum * old.value + new
        return found
