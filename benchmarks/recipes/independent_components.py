"""The independent-component layer: a batch normalization, then a dropout.

It stands in front of a layer with weights, behind the activation. A dropout
that keeps a share p of normalized inputs multiplies their correlations by p.

References:
    Chen et al., [Rethinking the usage of batch normalization and dropout in the
    training of deep neural networks](https://arxiv.org/abs/1905.05928), 2019.
"""

import jax
from flax import linen as nn


class IndependentComponents(nn.Module):
    """Normalize over the batch without learned gains, and drop.

    The filters of the layer in front of the activation are scale groups if the
    activation is positively homogeneous, as ReLU is.

    Attributes:
        rate: share of inputs that the dropout zeros.
        epsilon: added to variances.

    Examples:
        >>> import jax.numpy as jnp
        >>> layer = IndependentComponents(0.5)
        >>> x = jnp.array([[1.0], [3.0]])
        >>> variables = layer.init(jax.random.key(0), x, train=False)
        >>> layer.apply(variables, x, train=False).shape
        (2, 1)
    """

    rate: float
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return normalized inputs; with `train` some of them are zeros."""
        x = nn.BatchNorm(
            not train, epsilon=self.epsilon, use_scale=False, use_bias=False
        )(x)
        return nn.Dropout(self.rate, deterministic=not train)(x)
