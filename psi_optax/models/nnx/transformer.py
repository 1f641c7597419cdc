"""A decoder-only Transformer in NNX."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from psi_optax.models.architectures import (
    GPT2_SMALL,
    GPT2_VOCABULARY,
    TransformerArchitecture,
)
from psi_optax.models.functions import tied_logits
from psi_optax.models.nnx.layers import Head, add_layers, get_layers
from psi_optax.models.nnx.transformer_layers import Layers, TransformerLayer
from psi_optax.models.options import RMSNormKeywords


class Transformer(nnx.Module):
    """A decoder-only Transformer with RMSNorm, also of queries and keys.

    See its twin `psi_optax.models.linen.Transformer` for layers, scale groups,
    number of parameters and the papers.

    Args:
        architecture: length, width, depth, heads and variants.
        vocabulary: number of different tokens.
        rngs: random keys.
        options: see `psi_optax.models.options.RMSNormOptions`.

    Examples:
        >>> import jax
        >>> from flax import nnx
        >>> model = nnx.eval_shape(lambda: Transformer(rngs=nnx.Rngs(0)))
        >>> params = jax.tree.leaves(nnx.state(model, nnx.Param))
        >>> sum(x.size for x in params)
        124339200
    """

    def __init__(
        self,
        architecture: TransformerArchitecture = GPT2_SMALL,
        vocabulary: int = GPT2_VOCABULARY,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[RMSNormKeywords],
    ):
        length, width, depth, heads, activation, post_norms, tied = architecture
        layers = Layers(
            heads=heads,
            activation=activation,
            causal=True,
            post_norms=post_norms,
            rngs=rngs,
            **options,
        )
        self.architecture = architecture
        self.dtype = layers.dtype
        self.embed = layers.embed(vocabulary, width)
        self.embed_norm = layers.post_norm(width)
        self.positions = layers.embed(length, width)
        stack = (TransformerLayer(width, layers) for _ in range(depth))
        add_layers(self, "layer", stack)
        self.norm = layers.norm(width)
        if not tied:
            self.head = Head(width, vocabulary, dtype=self.dtype, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Return the logits of each position's next token.

        Args:
            tokens: integers of shape `(batch, length)`.

        Returns:
            Logits of shape `(batch, length, vocabulary)`.

        Raises:
            ValueError: if sequences are longer than `length` of the
                architecture, or if heads do not divide the width.
        """
        self.architecture.check(tokens.shape)
        x = self.embed_norm(self.embed(tokens))
        x = x + self.positions(jnp.arange(tokens.shape[1]))[None]
        for layer in get_layers(self, "layer", self.architecture.depth):
            x = layer(x)
        x = self.norm(x)
        if self.architecture.tied_head:
            return tied_logits(x, self.embed.embedding[...], self.dtype)
        return self.head(x)
