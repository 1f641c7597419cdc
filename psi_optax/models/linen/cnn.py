"""A small convolutional network in Linen."""

import jax
from flax import linen as nn

from psi_optax.models.architectures import CNN_WIDTHS, NUM_CLASSES
from psi_optax.models.functions import global_average_pool
from psi_optax.models.linen.layers import BatchNormNetwork, head
from psi_optax.models.options import hidden_conv_options


class CNN(BatchNormNetwork):
    """A convolutional network with batch normalization.

    Each hidden layer is a 3x3 convolution with stride 2 and without bias, a
    batch normalization and a ReLU. The head, a linear map with a bias, reads
    the mean over all pixels.

    The filters of `hidden_i/kernel` (its slices along the last axis) are scale
    groups. `norm_i/scale` and `norm_i/bias` form one joint group, except those
    of the last hidden layer, which the head reads.

    See `psi_optax.models.options.BatchNormOptions` for the other attributes.

    Attributes:
        widths: number of channels of each hidden layer.
        num_classes: number of outputs.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model = CNN(widths=(8, 16), num_classes=10)
        >>> images = jnp.ones((4, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), images, train=False)
        >>> jax.tree.map(jnp.shape, variables["params"]["hidden_1"])
        {'kernel': (3, 3, 8, 16)}
        >>> model.apply(variables, images, train=False).shape
        (4, 10)
    """

    widths: tuple[int, ...] = CNN_WIDTHS
    num_classes: int = NUM_CLASSES

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits of images `(batch, height, width, channels)`."""
        layers = self.layers(train)
        options = hidden_conv_options(self.dtype)
        for index, width in enumerate(self.widths):
            x = nn.Conv(width, name=f"hidden_{index}", **options)(x)
            x = nn.relu(layers.norm(f"norm_{index}")(x))
        return head(global_average_pool(x), self.num_classes, self.dtype)
