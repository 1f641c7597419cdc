"""A small convolutional network in Linen."""

import jax
from flax import linen as nn

from psi_optax.models.functions import mean_pixels
from psi_optax.models.linen.layers import BatchNormNetwork, head


class CNN(BatchNormNetwork):
    """A convolutional network with batch normalization.

    Every hidden layer is a 3x3 convolution of stride 2 without bias, a batch
    normalization and a ReLU; the mean over all pixels goes through a linear
    head with a bias. The filters of `hidden_i/kernel` (its slices along the
    last axis) are scale groups. `norm_i/scale` and `norm_i/bias` are one scale
    group together, but for the last ones, which the head sees.

    Its other attributes are those of `BatchNormNetwork`.

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

    widths: tuple[int, ...] = (8, 16, 32)
    num_classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of images, of shape `(batch, height, width, channels)`.
            train: as in `MLP`.

        Returns:
            Logits of shape `(batch, num_classes)`.
        """
        layers = self.layers(train)
        for index, width in enumerate(self.widths):
            x = nn.Conv(
                width,
                kernel_size=(3, 3),
                strides=(2, 2),
                use_bias=False,
                kernel_init=nn.initializers.he_normal(),
                dtype=self.dtype,
                name=f"hidden_{index}",
            )(x)
            x = nn.relu(layers.norm(f"norm_{index}")(x))
        return head(mean_pixels(x), self.num_classes, self.dtype)
