"""Batch normalization that removes correlations of channels, in NNX."""

import jax
import jax.numpy as jnp
from flax import nnx

from psi_optax._validation import check_choice
from psi_optax.models.functions.norm_parts import affine, check_channels
from psi_optax.models.functions.whitening import (
    METHODS,
    batch_covariance,
    inverse_root,
    whiten,
)


class WhitenedBatchNorm(nnx.Module):
    """A batch normalization by the whole covariance of channels.

    See its twin `psi_optax.models.linen.WhitenedBatchNorm`.

    Args:
        num_features: number of channels.
        num_groups: see the twin.
        method: see the twin.
        steps: see the twin.
        use_running_average: True for evaluation mode, as after `eval()`.
        momentum: see the twin.
        epsilon: see the twin.
        axis_name: see the twin.
        dtype: see the twin.

    Raises:
        ValueError: see the twin.

    Examples:
        >>> x = jax.random.normal(jax.random.key(0), (64, 3)) + 1
        >>> y = WhitenedBatchNorm(3)(x)
        >>> bool(jnp.allclose(y.T @ y / 64, jnp.eye(3), atol=1e-3))
        True
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int = 1,
        *,
        method: str = "newton_schulz",
        steps: int = 12,
        use_running_average: bool = False,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        axis_name: str | None = None,
        dtype: jax.typing.DTypeLike | None = None,
    ):
        check_choice("method", method, METHODS)
        check_channels(num_features, num_groups)
        n = num_features // num_groups
        eyes = jnp.broadcast_to(jnp.eye(n), (num_groups, n, n))
        self.mean = nnx.BatchStat(jnp.zeros(num_features))
        self.covariance = nnx.BatchStat(eyes)
        self.scale = nnx.Param(jnp.ones(num_features))
        self.bias = nnx.Param(jnp.zeros(num_features))
        self.num_groups = num_groups
        self.method = method
        self.steps = steps
        self.use_running_average = use_running_average
        self.momentum = momentum
        self.epsilon = epsilon
        self.axis_name = axis_name
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return normalized inputs of shape `(..., channels)`."""
        mean, covariance = self._statistics(x)
        root = inverse_root(covariance, self.method, self.steps, self.epsilon)
        y = affine(whiten(x, mean, root), self.scale[...], self.bias[...])
        return y.astype(x.dtype if self.dtype is None else self.dtype)

    def _statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the mean and covariance, and update the running ones."""
        running = self.mean, self.covariance
        if self.use_running_average:
            return self.mean[...], self.covariance[...]
        found = batch_covariance(x, self.num_groups, self.axis_name)
        for old, new in zip(running, found, strict=True):
            new = (1 - self.momentum) * new.astype(old[...].dtype)
            old[...] = self.momentum * old[...] + new
        return found
