"""A multilayer perceptron in Linen."""

import jax
from flax import linen as nn

from psi_optax.models.linen.layers import BatchNormNetwork, head


class MLP(BatchNormNetwork):
    """A multilayer perceptron with batch normalization.

    Every hidden layer is a linear map without bias, a batch normalization and
    a ReLU; the head is linear with a bias. The loss of a training batch does
    not change when a column of `hidden_i/kernel` is multiplied by a positive
    number (up to `epsilon`), so the columns are scale groups. `norm_i/scale`
    and `norm_i/bias` are one scale group together, but for the last ones, which
    the head sees.

    Its other attributes are those of `BatchNormNetwork`.

    Attributes:
        widths: number of units of each hidden layer.
        num_classes: number of outputs.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model = MLP(widths=(16,), num_classes=10)
        >>> images = jnp.ones((4, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), images, train=False)
        >>> jax.tree.map(jnp.shape, variables["params"]["hidden_0"])
        {'kernel': (64, 16)}
        >>> logits, updates = model.apply(
        ...     variables, images, train=True, mutable=["batch_stats"]
        ... )
        >>> logits.shape
        (4, 10)
    """

    widths: tuple[int, ...] = (64, 64)
    num_classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of inputs, of shape `(batch, ...)`; all but the first
                axis are flattened.
            train: normalize by the statistics of this batch, and update the
                running ones if `batch_stats` is mutable; otherwise normalize
                by the running ones.

        Returns:
            Logits of shape `(batch, num_classes)`.
        """
        layers = self.layers(train)
        x = x.reshape(x.shape[0], -1)
        for index, width in enumerate(self.widths):
            x = nn.Dense(
                width,
                use_bias=False,
                kernel_init=nn.initializers.he_normal(),
                dtype=self.dtype,
                name=f"hidden_{index}",
            )(x)
            x = nn.relu(layers.norm(f"norm_{index}")(x))
        return head(x, self.num_classes, self.dtype)
