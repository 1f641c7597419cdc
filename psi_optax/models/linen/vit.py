"""A vision Transformer in Linen."""

import jax
from flax import linen as nn

from psi_optax.models.architectures import (
    CIFAR_VIT,
    NUM_CLASSES,
    ViTArchitecture,
)
from psi_optax.models.functions import tokens_with_positions
from psi_optax.models.linen.layers import head
from psi_optax.models.linen.transformer_layers import Layers, TransformerLayer
from psi_optax.models.options import RMSNormOptions, patch_options


class ViT(nn.Module, RMSNormOptions):
    """A vision Transformer with RMSNorm, also of queries and keys.

    A linear map embeds the patches, and sines and cosines of their coordinates
    are added. Each layer adds attention to the residual stream, then a
    feed-forward network with a GELU layer four times as wide, both behind an
    RMSNorm. The head reads the mean over the patches behind a last RMSNorm, and
    is the only layer with a bias.

    With p = `patch_size`, w = `width`, d = `depth` and h = `heads` of the
    architecture, c channels and k = `num_classes` there are c p² w + d (12 w² +
    2 w + 2 w / h) + w + (w + 1) k parameters: 2,668,618 by default, for images
    of 3 channels.

    Queries and keys are normalized head by head: the slices of
    `attention/query/kernel` and `attention/key/kernel` along their middle axis
    are scale groups. All other parameters are ordinary.

    See `psi_optax.models.options.RMSNormOptions` for the other attributes.

    Attributes:
        architecture: patch size, width, depth and heads; by default patches of
            4 x 4 pixels, 192 channels, 6 layers and 3 heads.
        num_classes: number of outputs.

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

    architecture: ViTArchitecture = CIFAR_VIT
    num_classes: int = NUM_CLASSES

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits of images `(batch, height, width, channels)`.

        Args:
            x: images, as above.
            train: has no effect: both modes are the same.

        Returns:
            Logits of shape `(batch, num_classes)`.

        Raises:
            ValueError: if patches do not tile the images, or heads the width.
        """
        del train
        self.architecture.check(x.shape)
        patch_size, width, depth, heads = self.architecture
        layers = Layers(heads=heads, epsilon=self.epsilon, dtype=self.dtype)
        options = patch_options(patch_size, self.dtype)
        x = nn.Conv(width, name="embed", **options)(x)
        x = tokens_with_positions(x)
        for index in range(depth):
            x = TransformerLayer(layers, name=f"layer_{index}")(x)
        x = layers.norm("norm")(x)
        return head(x.mean(1), self.num_classes, self.dtype)
