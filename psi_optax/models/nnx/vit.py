"""A vision Transformer in NNX."""

import dataclasses
from typing import Unpack

import jax
from flax import nnx

from psi_optax.models.architectures import (
    CIFAR_VIT,
    FEED_FORWARD_FACTOR,
    NUM_CLASSES,
    ViTArchitecture,
)
from psi_optax.models.functions import tokens_with_positions
from psi_optax.models.nnx.layers import Head, add_layers, get_layers
from psi_optax.models.options import (
    RMSNormKeywords,
    RMSNormOptions,
    patch_options,
)


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
        layers = Layers(rngs=rngs, **options)
        patch = patch_options(patch_size, layers.dtype)
        stack = (TransformerLayer(width, heads, layers) for _ in range(depth))
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


@dataclasses.dataclass(kw_only=True)
class Layers(RMSNormOptions):
    """Factory of the layers of one network.

    Attributes:
        rngs: random keys of the initial values.
    """

    rngs: nnx.Rngs

    def norm(self, width: int) -> nnx.RMSNorm:
        """Return a normalization of the last axis."""
        return nnx.RMSNorm(width, rngs=self.rngs, **self.norm_options())

    def linear(
        self,
        features_in: int | tuple[int, ...],
        features: int | tuple[int, ...],
        axis: int | tuple[int, ...] = -1,
    ) -> nnx.LinearGeneral:
        """Return a linear map without bias, from `axis` to new last axes."""
        return nnx.LinearGeneral(
            features_in,
            features,
            axis=axis,
            use_bias=False,
            dtype=self.dtype,
            rngs=self.rngs,
        )


class TransformerLayer(nnx.Module):
    """Attention and feed-forward network, each behind an RMSNorm."""

    def __init__(self, width: int, heads: int, layers: Layers):
        self.attention_norm = layers.norm(width)
        self.attention = Attention(width, heads, layers)
        self.mlp_norm = layers.norm(width)
        self.mlp = FeedForward(width, layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the residual stream with the outputs of this layer added."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Attention(nnx.Module):
    """Attention with an RMSNorm of the queries and keys of each head."""

    def __init__(self, width: int, heads: int, layers: Layers):
        shape = heads, width // heads
        self.query = layers.linear(width, shape)
        self.key = layers.linear(width, shape)
        self.value = layers.linear(width, shape)
        self.query_norm = layers.norm(shape[-1])
        self.key_norm = layers.norm(shape[-1])
        self.out = layers.linear(shape, width, axis=(-2, -1))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the attention of tokens `(batch, length, width)`."""
        query = self.query_norm(self.query(x))
        key = self.key_norm(self.key(x))
        x = jax.nn.dot_product_attention(query, key, self.value(x))
        return self.out(x)


class FeedForward(nnx.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, width: int, layers: Layers):
        self.up = layers.linear(width, FEED_FORWARD_FACTOR * width)
        self.down = layers.linear(FEED_FORWARD_FACTOR * width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the map of each token, of the same width."""
        return self.down(nnx.gelu(self.up(x)))
