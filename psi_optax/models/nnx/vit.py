"""A vision Transformer in NNX."""

from typing import Unpack

import jax
from flax import nnx

from psi_optax.models.architectures import (
    CIFAR_VIT,
    NUM_CLASSES,
    ViTArchitecture,
)
from psi_optax.models.functions import tokens_with_positions
from psi_optax.models.nnx.layers import Head, add_layers, get_layers
from psi_optax.models.nnx.transformer_layers import Layers, TransformerLayer
from psi_optax.models.options import RMSNormKeywords, patch_options


class ViT(nnx.Module):
    """A vision Transformer with RMSNorm, also of queries and keys.

    See its twin `psi_optax.models.linen.ViT` for layers, scale groups, number
    of parameters and the papers.

    Args:
        in_features: number of channels of the images.
        architecture: patch size, width, depth and heads.
        num_classes: number of outputs.
        rngs: random keys.
        options: see `psi_optax.models.options.RMSNormOptions`.

    Examples:
        >>> import jax
        >>> from flax import nnx
        >>> model = nnx.eval_shape(lambda: ViT(3, rngs=nnx.Rngs(0)))
        >>> params = jax.tree.leaves(nnx.state(model, nnx.Param))
        >>> sum(x.size for x in params)
        2668618
    """

    def __init__(
        self,
        in_features: int,
        architecture: ViTArchitecture = CIFAR_VIT,
        num_classes: int = NUM_CLASSES,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[RMSNormKeywords],
    ):
        patch_size, width, depth, heads = architecture
        layers = Layers(heads=heads, rngs=rngs, **options)
        patch = patch_options(patch_size, layers.dtype)
        stack = (TransformerLayer(width, layers) for _ in range(depth))
        self.architecture = architecture
        self.embed = nnx.Conv(in_features, width, rngs=rngs, **patch)
        add_layers(self, "layer", stack)
        self.norm = layers.norm(width)
        self.head = Head(width, num_classes, dtype=layers.dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits of images `(batch, height, width, channels)`.

        Raises:
            ValueError: if patches do not tile the images, or heads the width.
        """
        self.architecture.check(x.shape)
        x = tokens_with_positions(self.embed(x))
        for layer in get_layers(self, "layer", self.architecture.depth):
            x = layer(x)
        return self.head(self.norm(x).mean(1))
