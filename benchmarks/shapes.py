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


def vit_b16() -> Shapes:
    """The 200 parameters of ViT-B/16, 86,567,656 numbers, in Flax layout.

    Examples:
        >>> import math
        >>> shapes = vit_b16()
        >>> len(shapes), sum(math.prod(s) for s in shapes.values())
        (200, 86567656)
    """
    width, heads, depth = 768, 12, 12
    shapes: Shapes = {
        "embedding/kernel": (16, 16, 3, width),
        "embedding/bias": (width,),
        "cls": (1, 1, width),
        "position": (1, 197, width),
    }
    split = heads, width // heads
    for block in range(depth):
        name = f"block_{block}"
        for projection in ("query", "key", "value"):
            shapes[f"{name}/attention/{projection}/kernel"] = (width, *split)
            shapes[f"{name}/attention/{projection}/bias"] = split
        shapes |= _dense(f"{name}/attention/out", (*split, width))
        shapes |= _dense(f"{name}/mlp_0", (width, 4 * width))
        shapes |= _dense(f"{name}/mlp_1", (4 * width, width))
        shapes |= _norm(f"{name}/norm_0", width) | _norm(
            f"{name}/norm_1", width
        )
    return shapes | _norm("norm", width) | _dense("head", (width, 1000))


def gpt_124m() -> Shapes:
    """The 148 parameters of a 12-layer GPT, 124,439,808 numbers.

    Examples:
        >>> import math
        >>> shapes = gpt_124m()
        >>> len(shapes), sum(math.prod(s) for s in shapes.values())
        (148, 124439808)
    """
    return _gpt(width=768, depth=12)


def gpt_1_3b() -> Shapes:
    """The 292 parameters of a 24-layer GPT, 1,313,626,112 numbers.

    Examples:
        >>> import math
        >>> shapes = gpt_1_3b()
        >>> len(shapes), sum(math.prod(s) for s in shapes.values())
        (292, 1313626112)
    """
    return _gpt(width=2048, depth=24)


def _gpt(width: int, depth: int) -> Shapes:
    shapes: Shapes = {"tokens": (50257, width), "positions": (1024, width)}
    for block in range(depth):
        name = f"block_{block}"
        shapes |= _dense(f"{name}/attention/qkv", (width, 3 * width))
        shapes |= _dense(f"{name}/attention/out", (width, width))
        shapes |= _dense(f"{name}/mlp_0", (width, 4 * width))
        shapes |= _dense(f"{name}/mlp_1", (4 * width, width))
        shapes |= _norm(f"{name}/norm_0", width) | _norm(
            f"{name}/norm_1", width
        )
    return shapes | _norm("norm", width)


def tiny() -> Shapes:
    """A thousand kernels of 16 by 16: what starting an operation costs.

    Examples:
        >>> len(tiny())
        1000
    """
    return {f"layer_{i}/kernel": (16, 16) for i in range(1000)}


def _dense(name: str, shape: tuple[int, ...]) -> Shapes:
    return {f"{name}/kernel": shape, f"{name}/bias": shape[-1:]}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}
