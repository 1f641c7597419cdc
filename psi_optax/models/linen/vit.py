"""A vision Transformer in Linen."""

import jax
from flax import linen as nn

from psi_optax.models.functions import check_vit, grid_positions
from psi_optax.models.linen.layers import head


class ViT(nn.Module):
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

    Attributes:
        patch_size: in pixels.
        width: number of channels of the stream, a multiple of 4 and of `heads`.
        depth: number of layers.
        heads: number of attention heads.
        num_classes: number of outputs.
        epsilon: what RMSNorm adds to the mean square. At 0 the scale
            invariance is exact.
        dtype: of the computation, such as `jnp.bfloat16`; parameters and logits
            are in float32. None: as inputs and parameters have it.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model = ViT()
        >>> images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        >>> init = lambda key, x: model.init(key, x, train=False)["params"]
        >>> params = jax.eval_shape(init, jax.random.key(0), images)
        >>> sum(x.size for x in jax.tree.leaves(params))
        2668618
        >>> params["layer_0"]["attention"]["query"]["kernel"].shape
        (192, 3, 64)

    References:
        Dosovitskiy et al., [An Image is Worth 16x16
        Words](https://arxiv.org/abs/2010.11929), 2020. Beyer et al., [Better
        Plain ViT Baselines for ImageNet-1k](https://arxiv.org/abs/2205.01580),
        2022, for positions and the mean. Henry et al., [Query-Key Normalization
        for Transformers](https://arxiv.org/abs/2010.04245), 2020. Zhang &
        Sennrich, [Root Mean Square Layer
        Normalization](https://arxiv.org/abs/1910.07467), 2019.
    """

    patch_size: int = 4
    width: int = 192
    depth: int = 6
    heads: int = 3
    num_classes: int = 10
    epsilon: float = 1e-6
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of images, of shape `(batch, height, width, channels)`.
            train: not used: this network has but one mode.

        Returns:
            Logits of shape `(batch, num_classes)`.

        Raises:
            ValueError: images that cannot be cut into patches, or a width that
                cannot be divided among the heads.
        """
        del train
        check_vit(x.shape, self.patch_size, self.width, self.heads)
        patch = self.patch_size, self.patch_size
        x = nn.Conv(
            self.width,
            kernel_size=patch,
            strides=patch,
            use_bias=False,
            dtype=self.dtype,
            name="embed",
        )(x)
        x = x + grid_positions(*x.shape[1:]).astype(x.dtype)[None]
        x = x.reshape(len(x), -1, self.width)
        for index in range(self.depth):
            x = Layer(
                self.heads, self.epsilon, self.dtype, name=f"layer_{index}"
            )(x)
        x = _rms_norm(self, "norm")(x)
        return head(x.mean(1), self.num_classes, self.dtype)


class Layer(nn.Module):
    """Attention and perceptron, each behind a norm, added to the stream."""

    heads: int
    epsilon: float
    dtype: jax.typing.DTypeLike | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The stream with what this layer adds to it."""
        attention = Attention(
            self.heads, self.epsilon, self.dtype, name="attention"
        )
        x = x + attention(_rms_norm(self, "attention_norm")(x))
        mlp = Perceptron(self.dtype, name="mlp")
        return x + mlp(_rms_norm(self, "mlp_norm")(x))


class Attention(nn.Module):
    """Attention with an RMSNorm of the queries and keys of each head."""

    heads: int
    epsilon: float
    dtype: jax.typing.DTypeLike | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """What each position gathers from all of them."""
        width = x.shape[-1]
        shape = self.heads, width // self.heads
        query, key, value = (
            nn.DenseGeneral(shape, use_bias=False, dtype=self.dtype, name=name)(
                x
            )
            for name in ("query", "key", "value")
        )
        query = _rms_norm(self, "query_norm")(query)
        key = _rms_norm(self, "key_norm")(key)
        x = jax.nn.dot_product_attention(query, key, value)
        return nn.DenseGeneral(
            width, (-2, -1), use_bias=False, dtype=self.dtype, name="out"
        )(x)


class Perceptron(nn.Module):
    """Two linear maps with a GELU between them."""

    dtype: jax.typing.DTypeLike | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The hidden layer is four times as wide."""
        width = x.shape[-1]
        up = nn.Dense(4 * width, use_bias=False, dtype=self.dtype, name="up")
        down = nn.Dense(width, use_bias=False, dtype=self.dtype, name="down")
        return down(nn.gelu(up(x)))


def _rms_norm(module: ViT | Layer | Attention, name: str) -> nn.RMSNorm:
    """With the options of the module that it is in."""
    return nn.RMSNorm(epsilon=module.epsilon, dtype=module.dtype, name=name)
