"""A decoder-only Transformer in Linen."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from psi_optax.models.architectures import (
    GPT2_SMALL,
    GPT2_VOCABULARY,
    TransformerArchitecture,
)
from psi_optax.models.functions import tied_logits
from psi_optax.models.linen.layers import head
from psi_optax.models.linen.transformer_layers import Layers, TransformerLayer
from psi_optax.models.options import RMSNormOptions


class Transformer(nn.Module, RMSNormOptions):
    """A decoder-only Transformer with RMSNorm, also of queries and keys.

    A learned vector for each position is added to the embedding of each token.
    Each layer adds causal attention to the residual stream, then a feed-forward
    network with a hidden layer four times as wide, both behind an RMSNorm. The
    logits are products of the stream, behind a last RMSNorm, with the
    embeddings of all tokens. There are no biases. With `post_norms` of the
    architecture an RMSNorm stands also behind the embedding of tokens (before
    positions are added), and behind each attention and feed-forward network.
    Without `tied_head` a head with a bias returns the logits.

    With v = `vocabulary`, n = `length`, w = `width`, d = `depth` and h =
    `heads` of the architecture there are (v + n) w + d (12 w² + 2 w + 2 w / h)
    + w parameters: 124,339,200 by default. `post_norms` adds (2 d + 1) w of
    them, a head of its own v (w + 1).

    Queries and keys are normalized head by head: the slices of
    `attention/query/kernel` and `attention/key/kernel` along their middle axis
    are scale groups. By default all other parameters are ordinary.

    - Without `tied_head` and `post_norms`, all that is added to the stream
      forms one joint group: both embeddings, `attention/out/kernel` and
      `mlp/down/kernel` of all layers.
    - With `post_norms`, each whole `attention/value/kernel`,
      `attention/out/kernel`, `attention_norm/scale` and `mlp/down/kernel` is a
      scale group. The embedding of positions and the scales of the RMSNorms
      before each sum form one joint group. A homogeneous `activation` makes
      groups of each whole `mlp/up/kernel` and `mlp_norm/scale` too, a head of
      its own of each token's embedding: then all matrices but the head are
      scale-invariant.

    See `psi_optax.models.options.RMSNormOptions` for the other attributes.

    Attributes:
        architecture: length, width, depth, heads and variants; by default the
            sizes of the smallest GPT-2.
        vocabulary: number of different tokens; by default that of GPT-2.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model = Transformer()
        >>> tokens = jax.ShapeDtypeStruct((1, 1024), jnp.int32)
        >>> init = lambda key, x: model.init(key, x, train=False)["params"]
        >>> params = jax.eval_shape(init, jax.random.key(0), tokens)
        >>> sum(x.size for x in jax.tree.leaves(params))
        124339200
        >>> params["layer_0"]["attention"]["query"]["kernel"].shape
        (768, 12, 64)

    References:
        Radford et al., Language Models are Unsupervised Multitask Learners
        (GPT-2), 2019. Press & Wolf, [Using the Output Embedding to Improve
        Language Models](https://arxiv.org/abs/1608.05859), 2017. Henry et al.,
        [Query-Key Normalization for
        Transformers](https://arxiv.org/abs/2010.04245), 2020. Zhang & Sennrich,
        [Root Mean Square Layer
        Normalization](https://arxiv.org/abs/1910.07467), 2019. Ding et al.,
        [CogView](https://arxiv.org/abs/2105.13290), 2021, for `post_norms`.
    """

    architecture: TransformerArchitecture = GPT2_SMALL
    vocabulary: int = GPT2_VOCABULARY

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool) -> jax.Array:
        """Return the logits of each position's next token.

        Args:
            tokens: integers of shape `(batch, length)`.
            train: has no effect: both modes are the same.

        Returns:
            Logits of shape `(batch, length, vocabulary)`.

        Raises:
            ValueError: if sequences are longer than `length` of the
                architecture, or if heads do not divide the width.
        """
        del train
        architecture = self.architecture
        architecture.check(tokens.shape)
        layers = Layers(
            heads=architecture.heads,
            activation=architecture.activation,
            causal=True,
            post_norms=architecture.post_norms,
            epsilon=self.epsilon,
            dtype=self.dtype,
        )
        embed = layers.embed(self.vocabulary, architecture.width, "embed")
        x = layers.post_norm("embed_norm")(embed(tokens))
        positions = layers.embed(
            architecture.length, architecture.width, "positions"
        )
        x = x + positions(jnp.arange(tokens.shape[1]))[None]
        for index in range(architecture.depth):
            x = TransformerLayer(layers, name=f"layer_{index}")(x)
        x = layers.norm("norm")(x)
        if architecture.tied_head:
            return tied_logits(x, embed.embedding, self.dtype)
        return head(x, self.vocabulary, self.dtype)
