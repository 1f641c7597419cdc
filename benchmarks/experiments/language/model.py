"""A small language model in Linen, whose matrices have no scale."""

import jax
import jax.numpy as jnp
from flax import linen as nn

__all__ = ["LanguageModel"]


class LanguageModel(nn.Module):
    """A decoder-only Transformer that normalizes all that it computes.

    An RMSNorm stands behind the embedding, before and behind every attention
    and every perceptron, and behind the queries and the keys of each head. The
    perceptron's activation is the square of ReLU, which turns a factor into
    its square. So no matrix but the head has a scale.

    Attributes:
        depth: number of layers.
        width: number of channels of the stream, a multiple of `heads`.
        heads: number of attention heads.
        vocabulary: number of different tokens.

    Examples:
        >>> model = LanguageModel(depth=1, width=8, heads=2, vocabulary=96)
        >>> tokens = jnp.zeros((4, 16), jnp.int32)
        >>> variables = model.init(jax.random.key(0), tokens)
        >>> model.apply(variables, tokens).shape
        (4, 16, 96)
    """

    depth: int
    width: int
    heads: int
    vocabulary: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits of each position's next token, from tokens (batch, length)."""
        embed = nn.Embed(self.vocabulary, self.width, name="embed")
        positions = nn.Embed(tokens.shape[1], self.width, name="positions")
        x = nn.RMSNorm(name="embed_norm")(embed(tokens))
        x = x + positions(jnp.arange(tokens.shape[1]))[None]
        for index in range(self.depth):
            x = _Layer(self.heads, name=f"layer_{index}")(x)
        x = nn.RMSNorm(name="norm")(x)
        return nn.Dense(self.vocabulary, name="head")(x)


class _Layer(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for name, part in (
            ("attention", _Attention(self.heads, name="attention")),
            ("mlp", _Mlp(name="mlp")),
        ):
            y = part(nn.RMSNorm(name=f"{name}_norm")(x))
            x = x + nn.RMSNorm(name=f"{name}_out_norm")(y)
        return x


class _Attention(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        shape = self.heads, width // self.heads
        query, key, value = (
            nn.DenseGeneral(shape, use_bias=False, name=name)(x)
            for name in ("query", "key", "value")
        )
        query = nn.RMSNorm(name="query_norm")(query)
        key = nn.RMSNorm(name="key_norm")(key)
        x = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        out = nn.DenseGeneral(width, (-2, -1), use_bias=False, name="out")
        return out(x)


class _Mlp(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = nn.Dense(4 * width, use_bias=False, name="up")(x)
        return nn.Dense(width, use_bias=False, name="down")(nn.relu(x) ** 2)
