"""Depths, widths and strides of the networks.

`psi_optax.models.linen` and `psi_optax.models.nnx` both build their layers from
these tables.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

__all__ = [
    "Block",
    "ConvolutionArchitecture",
    "ResNetArchitecture",
    "TransformerArchitecture",
    "ViTArchitecture",
    "cifar_resnet",
    "imagenet_resnet",
    "vgg",
]

# Units of each hidden layer of an MLP, channels of each one of a CNN.
MLP_WIDTHS = (64, 64)
CNN_WIDTHS = (8, 16, 32)

NUM_CLASSES = 10

# Width of the hidden layer of a Transformer's feed-forward network, relative to
# the residual stream.
FEED_FORWARD_FACTOR = 4

# Convolutions of each stage, by the number of layers with weights.
_VGG = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
_VGG_WIDTHS = (1, 2, 4, 8, 8)

# Blocks of each stage, by the number of layers with weights.
_BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECK = {50: (3, 4, 6, 3)}


class ConvolutionArchitecture(NamedTuple):
    """A convolution with a square kernel.

    Attributes:
        width: number of output channels.
        size: height and width of the kernel, in pixels.
        stride: step of the kernel in both directions, in pixels.
    """

    width: int
    size: int
    stride: int = 1


class Block(NamedTuple):
    """A residual block.

    Attributes:
        width_in: number of input channels.
        convolutions: convolutions of the branch, in order.
        projection: the 1x1 convolution on the shortcut. None for a shortcut
            without parameters: the identity, or `zero_pad_shortcut` of
            `psi_optax.models.functions` if the branch changes the shape.
        starts_stage: True for the first block of its stage.
    """

    width_in: int
    convolutions: tuple[ConvolutionArchitecture, ...]
    projection: ConvolutionArchitecture | None
    starts_stage: bool

    @property
    def width(self) -> int:
        """Number of output channels."""
        return self.convolutions[-1].width

    @property
    def stride(self) -> int:
        """Factor by which the branch divides the image's height and width."""
        return max(c.stride for c in self.convolutions)

    @property
    def branch(self) -> list[tuple[int, ConvolutionArchitecture]]:
        """Number of input channels and specification of each convolution."""
        widths = [self.width_in, *(c.width for c in self.convolutions[:-1])]
        return list(zip(widths, self.convolutions, strict=True))


class ResNetArchitecture(NamedTuple):
    """A residual network without its head.

    Attributes:
        stem: the first convolution.
        pool: True for a 3x3 max pooling with stride 2 after the stem.
        blocks: all blocks, in order.
    """

    stem: ConvolutionArchitecture
    pool: bool
    blocks: tuple[Block, ...]

    @property
    def width(self) -> int:
        """Number of input channels of the head."""
        return self.blocks[-1].width


class ViTArchitecture(NamedTuple):
    """A vision Transformer without its head.

    Attributes:
        patch_size: height and width of a patch, in pixels.
        width: number of channels of the residual stream, a multiple of 4 and of
            `heads`.
        depth: number of layers.
        heads: number of attention heads.
    """

    patch_size: int
    width: int
    depth: int
    heads: int

    def check(self, images: Sequence[int]) -> None:
        """Check that patches tile the images, and heads the width.

        Args:
            images: shape of a batch, `(batch, height, width, channels)`.

        Raises:
            ValueError: if `patch_size` does not divide height and width, or if
                4 and `heads` do not divide the width.
        """
        height, width = images[1:3]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"patch_size={self.patch_size} does not divide the height and"
                f" width of images of shape {tuple(images)}: choose a common"
                f" divisor of {height} and {width}."
            )
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"width={self.width}, heads={self.heads}: choose a width that"
                " is a multiple of heads and of 4, which the position encoding"
                " requires."
            )


# Small, for images of 32 x 32 pixels.
CIFAR_VIT = ViTArchitecture(patch_size=4, width=192, depth=6, heads=3)


class TransformerArchitecture(NamedTuple):
    """A decoder-only Transformer without its vocabulary.

    Attributes:
        length: largest number of tokens of a sequence.
        width: number of channels of the residual stream, a multiple of `heads`.
        depth: number of layers.
        heads: number of attention heads.
        activation: function between the linear maps of a feed-forward network,
            such as `squared_relu` of `psi_optax.models.functions`.
        post_norms: True for an RMSNorm also behind the embedding of tokens, and
            behind each attention and each feed-forward network.
        tied_head: True for logits that are products with the embeddings of
            tokens. False for a head of its own, with a bias.
    """

    length: int
    width: int
    depth: int
    heads: int
    activation: Callable[[jax.Array], jax.Array] = jax.nn.gelu
    post_norms: bool = False
    tied_head: bool = True

    def check(self, tokens: Sequence[int]) -> None:
        """Check that heads divide the width, and that sequences are not longer.

        Args:
            tokens: shape of a batch, `(batch, length)`.

        Raises:
            ValueError: if `heads` does not divide the width, or if sequences
                are longer than `length`.
        """
        if self.width % self.heads:
            raise ValueError(
                f"width={self.width}, heads={self.heads}: choose a width that"
                " is a multiple of heads."
            )
        if tokens[1] > self.length:
            raise ValueError(
                f"tokens of shape {tuple(tokens)} are sequences longer than"
                f" length={self.length}: pass shorter ones, or choose a"
                " greater length."
            )


# Sizes of the smallest GPT-2, and its number of tokens.
GPT2_SMALL = TransformerArchitecture(length=1024, width=768, depth=12, heads=12)
GPT2_VOCABULARY = 50_257


def vgg(depth: int, width: int = 64) -> tuple[tuple[int, ...], ...]:
    """Return the widths of VGG's convolutions, stage by stage.

    Args:
        depth: 11 (configuration A of the paper) or 16 (configuration D): the
            number of convolutions, plus three dense layers.
        width: number of channels of the first stage.

    Returns:
        For each of five stages, the number of output channels of each
        convolution. A 2x2 max pooling follows each stage.

    Raises:
        ValueError: if the depth is another.

    Examples:
        >>> vgg(11)
        ((64,), (128,), (256, 256), (512, 512), (512, 512))

    References:
        Simonyan & Zisserman, [Very Deep Convolutional Networks for Large-Scale
        Image Recognition](https://arxiv.org/abs/1409.1556), 2014, Table 1.
    """
    _check_depth(depth, "VGG", list(_VGG))
    return tuple(
        (width * factor,) * count
        for factor, count in zip(_VGG_WIDTHS, _VGG[depth], strict=True)
    )


def cifar_resnet(
    depth: int, width: int = 16, *, projection: bool = False
) -> ResNetArchitecture:
    """Return a residual network for images of 32 x 32 pixels.

    Three stages of basic blocks have `width`, twice and four times as many
    channels. With 10 classes, width 16 and no projections, `ResNet` and
    `PreActResNet` both have

    | depth | parameters | in the paper |
    | ----: | ---------: | -----------: |
    |    20 |    269,722 |       0.27 M |
    |    32 |    464,154 |       0.46 M |
    |    44 |    658,586 |       0.66 M |
    |    56 |    853,018 |       0.85 M |
    |   110 |  1,727,962 |        1.7 M |

    Args:
        depth: 6n + 2 for n blocks in each stage.
        width: number of channels of the first stage.
        projection: where the shape changes, project the input by a 1x1
            convolution (option B of the paper). By default subsample the input
            and append channels of zeros, without parameters (option A).

    Returns:
        The architecture.

    Raises:
        ValueError: if the depth is not 6n + 2 with n at least 1.

    Examples:
        >>> architecture = cifar_resnet(20)
        >>> len(architecture.blocks), architecture.width
        (9, 64)

    References:
        He et al., [Deep Residual Learning for Image
        Recognition](https://arxiv.org/abs/1512.03385), 2015, Section 4.2 and
        Table 6.
    """
    count, rest = divmod(depth - 2, 6)
    if rest or count < 1:
        raise ValueError(
            f"depth={depth}: choose a depth of 6n + 2 for a CIFAR ResNet, such"
            " as 8, 20, 32, 44, 56 or 110."
        )
    stem = ConvolutionArchitecture(width, 3)
    blocks = _blocks(width, _basic, width, (count,) * 3, projection)
    return ResNetArchitecture(stem, pool=False, blocks=blocks)


def imagenet_resnet(depth: int, width: int = 64) -> ResNetArchitecture:
    """Return a residual network for images of 224 x 224 pixels.

    It has four stages, with projections by convolutions. With 1000 classes and
    width 64, `ResNet` has 11,689,512 parameters at depth 18 and 21,797,672 at
    34, of basic blocks, and 25,557,032 at depth 50, of bottlenecks. A
    bottleneck has its stride in the 3x3 convolution ("version 1.5"), not in the
    1x1 convolution before it.

    Args:
        depth: 18, 34 or 50.
        width: number of channels of the stem.

    Returns:
        The architecture.

    Raises:
        ValueError: if the depth is another.

    Examples:
        >>> imagenet_resnet(50).width
        2048
        >>> [c.stride for c in imagenet_resnet(50).blocks[3].convolutions]
        [1, 2, 1]

    References:
        He et al., [Deep Residual Learning for Image
        Recognition](https://arxiv.org/abs/1512.03385), 2015, Table 1. Goyal et
        al., [Accurate, Large Minibatch SGD](https://arxiv.org/abs/1706.02677),
        2017, Section 5.1, for the stride.
    """
    _check_depth(depth, "an ImageNet ResNet", [*_BASIC, *_BOTTLENECK])
    branch = _basic if depth in _BASIC else _bottleneck
    counts = {**_BASIC, **_BOTTLENECK}[depth]
    stem = ConvolutionArchitecture(width, 7, 2)
    blocks = _blocks(width, branch, width, counts, projection=True)
    return ResNetArchitecture(stem, pool=True, blocks=blocks)


def _check_depth(depth: int, network: str, known: list[int]) -> None:
    if depth not in known:
        raise ValueError(f"depth={depth}: choose one of {known} for {network}.")


def _basic(width: int, stride: int) -> tuple[ConvolutionArchitecture, ...]:
    return ConvolutionArchitecture(width, 3, stride), ConvolutionArchitecture(
        width, 3
    )


def _bottleneck(width: int, stride: int) -> tuple[ConvolutionArchitecture, ...]:
    return (
        ConvolutionArchitecture(width, 1),
        ConvolutionArchitecture(width, 3, stride),
        ConvolutionArchitecture(4 * width, 1),
    )


def _blocks(
    width_in: int,
    branch: Callable[[int, int], tuple[ConvolutionArchitecture, ...]],
    width: int,
    counts: tuple[int, ...],
    projection: bool,
) -> tuple[Block, ...]:
    """Return the blocks of all stages: each but the first halves the image."""
    blocks = []
    for stage, count in enumerate(counts):
        for index in range(count):
            stride = 2 if stage and not index else 1
            convolutions = branch(width * 2**stage, stride)
            shortcut = ConvolutionArchitecture(
                convolutions[-1].width, 1, stride
            )
            changes = stride > 1 or width_in != shortcut.width
            block = Block(
                width_in,
                convolutions,
                shortcut if projection and changes else None,
                starts_stage=not index,
            )
            blocks.append(block)
            width_in = block.width
    return tuple(blocks)
