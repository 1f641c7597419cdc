"""VGG in Linen."""

import jax
from flax import linen as nn

from psi_optax.models.architectures import Convolution
from psi_optax.models.functions import pool_2x2, vgg_features
from psi_optax.models.linen.layers import BatchNormNetwork, NormedConv, head


class VGG(BatchNormNetwork):
    """VGG with batch normalization: 3x3 convolutions, maxima between stages.

    By default the mean over the pixels that are left (of 32 x 32 it is one)
    goes to a head alone, as is usual for CIFAR: 9,228,362 parameters at depth
    11, 14,724,042 at depth 16. With `dense=(4096, 4096)` and 1000 classes,
    for images of 224 x 224, it is the network of the paper, without its
    dropout: 132,866,088 and 138,361,768 parameters.

    That is 2,752 and 4,224 fewer than other libraries have (132,868,840 and
    138,365,992), whose convolutions have biases, which do nothing here: the
    batch normalizations subtract them.

    The filters of `layer_i/conv/kernel` are scale groups; `layer_i/norm/scale`
    and `layer_i/norm/bias` are one together, but for the last layer's.

    Its other attributes are those of `BatchNormNetwork`.

    Attributes:
        stages: the number of channels of each convolution, stage by stage.
        num_classes: number of outputs.
        dense: number of units of each dense layer before the head.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from psi_optax.models.architectures import vgg
        >>> model = VGG(vgg(16))
        >>> images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        >>> init = lambda key, x: model.init(key, x, train=False)["params"]
        >>> params = jax.eval_shape(init, jax.random.key(0), images)
        >>> sum(x.size for x in jax.tree.leaves(params))
        14724042

    References:
        Simonyan & Zisserman, [Very Deep Convolutional Networks for Large-Scale
        Image Recognition](https://arxiv.org/abs/1409.1556), 2014.
    """

    stages: tuple[tuple[int, ...], ...]
    num_classes: int = 10
    dense: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of images, of shape `(batch, height, width, channels)`.
            train: as in `MLP`.

        Returns:
            Logits of shape `(batch, num_classes)`.

        Raises:
            ValueError: dense layers, and images of another size than they are
                for.
        """
        layers = self.layers(train)
        index = 0
        for widths in self.stages:
            for width in widths:
                convolution = Convolution(width, 3)
                layer = NormedConv(convolution, layers, name=f"layer_{index}")
                x = nn.relu(layer(x))
                index += 1
            x = pool_2x2(x)
        x = vgg_features(x, bool(self.dense))
        for index, width in enumerate(self.dense):
            dense = nn.Dense(width, dtype=self.dtype, name=f"dense_{index}")
            x = nn.relu(dense(x))
        return head(x, self.num_classes, self.dtype)
