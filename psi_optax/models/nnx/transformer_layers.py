"""Layers of Transformers with RMSNorm, in NNX."""

import dataclasses
from collections.abc import Callable

import jax
from flax import nnx

from psi_optax.models.architectures import FEED_FORWARD_FACTOR
from psi_optax.models.functions import identity
from psi_optax.models.options import TransformerLayerOptions

__all__ = ["Layers", "TransformerLayer"]


@dataclasses.dataclass(kw_only=True)
class Layers(TransformerLayerOptions):
    """Factory of the layers of one network.

    Attributes:
        rngs: random keys of the initial values.
    """

    rngs: nnx.Rngs

    def norm(self, width: int) -> nnx.RMSNorm:
        """Return a normalization of the last axis."""
        return nnx.RMSNorm(width, rngs=self.rngs, **self.norm_options())

    def post_norm(self, width: int) -> Callable[[jax.Array], jax.Array]:
        """Return a normalization if the network has `post_norms`."""
        return self.norm(width) if self.post_norms else identity

    def embed(self, count: int, width: int) -> nnx.Embed:
        """Return a table of `count` vectors."""
        return nnx.Embed(count, width, dtype=self.dtype, rngs=self.rngs)

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

    def __init__(self, width: int, layers: Layers):
        self.attention_norm = layers.norm(width)
        self.attention = Attention(width, layers)
        self.attention_out_norm = layers.post_norm(width)
        self.mlp_norm = layers.norm(width)
        self.mlp = FeedForward(width, layers)
        self.mlp_out_norm = layers.post_norm(width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the residual stream with the outputs of this layer added."""
        y = self.attention(self.attention_norm(x))
        x = x + self.attention_out_norm(y)
        y = self.mlp(self.mlp_norm(x))
        return x + self.mlp_out_norm(y)


class Attention(nnx.Module):
    """Attention with an RMSNorm of the queries and keys of each head."""

    def __init__(self, width: int, layers: Layers):
        shape = layers.heads, width // layers.heads
        self.causal = layers.causal
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
        x = jax.nn.dot_product_attention(
            query, key, self.value(x), is_causal=self.causal
        )
        return self.out(x)


class FeedForward(nnx.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, width: int, layers: Layers):
        self.up = layers.linear(width, FEED_FORWARD_FACTOR * width)
        self.activation = layers.activation
        self.down = layers.linear(FEED_FORWARD_FACTOR * width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the map of each token, of the same width."""
        return self.down(self.activation(self.up(x)))
