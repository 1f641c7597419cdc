"""VGG in NNX."""

import itertools
from typing import Unpack

import jax
from flax import nnx

from psi_optax.models.architectures import Convolution
from psi_optax.models.functions import VGG_PIXELS, pool_2x2, vgg_features
from psi_optax.models.nnx.layers import (
    BatchNormOptions,
    Layers,
    NormedConv,
    add_layers,
    layers_of,
)


class VGG(nnx.Module):
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

    Args:
        in_features: number of channels of the images.
        stages: the number of channels of each convolution, stage by stage.
        num_classes: number of outputs.
        dense: number of units of each dense layer before the head.
        rngs: random keys; the stream `params` is used.
        options: `epsilon`, `momentum`, `axis_name` and `dtype`, as in
            `BatchNormOptions`.

    Examples:
        >>> import jax
        >>> from flax import nnx
        >>> from psi_optax.models.architectures import vgg
        >>> model = nnx.eval_shape(lambda: VGG(3, vgg(16), rngs=nnx.Rngs(0)))
        >>> params = jax.tree.leaves(nnx.state(model, nnx.Param))
        >>> sum(x.size for x in params)
        14724042

    References:
        Simonyan & Zisserman, [Very Deep Convolutional Networks for Large-Scale
        Image Recognition](https://arxiv.org/abs/1409.1556), 2014.
    """

    def __init__(
        self,
        in_features: int,
        stages: tuple[tuple[int, ...], ...],
        num_classes: int = 10,
        dense: tuple[int, ...] = (),
        *,
        rngs: nnx.Rngs,
        **options: Unpack[BatchNormOptions],
    ):
        layers = Layers(rngs, **options)
        widths = (in_features, *itertools.chain(*stages))
        convolutions = (
            NormedConv(fan_in, Convolution(width, 3), layers)
            for fan_in, width in itertools.pairwise(widths)
        )
        add_layers(self, "layer", convolutions)
        features = widths[-1] * (VGG_PIXELS**2 if dense else 1)
        sizes = (features, *dense)
        linear = (
            nnx.Linear(fan_in, width, dtype=layers.dtype, rngs=rngs)
            for fan_in, width in itertools.pairwise(sizes)
        )
        add_layers(self, "dense", linear)
        self.head = layers.head(sizes[-1], num_classes)
        self.depths = tuple(len(widths) for widths in stages)
        self.num_dense = len(dense)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of images, of shape `(batch, height, width, channels)`.

        Returns:
            Logits of shape `(batch, num_classes)`.

        Raises:
            ValueError: dense layers, and images of another size than they are
                for.
        """
        layers = layers_of(self, "layer", sum(self.depths))
        for depth in self.depths:
            for layer in itertools.islice(layers, depth):
                x = nnx.relu(layer(x))
            x = pool_2x2(x)
        x = vgg_features(x, bool(self.num_dense))
        for dense in layers_of(self, "dense", self.num_dense):
            x = nnx.relu(dense(x))
        return self.head(x)
