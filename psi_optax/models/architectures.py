"""Networks in numbers: depths, widths and strides, for both frameworks.

`psi_optax.models.linen` and `psi_optax.models.nnx` build their layers from
what is here, so that both have the same ones.
"""

from typing import NamedTuple

__all__ = [
    "Block",
    "Convolution",
    "ResNetArchitecture",
    "cifar_resnet",
    "imagenet_resnet",
    "vgg",
]

# Convolutions of each stage, by the number of layers with weights.
_VGG = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
_VGG_WIDTHS = (1, 2, 4, 8, 8)

# Blocks of each stage, by the number of layers with weights.
_BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECK = {50: (3, 4, 6, 3)}


class Convolution(NamedTuple):
    """A convolution, as wide as it is high.

    Attributes:
        width: number of output channels.
        size: of the kernel, in pixels.
        stride: in pixels.
    """

    width: int
    size: int
    stride: int = 1


class Block(NamedTuple):
    """A residual block.

    Attributes:
        width_in: number of channels that go in.
        convolutions: those of the branch, in their order.
        projection: the 1x1 convolution on the shortcut; None where there is
            none: the input is added as it is, or by `pad_shortcut` if its shape
            is another.
        starts_stage: whether it is the first one of its stage.
    """

    width_in: int
    convolutions: tuple[Convolution, ...]
    projection: Convolution | None
    starts_stage: bool

    @property
    def width(self) -> int:
        """Number of channels that come out."""
        return self.convolutions[-1].width

    @property
    def stride(self) -> int:
        """By what the branch divides the image's height and width."""
        return max(c.stride for c in self.convolutions)


class ResNetArchitecture(NamedTuple):
    """A residual network without its head.

    Attributes:
        stem: the first convolution.
        pool: whether a 3x3 maximum of stride 2 follows it.
        blocks: all blocks, in their order.
    """

    stem: Convolution
    pool: bool
    blocks: tuple[Block, ...]

    @property
    def width(self) -> int:
        """Number of channels that the head sees."""
        return self.blocks[-1].width


def vgg(depth: int, width: int = 64) -> tuple[tuple[int, ...], ...]:
    """The convolutions of VGG.

    Args:
        depth: 11 (configuration A of the paper) or 16 (configuration D). It
            counts the convolutions and three dense layers.
        width: number of channels of the first stage.

    Returns:
        For each of five stages the numbers of channels of its convolutions. A
        maximum over 2x2 pixels follows each stage.

    Raises:
        ValueError: another depth.

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
    """The residual networks for images of 32 x 32 pixels.

    Three stages of basic blocks, of `width`, twice and four times as many
    channels. With 10 classes, width 16 and no projections there are

    | depth | parameters | in the paper |
    | ----: | ---------: | -----------: |
    |    20 |    269,722 |       0.27 M |
    |    32 |    464,154 |       0.46 M |
    |    44 |    658,586 |       0.66 M |
    |    56 |    853,018 |       0.85 M |
    |   110 |  1,727,962 |        1.7 M |

    parameters, in `ResNet` and in `PreActResNet`.

    Args:
        depth: 6n + 2 for n blocks in each stage.
        width: number of channels of the first stage.
        projection: where the shape changes, project the input by a 1x1
            convolution (option B of the paper). Otherwise take every other
            pixel and append channels of zeros, which needs no parameters
            (option A).

    Returns:
        The architecture.

    Raises:
        ValueError: a depth that is not 6n + 2, or n is 0.

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
            f"depth={depth}: a ResNet for small images has 6n + 2 layers, such"
            " as 8, 20, 32, 44, 56, 110."
        )
    stem = Convolution(width, 3)
    blocks = _blocks(width, _basic, width, (count,) * 3, projection)
    return ResNetArchitecture(stem, pool=False, blocks=blocks)


def imagenet_resnet(depth: int, width: int = 64) -> ResNetArchitecture:
    """The residual networks for images of 224 x 224 pixels.

    Four stages, whose projections are convolutions. With 1000 classes and width
    64, `ResNet` has 11,689,512 parameters at depth 18 and 21,797,672 at 34, of
    basic blocks, and 25,557,032 at depth 50, of bottlenecks. These have their
    stride in the 3x3 convolution ("version 1.5"), not in the 1x1 before it.

    Args:
        depth: 18, 34 or 50.
        width: number of channels of the stem.

    Returns:
        The architecture.

    Raises:
        ValueError: another depth.

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
    _check_depth(depth, "ResNet for large images", [*_BASIC, *_BOTTLENECK])
    convolutions = _basic if depth in _BASIC else _bottleneck
    counts = {**_BASIC, **_BOTTLENECK}[depth]
    stem = Convolution(width, 7, 2)
    blocks = _blocks(width, convolutions, width, counts, projection=True)
    return ResNetArchitecture(stem, pool=True, blocks=blocks)


def _check_depth(depth: int, what: str, known: list[int]) -> None:
    if depth not in known:
        raise ValueError(f"depth={depth}: a {what} has a depth of {known}.")


def _basic(width: int, stride: int) -> tuple[Convolution, ...]:
    return Convolution(width, 3, stride), Convolution(width, 3)


def _bottleneck(width: int, stride: int) -> tuple[Convolution, ...]:
    return (
        Convolution(width, 1),
        Convolution(width, 3, stride),
        Convolution(4 * width, 1),
    )


def _blocks(width_in, convolutions, width, counts, projection):
    """All blocks: each stage but the first halves the image first."""
    blocks = []
    for stage, count in enumerate(counts):
        for index in range(count):
            stride = 2 if stage and not index else 1
            branch = convolutions(width * 2**stage, stride)
            width_out = branch[-1].width
            changes = stride > 1 or width_in != width_out
            shortcut = Convolution(width_out, 1, stride)
            blocks.append(
                Block(
                    width_in,
                    branch,
                    shortcut if projection and changes else None,
                    starts_stage=not index,
                )
            )
            width_in = width_out
    return tuple(blocks)
