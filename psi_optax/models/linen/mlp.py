"""A multilayer perceptron in Linen."""

import jax
from flax import linen as nn

from psi_optax.models.architectures import MLP_WIDTHS, NUM_CLASSES
from psi_optax.models.functions import flatten
from psi_optax.models.linen.layers import BatchNormNetwork, head
from psi_optax.models.options import hidden_options


class MLP(BatchNormNetwork):
    """A multilayer perceptron with batch normalization.

    Each hidden layer is a linear map without bias, a batch normalization and a
    ReLU. The head is a linear map with a bias.

    The columns of `hidden_i/kernel` are scale groups: the loss of a training
    batch does not change when one is multiplied by a positive number (up to
    `epsilon`). `norm_i/scale` and `norm_i/bias` form one joint group, except
    those of the last hidden layer, which the head reads.

    See `psi_optax.models.options.BatchNormOptions` for the other attributes.

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

    widths: tuple[int, ...] = MLP_WIDTHS
    num_classes: int = NUM_CLASSES

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits of inputs `(batch, ...)`, which are flattened."""
        layers = self.layers(train)
        options = hidden_options(self.dtype)
        x = flatten(x)
        for index, width in enumerate(self.widths):
            x = nn.Dense(width, name=f"hidden_{index}", **options)(x)
            x = nn.relu(layers.norm(f"norm_{index}")(x))
        return head(x, self.num_classes, self.dtype)
