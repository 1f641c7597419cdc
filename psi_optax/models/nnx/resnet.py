"""Residual networks in NNX."""

from typing import Unpack

import jax
from flax import nnx

from psi_optax.models.architectures import (
    Block,
    ResNetArchitecture,
)
from psi_optax.models.functions import mean_pixels, pad_shortcut, pool_stem
from psi_optax.models.nnx.layers import (
    BatchNormOptions,
    Layers,
    NormedConv,
    add_layers,
    layers_of,
)


class ResNet(nnx.Module):
    """A residual network: ReLUs follow the sums.

    The filters of all `conv/kernel` are scale groups, and so are scale and bias
    together of each batch normalization within a branch. Those at the end of
    the branches that add to one stream, from one projection to the next, have
    one group in common. But they are ordinary where the stream goes to the
    head: everywhere, if there are no projections.

    Args:
        in_features: number of channels of the images.
        architecture: of `psi_optax.models.architectures`.
        num_classes: number of outputs.
        rngs: random keys; the stream `params` is used.
        options: `epsilon`, `momentum`, `axis_name` and `dtype`, as in
            `BatchNormOptions`.

    Examples:
        >>> import jax
        >>> from flax import nnx
        >>> from psi_optax.models.architectures import cifar_resnet
        >>> model = nnx.eval_shape(
        ...     lambda: ResNet(3, cifar_resnet(20), rngs=nnx.Rngs(0))
        ... )
        >>> params = jax.tree.leaves(nnx.state(model, nnx.Param))
        >>> sum(x.size for x in params)
        269722

    References:
        He et al., [Deep Residual Learning for Image
        Recognition](https://arxiv.org/abs/1512.03385), 2015.
    """

    def __init__(
        self,
        in_features: int,
        architecture: ResNetArchitecture,
        num_classes: int = 10,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[BatchNormOptions],
    ):
        layers = Layers(rngs, **options)
        blocks = (ResidualBlock(b, layers) for b in architecture.blocks)
        self.architecture = architecture
        self.stem = NormedConv(in_features, architecture.stem, layers)
        add_layers(self, "block", blocks)
        self.head = layers.head(architecture.width, num_classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of images, of shape `(batch, height, width, channels)`.

        Returns:
            Logits of shape `(batch, num_classes)`.
        """
        x = nnx.relu(self.stem(x))
        x = pool_stem(x) if self.architecture.pool else x
        for block in layers_of(self, "block", len(self.architecture.blocks)):
            x = block(x)
        return self.head(mean_pixels(x))


class PreActResNet(nnx.Module):
    """A residual network with the ReLUs in the branches, before convolutions.

    Nothing is done to the stream between two sums but where its shape changes:
    shortcuts there start behind the batch normalization and ReLU of the branch,
    and so does that of the first block. With `cifar_resnet(depth)` it has as
    many parameters as `ResNet`.

    The filters of `stem/kernel` and of each block's convolutions but the last
    are scale groups (`report.select(r"stem/kernel|.*/conv_0/kernel")`, for
    blocks of two). The last ones write to a stream that is normalized further
    on: they have groups in common with all that does.

    Args:
        in_features: number of channels of the images.
        architecture: of `psi_optax.models.architectures`.
        num_classes: number of outputs.
        rngs: random keys; the stream `params` is used.
        options: `epsilon`, `momentum`, `axis_name` and `dtype`, as in
            `BatchNormOptions`.

    Examples:
        >>> import jax
        >>> from flax import nnx
        >>> from psi_optax.models.architectures import cifar_resnet
        >>> model = nnx.eval_shape(
        ...     lambda: PreActResNet(3, cifar_resnet(20), rngs=nnx.Rngs(0))
        ... )
        >>> params = jax.tree.leaves(nnx.state(model, nnx.Param))
        >>> sum(x.size for x in params)
        269722

    References:
        He et al., [Identity Mappings in Deep Residual
        Networks](https://arxiv.org/abs/1603.05027), 2016.
    """

    def __init__(
        self,
        in_features: int,
        architecture: ResNetArchitecture,
        num_classes: int = 10,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[BatchNormOptions],
    ):
        layers = Layers(rngs, **options)
        blocks = (PreActBlock(b, layers) for b in architecture.blocks)
        self.architecture = architecture
        self.stem = layers.conv(in_features, architecture.stem)
        add_layers(self, "block", blocks)
        self.norm = layers.norm(architecture.width)
        self.head = layers.head(architecture.width, num_classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute the logits.

        Args:
            x: batch of images, of shape `(batch, height, width, channels)`.

        Returns:
            Logits of shape `(batch, num_classes)`.
        """
        x = self.stem(x)
        x = pool_stem(x) if self.architecture.pool else x
        for block in layers_of(self, "block", len(self.architecture.blocks)):
            x = block(x)
        return self.head(mean_pixels(nnx.relu(self.norm(x))))


class ResidualBlock(nnx.Module):
    """Convolution, normalization and ReLU in turn; the last ReLU is outside."""

    def __init__(self, block: Block, layers: Layers):
        branch = (
            NormedConv(width_in, convolution, layers)
            for width_in, convolution in _with_inputs(block)
        )
        add_layers(self, "layer", branch)
        if block.projection is not None:
            self.shortcut = NormedConv(block.width_in, block.projection, layers)
        self.block = block

    def __call__(self, x: jax.Array) -> jax.Array:
        """The shortcut and the branch, added."""
        y = x
        branch = layers_of(self, "layer", len(self.block.convolutions))
        for index, layer in enumerate(branch):
            y = layer(nnx.relu(y) if index else y)
        return nnx.relu(y + _shortcut(self, x))


class PreActBlock(nnx.Module):
    """Normalization, ReLU and convolution in turn."""

    def __init__(self, block: Block, layers: Layers):
        inputs = _with_inputs(block)
        add_layers(self, "norm", (layers.norm(width) for width, _ in inputs))
        add_layers(self, "conv", (layers.conv(*pair) for pair in inputs))
        if block.projection is not None:
            self.shortcut = layers.conv(block.width_in, block.projection)
        self.block = block

    def __call__(self, x: jax.Array) -> jax.Array:
        """The shortcut and the branch, added."""
        y = x
        count = len(self.block.convolutions)
        branch = zip(
            layers_of(self, "norm", count),
            layers_of(self, "conv", count),
            strict=True,
        )
        for index, (norm, conv) in enumerate(branch):
            y = nnx.relu(norm(y))
            if not index and self.block.starts_stage:
                x = y
            y = conv(y)
        return y + _shortcut(self, x)


def _with_inputs(block: Block) -> list:
    """The convolutions of a branch, each behind the width that goes in."""
    widths = [block.width_in, *(c.width for c in block.convolutions[:-1])]
    return list(zip(widths, block.convolutions, strict=True))


def _shortcut(module: ResidualBlock | PreActBlock, x: jax.Array) -> jax.Array:
    if module.block.projection is None:
        return pad_shortcut(x, module.block.width, module.block.stride)
    return module.shortcut(x)
