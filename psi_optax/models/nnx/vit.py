"""A vision Transformer in NNX."""

from typing import NamedTuple

import jax
from flax import nnx

from psi_optax.models.functions import check_vit, grid_positions
from psi_optax.models.nnx.layers import Head, add_layers, layers_of


class ViT(nnx.Module):
    """A vision Transformer with RMSNorm, also of queries and keys.

    Patches are mapped linearly, and sines and cosines of their coordinates
    added. Each layer adds attention to the stream, then a perceptron with one
    GELU layer four times as wide, each behind an RMSNorm; after a last one the
    mean over the patches goes to the head. Only the head has a bias.

    With p = `patch_size`, c channels, w = `width`, d = `depth`, h = `heads` and
    k = `num_classes` there are c p² w + d (12 w² + 2 w + 2 w / h) + w + (w + 1)
    k parameters: 2,668,618 by default, for images of 3 channels.

    Queries and keys are normalized head by head: the slices of
    `attention/query/kernel` and `attention/key/kernel` along their middle axis
    are scale groups. All other parameters are ordinary.

    Args:
        in_features: number of channels of the images.
        patch_size: in pixels.
        width: number of channels of the stream, a multiple of 4 and of `heads`.
        depth: number of layers.
        heads: number of attention heads.
        num_classes: number of outputs.
        epsilon: what RMSNorm adds to the mean square. At 0 the scale
            invariance is exact.
        dtype: of the computation, such as `jnp.bfloat16`; parameters and logits
            are in float32. None: as inputs and parameters have it.
        rngs: random keys; the stream `params` is used.

    Examples:
        >>> import jax
        >>> from flax import nnx
        >>> model = nnx.eval_shape(lambda: ViT(3, rngs=nnx.Rngs(0)))
        >>> params = jax.tree.leaves(nnx.state(model, nnx.Param))
        >>> sum(x.size for x in params)
        2668618

    References:
        Dosovitskiy et al., [An Image is Worth 16x16
        Words](https://arxiv.org/abs/2010.11929), 2020. Beyer et al., [Better
        Plain ViT Baselines for ImageNet-1k](https://arxiv.org/abs/2205.01580),
        2022, for positions and the mean. Henry et al., [Query-Key Normalization
        for Transformers](https://arxiv.org/abs/2010.04245), 2020. Zhang &
        Sennrich, [Root Mean Square Layer
        Normalization](https://arxiv.org/abs/1910.07467), 2019.
    """

    def __init__(
        self,
        in_features: int,
        patch_size: int = 4,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        num_classes: int = 10,
        *,
        epsilon: float = 1e-6,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        layers = ViTLayers(rngs, epsilon, dtype)
        patch = patch_size, patch_size
        self.embed = nnx.Conv(
            in_features,
            width,
            kernel_size=patch,
            strides=patch,
            use_bias=False,
            dtype=dtype,
            rngs=rngs,
        )
        stack = (Layer(width, heads, layers) for _ in range(depth))
        add_layers(self, "layer", stack)
        self.norm = layers.norm(width)
        self.head = Head(width, num_classes, dtype=dtype, rngs=rngs)
        self.sizes = patch_size, width, heads
        self.depth = depth

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of images, of shape `(batch, height, width, channels)`.

        Returns:
            Logits of shape `(batch, num_classes)`.

        Raises:
            ValueError: images that cannot be cut into patches, or a width that
                cannot be divided among the heads.
        """
        check_vit(x.shape, *self.sizes)
        x = self.embed(x)
        x = x + grid_positions(*x.shape[1:]).astype(x.dtype)[None]
        x = x.reshape(len(x), -1, x.shape[-1])
        for layer in layers_of(self, "layer", self.depth):
            x = layer(x)
        return self.head(self.norm(x).mean(1))


class ViTLayers(NamedTuple):
    """Makes the layers of one network."""

    rngs: nnx.Rngs
    epsilon: float
    dtype: jax.typing.DTypeLike | None

    def norm(self, width: int) -> nnx.RMSNorm:
        """A normalization of the last axis."""
        return nnx.RMSNorm(
            width, epsilon=self.epsilon, dtype=self.dtype, rngs=self.rngs
        )

    def linear(self, shape_in, shape, axis=-1) -> nnx.LinearGeneral:
        """A linear map without bias, of one or more axes."""
        return nnx.LinearGeneral(
            shape_in,
            shape,
            axis=axis,
            use_bias=False,
            dtype=self.dtype,
            rngs=self.rngs,
        )


class Layer(nnx.Module):
    """Attention and perceptron, each behind a norm, added to the stream."""

    def __init__(self, width: int, heads: int, layers: ViTLayers):
        self.attention_norm = layers.norm(width)
        self.attention = Attention(width, heads, layers)
        self.mlp_norm = layers.norm(width)
        self.mlp = Perceptron(width, layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The stream with what this layer adds to it."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Attention(nnx.Module):
    """Attention with an RMSNorm of the queries and keys of each head."""

    def __init__(self, width: int, heads: int, layers: ViTLayers):
        shape = heads, width // heads
        self.query = layers.linear(width, shape)
        self.key = layers.linear(width, shape)
        self.value = layers.linear(width, shape)
        self.query_norm = layers.norm(shape[-1])
        self.key_norm = layers.norm(shape[-1])
        self.out = layers.linear(shape, width, axis=(-2, -1))

    def __call__(self, x: jax.Array) -> jax.Array:
        """What each position gathers from all of them."""
        query = self.query_norm(self.query(x))
        key = self.key_norm(self.key(x))
        x = jax.nn.dot_product_attention(query, key, self.value(x))
        return self.out(x)


class Perceptron(nnx.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, width: int, layers: ViTLayers):
        self.up = layers.linear(width, 4 * width)
        self.down = layers.linear(4 * width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The hidden layer is four times as wide."""
        return self.down(nnx.gelu(self.up(x)))
