"""VGG in NNX."""

import itertools
from typing import Unpack

import jax
from flax import nnx

from psi_optax.models.architectures import NUM_CLASSES, ConvolutionArchitecture
from psi_optax.models.functions import (
    max_pool_2x2,
    vgg_features,
    vgg_num_features,
)
from psi_optax.models.nnx.layers import (
    Layers,
    NormedConv,
    add_layers,
    get_layers,
)
from psi_optax.models.options import BatchNormKeywords


class VGG(nnx.Module):
    """VGG with batch normalization: 3x3 convolutions, and pooled stages.

    See its twin `psi_optax.models.linen.VGG` for layers, scale groups, numbers
    of parameters and the paper.

    Args:
        in_features: number of channels of the images.
        stages: number of channels of each convolution, stage by stage, such as
            `psi_optax.models.architectures.vgg` returns.
        num_classes: number of outputs.
        dense: number of units of each dense layer before the head.
        rngs: random keys.
        options: see `psi_optax.models.options.BatchNormOptions`.

    Examples:
        >>> import jax
        >>> from flax import nnx
        >>> from psi_optax.models.architectures import vgg
        >>> model = nnx.eval_shape(lambda: VGG(3, vgg(16), rngs=nnx.Rngs(0)))
        >>> params = jax.tree.leaves(nnx.state(model, nnx.Param))
        >>> sum(x.size for x in params)
        14724042
    """

    def __init__(
        self,
        in_features: int,
        stages: tuple[tuple[int, ...], ...],
        num_classes: int = NUM_CLASSES,
        dense: tuple[int, ...] = (),
        *,
        rngs: nnx.Rngs,
        **options: Unpack[BatchNormKeywords],
    ):
        layers = Layers(rngs=rngs, **options)
        widths = (in_features, *itertools.chain(*stages))
        convolutions = (
            NormedConv(width_in, ConvolutionArchitecture(width, 3), layers)
            for width_in, width in itertools.pairwise(widths)
        )
        add_layers(self, "layer", convolutions)
        sizes = (vgg_num_features(widths[-1], bool(dense)), *dense)
        linear = (
            nnx.Linear(width_in, width, dtype=layers.dtype, rngs=rngs)
            for width_in, width in itertools.pairwise(sizes)
        )
        add_layers(self, "dense", linear)
        self.head = layers.head(sizes[-1], num_classes)
        self.depths = tuple(len(stage) for stage in stages)
        self.num_dense = len(dense)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits of images `(batch, height, width, channels)`.

        Raises:
            ValueError: if dense layers get images of another size than
                224 x 224.
        """
        layers = get_layers(self, "layer", sum(self.depths))
        for depth in self.depths:
            for layer in itertools.islice(layers, depth):
                x = nnx.relu(layer(x))
            x = max_pool_2x2(x)
        x = vgg_features(x, bool(self.num_dense))
        for dense in get_layers(self, "dense", self.num_dense):
            x = nnx.relu(dense(x))
        return self.head(x)
