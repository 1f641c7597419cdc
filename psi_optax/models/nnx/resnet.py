"""Residual networks in NNX."""

from typing import Unpack

import jax
from flax import nnx

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
from psi_optax.models.nnx.layers import (
    Layers,
    NormedConv,
    add_layers,
    get_layers,
)
from psi_optax.models.options import BatchNormKeywords


class ResNet(nnx.Module):
    """A residual network with a ReLU after each sum.

    See its twin `psi_optax.models.linen.ResNet` for layers, scale groups and
    the paper.

    Args:
        in_features: number of channels of the images.
        architecture: depths, widths and strides, from
            `psi_optax.models.architectures`.
        num_classes: number of outputs.
        rngs: random keys.
        options: see `psi_optax.models.options.BatchNormOptions`.

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
    """

    def __init__(
        self,
        in_features: int,
        architecture: ResNetArchitecture,
        num_classes: int = NUM_CLASSES,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[BatchNormKeywords],
    ):
        layers = Layers(rngs=rngs, **options)
        blocks = (ResidualBlock(b, layers) for b in architecture.blocks)
        self.architecture = architecture
        self.stem = NormedConv(in_features, architecture.stem, layers)
        add_layers(self, "block", blocks)
        self.head = layers.head(architecture.width, num_classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits of images `(batch, height, width, channels)`."""
        x = nnx.relu(self.stem(x))
        x = max_pool_3x3(x) if self.architecture.pool else x
        for block in get_layers(self, "block", len(self.architecture.blocks)):
            x = block(x)
        return self.head(global_average_pool(x))


class PreActResNet(nnx.Module):
    """A residual network with the ReLUs in the branches, before convolutions.

    See its twin `psi_optax.models.linen.PreActResNet` for layers, scale groups
    and the paper.

    Args:
        in_features: number of channels of the images.
        architecture: depths, widths and strides, from
            `psi_optax.models.architectures`.
        num_classes: number of outputs.
        rngs: random keys.
        options: see `psi_optax.models.options.BatchNormOptions`.

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
    """

    def __init__(
        self,
        in_features: int,
        architecture: ResNetArchitecture,
        num_classes: int = NUM_CLASSES,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[BatchNormKeywords],
    ):
        layers = Layers(rngs=rngs, **options)
        blocks = (PreActBlock(b, layers) for b in architecture.blocks)
        self.architecture = architecture
        self.stem = layers.conv(in_features, architecture.stem)
        add_layers(self, "block", blocks)
        self.norm = layers.norm(architecture.width)
        self.head = layers.head(architecture.width, num_classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits of images `(batch, height, width, channels)`."""
        x = self.stem(x)
        x = max_pool_3x3(x) if self.architecture.pool else x
        for block in get_layers(self, "block", len(self.architecture.blocks)):
            x = block(x)
        return self.head(global_average_pool(nnx.relu(self.norm(x))))


class ResidualBlock(nnx.Module):
    """Convolutions, each with its normalization, and ReLUs between them."""

    def __init__(self, block: Block, layers: Layers):
        branch = (NormedConv(*pair, layers) for pair in block.branch)
        add_layers(self, "layer", branch)
        if block.projection is not None:
            self.shortcut = NormedConv(block.width_in, block.projection, layers)
        self.block = block

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the ReLU of the sum of shortcut and branch."""
        y = x
        branch = get_layers(self, "layer", len(self.block.convolutions))
        for index, layer in enumerate(branch):
            y = layer(nnx.relu(y) if index else y)
        return nnx.relu(y + _shortcut(self, x))


class PreActBlock(nnx.Module):
    """Convolutions, each behind a normalization and a ReLU."""

    def __init__(self, block: Block, layers: Layers):
        norms = (layers.norm(width_in) for width_in, _ in block.branch)
        add_layers(self, "norm", norms)
        add_layers(self, "conv", (layers.conv(*p) for p in block.branch))
        if block.projection is not None:
            self.shortcut = layers.conv(block.width_in, block.projection)
        self.block = block

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the sum of shortcut and branch."""
        y = x
        count = len(self.block.convolutions)
        branch = zip(
            get_layers(self, "norm", count),
            get_layers(self, "conv", count),
            strict=True,
        )
        for index, (norm, conv) in enumerate(branch):
            y = nnx.relu(norm(y))
            if not index and self.block.starts_stage:
                x = y
            y = conv(y)
        return y + _shortcut(self, x)


def _shortcut(module: ResidualBlock | PreActBlock, x: jax.Array) -> jax.Array:
    block = module.block
    if block.projection is None:
        return zero_pad_shortcut(x, block.width, block.stride)
    return module.shortcut(x)
