"""Residual networks in Linen."""

import jax
from flax import linen as nn

from psi_optax.models.architectures import (
    NUM_CLASSES,
    Block,
    ResNetArchitecture,
)
from psi_optax.models.functions import (
    global_average_pool,
    max_pool_3x3,
    zero_pad_shortcut,
)
from psi_optax.models.linen.layers import (
    BatchNormNetwork,
    Layers,
    NormedConv,
    head,
)


class ResNet(BatchNormNetwork):
    """A residual network with a ReLU after each sum.

    The filters of each `conv/kernel` are scale groups. Scale and bias of a
    batch normalization within a branch form one joint group. The batch
    normalizations at the end of the branches that add to one stream, from one
    projection to the next, form joint groups with each other. They are ordinary
    where the stream reaches the head: everywhere, without projections.

    See `psi_optax.models.options.BatchNormOptions` for the other attributes.

    Attributes:
        architecture: depths, widths and strides, from
            `psi_optax.models.architectures`.
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
    num_classes: int = NUM_CLASSES

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits of images `(batch, height, width, channels)`."""
        layers = self.layers(train)
        stem = NormedConv(self.architecture.stem, layers, name="stem")
        x = nn.relu(stem(x))
        x = max_pool_3x3(x) if self.architecture.pool else x
        for index, block in enumerate(self.architecture.blocks):
            x = ResidualBlock(block, layers, name=f"block_{index}")(x)
        return head(global_average_pool(x), self.num_classes, self.dtype)


class PreActResNet(BatchNormNetwork):
    """A residual network with the ReLUs in the branches, before convolutions.

    The stream from one sum to the next is the identity, except where its shape
    changes: a shortcut there starts behind the first batch normalization and
    ReLU of the branch, as does the shortcut of the first block. With
    `cifar_resnet(depth)` it has as many parameters as `ResNet`.

    The filters of `stem/kernel` and of each convolution of a block but the last
    are scale groups (`report.select(r"stem/kernel|.*/conv_0/kernel")`, for
    blocks of two). The last convolutions write to a stream that is normalized
    later: they form joint groups with all parameters that write to it.

    See `psi_optax.models.options.BatchNormOptions` for the other attributes.

    Attributes:
        architecture: depths, widths and strides, from
            `psi_optax.models.architectures`.
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
    num_classes: int = NUM_CLASSES

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits of images `(batch, height, width, channels)`."""
        layers = self.layers(train)
        x = layers.conv(self.architecture.stem, "stem")(x)
        x = max_pool_3x3(x) if self.architecture.pool else x
        for index, block in enumerate(self.architecture.blocks):
            x = PreActBlock(block, layers, name=f"block_{index}")(x)
        x = nn.relu(layers.norm("norm")(x))
        return head(global_average_pool(x), self.num_classes, self.dtype)


class ResidualBlock(nn.Module):
    """Convolutions, each with its normalization, and ReLUs between them."""

    block: Block
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the ReLU of the sum of shortcut and branch."""
        y = x
        for index, convolution in enumerate(self.block.convolutions):
            y = nn.relu(y) if index else y
            y = NormedConv(convolution, self.layers, name=f"layer_{index}")(y)
        return nn.relu(y + self._shortcut(x))

    def _shortcut(self, x: jax.Array) -> jax.Array:
        projection = self.block.projection
        if projection is None:
            return zero_pad_shortcut(x, self.block.width, self.block.stride)
        return NormedConv(projection, self.layers, name="shortcut")(x)


class PreActBlock(nn.Module):
    """Convolutions, each behind a normalization and a ReLU."""

    block: Block
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the sum of shortcut and branch."""
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
            return zero_pad_shortcut(x, self.block.width, self.block.stride)
        return self.layers.conv(projection, "shortcut")(x)
