"""Layers of Transformers with RMSNorm, in Linen."""

import dataclasses
from collections.abc import Callable

import jax
from flax import linen as nn

from psi_optax.models.architectures import FEED_FORWARD_FACTOR
from psi_optax.models.functions import identity
from psi_optax.models.options import TransformerLayerOptions

__all__ = ["Layers", "TransformerLayer"]


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class Layers(TransformerLayerOptions):
    """Factory of the layers of one network, for use in compact methods."""

    def norm(self, name: str) -> nn.RMSNorm:
        """Return a normalization of the last axis."""
        return nn.RMSNorm(name=name, **self.norm_options())

    def post_norm(self, name: str) -> Callable[[jax.Array], jax.Array]:
        """Return a normalization if the network has `post_norms`."""
        return self.norm(name) if self.post_norms else identity

    def embed(self, count: int, width: int, name: str) -> nn.Embed:
        """Return a table of `count` vectors."""
        return nn.Embed(count, width, dtype=self.dtype, name=name)

    def linear(
        self,
        features: int | tuple[int, ...],
        name: str,
        axis: int | tuple[int, ...] = -1,
    ) -> nn.DenseGeneral:
        """Return a linear map without bias, from `axis` to new last axes."""
        return nn.DenseGeneral(
            features, axis, use_bias=False, dtype=self.dtype, name=name
        )


class TransformerLayer(nn.Module):
    """Attention and feed-forward network, each behind an RMSNorm."""

    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the residual stream with the outputs of this layer added."""
        layers = self.layers
        attention = Attention(layers, name="attention")
        y = attention(layers.norm("attention_norm")(x))
        x = x + layers.post_norm("attention_out_norm")(y)
        mlp = FeedForward(layers, name="mlp")
        y = mlp(layers.norm("mlp_norm")(x))
        return x + layers.post_norm("mlp_out_norm")(y)


class Attention(nn.Module):
    """Attention with an RMSNorm of the queries and keys of each head."""

    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the attention of tokens `(batch, length, width)`."""
        width, heads = x.shape[-1], self.layers.heads
        query, key, value = (
            self.layers.linear((heads, width // heads), name)(x)
            for name in ("query", "key", "value")
        )
        query = self.layers.norm("query_norm")(query)
        key = self.layers.norm("key_norm")(key)
        x = jax.nn.dot_product_attention(
            query, key, value, is_causal=self.layers.causal
        )
        return self.layers.linear(width, "out", axis=(-2, -1))(x)


class FeedForward(nn.Module):
    """Two linear maps with an activation between them."""

    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the map of each token, of the same width."""
        width = x.shape[-1]
        up = self.layers.linear(FEED_FORWARD_FACTOR * width, "up")
        down = self.layers.linear(width, "down")
        return down(self.layers.activation(up(x)))
