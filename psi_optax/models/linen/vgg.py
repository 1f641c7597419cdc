"""VGG in Linen."""

import itertools

import jax
from flax import linen as nn

from psi_optax.models.architectures import NUM_CLASSES, ConvolutionArchitecture
from psi_optax.models.functions import max_pool_2x2, vgg_features
from psi_optax.models.linen.layers import BatchNormNetwork, NormedConv, head


class VGG(BatchNormNetwork):
    """VGG with batch normalization: 3x3 convolutions, and pooled stages.

    By default the head alone reads the mean over the remaining pixels (one
    pixel for images of 32 x 32), as usual for CIFAR: 9,228,362 parameters at
    depth 11 and 14,724,042 at depth 16. With `dense=(4096, 4096)` and 1000
    classes, for images of 224 x 224, it is the network of the paper without
    dropout: 132,866,088 and 138,361,768 parameters.

    Other libraries have 2,752 and 4,224 more parameters (132,868,840 and
    138,365,992): the biases of their convolutions. They have no effect, since
    the batch normalizations subtract them.

    The filters of `layer_i/conv/kernel` are scale groups. `layer_i/norm/scale`
    and `layer_i/norm/bias` form one joint group, except those of the last
    layer.

    See `psi_optax.models.options.BatchNormOptions` for the other attributes.

    Attributes:
        stages: number of channels of each convolution, stage by stage, such as
            `psi_optax.models.architectures.vgg` returns.
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
    num_classes: int = NUM_CLASSES
    dense: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits of images `(batch, height, width, channels)`.

        Raises:
            ValueError: if dense layers get images of another size than
                224 x 224.
        """
        layers = self.layers(train)
        widths = itertools.chain(*self.stages)
        convolutions = (
            NormedConv(
                ConvolutionArchitecture(width, 3), layers, name=f"layer_{index}"
            )
            for index, width in enumerate(widths)
        )
        for stage in self.stages:
            for convolution in itertools.islice(convolutions, len(stage)):
                x = nn.relu(convolution(x))
            x = max_pool_2x2(x)
        x = vgg_features(x, bool(self.dense))
        for index, width in enumerate(self.dense):
            dense = nn.Dense(width, dtype=self.dtype, name=f"dense_{index}")
            x = nn.relu(dense(x))
        return head(x, self.num_classes, self.dtype)
