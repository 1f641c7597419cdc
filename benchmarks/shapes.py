"""Parameter shapes of known networks, without the networks."""

Shapes = dict[str, tuple[int, ...]]


def resnet50() -> Shapes:
    """The 161 parameters of ResNet-50, 25,557,032 numbers, in Flax layout.

    Examples:
        >>> import math
        >>> shapes = resnet50()
        >>> len(shapes), sum(math.prod(s) for s in shapes.values())
        (161, 25557032)
    """
    shapes = _convolution("stem", 7, 3, 64)
    width_in = 64
    for stage, (width, blocks) in enumerate(
        [(64, 3), (128, 4), (256, 6), (512, 3)]
    ):
        for block in range(blocks):
            name = f"stage_{stage}/block_{block}"
            shapes |= _convolution(f"{name}/conv_0", 1, width_in, width)
            shapes |= _convolution(f"{name}/conv_1", 3, width, width)
            shapes |= _convolution(f"{name}/conv_2", 1, width, 4 * width)
            if block == 0:
                shapes |= _convolution(
                    f"{name}/shortcut", 1, width_in, 4 * width
                )
            width_in = 4 * width
    return shapes | {"head/kernel": (2048, 1000), "head/bias": (1000,)}


def _convolution(name: str, size: int, width_in: int, width: int) -> Shapes:
    """A convolution without bias and the BatchNorm behind it."""
    return {
        f"{name}/kernel": (size, size, width_in, width),
        f"{name}/norm/scale": (width,),
        f"{name}/norm/bias": (width,),
    }
