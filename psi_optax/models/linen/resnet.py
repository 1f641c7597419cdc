"""Residual networks in Linen."""

import jax
from flax import linen as nn

from psi_optax.models.architectures import (
    Block,
    ResNetArchitecture,
)
from psi_optax.models.functions import mean_pixels, pad_shortcut, pool_stem
from psi_optax.models.linen.layers import (
    BatchNormNetwork,
    Layers,
    NormedConv,
    head,
)


class ResNet(BatchNormNetwork):
    """A residual network: ReLUs follow the sums.

    The filters of all `conv/kernel` are scale groups, and so are scale and bias
    together of each batch normalization within a branch. Those at the end of
    the branches that add to one stream, from one projection to the next, have
    one group in common. But they are ordinary where the stream goes to the
    head: everywhere, if there are no projections.

    Its other attributes are those of `BatchNormNetwork`.

    Attributes:
        architecture: of `psi_optax.models.architectures`.
        num_classes: number of outputs.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from psi_optax.models.architectures import cifar_resnet
        >>> model = ResNet(cifar_resnet(20))
        >>> images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        >>> init = lambda key, x: model.init(key, x, train=False)["params"]
        >>> params = jax.eval_shape(init, jax.random.key(0), images)
        >>> sum(x.size for x in jax.tree.leaves(params))
        269722
        >>> params["block_3"]["layer_0"]["conv"]["kernel"].shape
        (3, 3, 16, 32)

    References:
        He et al., [Deep Residual Learning for Image
        Recognition](https://arxiv.org/abs/1512.03385), 2015.
    """

    architecture: ResNetArchitecture
    num_classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of images, of shape `(batch, height, width, channels)`.
            train: as in `MLP`.

        Returns:
            Logits of shape `(batch, num_classes)`.
        """
        layers = self.layers(train)
        stem = NormedConv(self.architecture.stem, layers, name="stem")
        x = nn.relu(stem(x))
        x = pool_stem(x) if self.architecture.pool else x
        for index, block in enumerate(self.architecture.blocks):
            x = ResidualBlock(block, layers, name=f"block_{index}")(x)
        return head(mean_pixels(x), self.num_classes, self.dtype)


class PreActResNet(BatchNormNetwork):
    """A residual network with the ReLUs in the branches, before convolutions.

    Nothing is done to the stream between two sums but where its shape changes:
    shortcuts there start behind the batch normalization and ReLU of the branch,
    and so does that of the first block. With `cifar_resnet(depth)` it has as
    many parameters as `ResNet`.

    The filters of `stem/kernel` and of each block's convolutions but the last
    are scale groups (`report.select(r"stem/kernel|.*/conv_0/kernel")`, for
    blocks of two). The last ones write to a stream that is normalized further
    on: they have groups in common with all that does.

    Its other attributes are those of `BatchNormNetwork`.

    Attributes:
        architecture: of `psi_optax.models.architectures`.
        num_classes: number of outputs.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from psi_optax.models.architectures import cifar_resnet
        >>> model = PreActResNet(cifar_resnet(110))
        >>> images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        >>> init = lambda key, x: model.init(key, x, train=False)["params"]
        >>> params = jax.eval_shape(init, jax.random.key(0), images)
        >>> sum(x.size for x in jax.tree.leaves(params))
        1727962

    References:
        He et al., [Identity Mappings in Deep Residual
        Networks](https://arxiv.org/abs/1603.05027), 2016.
    """

    architecture: ResNetArchitecture
    num_classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of images, of shape `(batch, height, width, channels)`.
            train: as in `MLP`.

        Returns:
            Logits of shape `(batch, num_classes)`.
        """
        layers = self.layers(train)
        x = layers.conv(self.architecture.stem, "stem")(x)
        x = pool_stem(x) if self.architecture.pool else x
        for index, block in enumerate(self.architecture.blocks):
            x = PreActBlock(block, layers, name=f"block_{index}")(x)
        x = nn.relu(layers.norm("norm")(x))
        return head(mean_pixels(x), self.num_classes, self.dtype)


class ResidualBlock(nn.Module):
    """Convolution, normalization and ReLU in turn; the last ReLU is outside."""

    block: Block
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The shortcut and the branch, added."""
        y = x
        for index, convolution in enumerate(self.block.convolutions):
            y = nn.relu(y) if index else y
            y = NormedConv(convolution, self.layers, name=f"layer_{index}")(y)
        return nn.relu(y + self._shortcut(x))

    def _shortcut(self, x: jax.Array) -> jax.Array:
        projection = self.block.projection
        if projection is None:
            return pad_shortcut(x, self.block.width, self.block.stride)
        return NormedConv(projection, self.layers, name="shortcut")(x)


class PreActBlock(nn.Module):
    """Normalization, ReLU and convolution in turn."""

    block: Block
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The shortcut and the branch, added."""
        y = x
        for index, convolution in enumerate(self.block.convolutions):
            y = nn.relu(self.layers.norm(f"norm_{index}")(y))
            if not index and self.block.starts_stage:
                x = y
            y = self.layers.conv(convolution, f"conv_{index}")(y)
        return y + self._shortcut(x)

    def _shortcut(self, x: jax.Array) -> jax.Array:
        projection = self.block.projection
        if projection is None:
            return pad_shortcut(x, self.block.width, self.block.stride)
        return self.layers.conv(projection, "shortcut")(x)
