"""Parameter shapes of known networks, also for environments without JAX."""

Shapes = dict[str, tuple[int, ...]]


def resnet50() -> Shapes:
    """Return the 161 shapes of ResNet-50: those of `psi_optax.models`."""
    shapes, width_in = _convolution("stem", 7, 3, 64), 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
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
    return shapes | _dense("head", (2048, 1000))


def vit_b16() -> Shapes:
    """Return the 200 shapes of ViT-B/16, with biases and a class token."""
    width, heads = 768, (12, 64)
    shapes: Shapes = {
        "embedding/kernel": (16, 16, 3, width),
        "embedding/bias": (width,),
        "cls": (1, 1, width),
        "position": (1, 197, width),
    }
    for block in range(12):
        name = f"block_{block}"
        for projection in ("query", "key", "value"):
            shapes[f"{name}/attention/{projection}/kernel"] = (width, *heads)
            shapes[f"{name}/attention/{projection}/bias"] = heads
        shapes |= _rest_of_block(name, (*heads, width))
    return shapes | _norm("norm", width) | _dense("head", (width, 1000))


def gpt_124m() -> Shapes:
    """Return the 148 shapes of the smallest GPT-2."""
    return _gpt(width=768, depth=12)


def gpt_1_3b() -> Shapes:
    """Return the 292 shapes of a GPT of 1.3 billion weights."""
    return _gpt(width=2048, depth=24)


def tiny() -> Shapes:
    """Return the shapes of a thousand small kernels, which cost dispatch."""
    return {f"layer_{i}/kernel": (16, 16) for i in range(1000)}


def _gpt(width: int, depth: int) -> Shapes:
    shapes: Shapes = {"tokens": (50257, width), "positions": (1024, width)}
    for block in range(depth):
        name = f"block_{block}"
        shapes |= _dense(f"{name}/attention/qkv", (width, 3 * width))
        shapes |= _rest_of_block(name, (width, width))
    return shapes | _norm("norm", width)


def _rest_of_block(name: str, out: tuple[int, ...]) -> Shapes:
    """Return the shapes of a Transformer's block behind its attention."""
    width = out[-1]
    return {
        **_dense(f"{name}/attention/out", out),
        **_dense(f"{name}/mlp_0", (width, 4 * width)),
        **_dense(f"{name}/mlp_1", (4 * width, width)),
        **_norm(f"{name}/norm_0", width),
        **_norm(f"{name}/norm_1", width),
    }


def _convolution(name: str, size: int, width_in: int, width: int) -> Shapes:
    kernel = {f"{name}/kernel": (size, size, width_in, width)}
    return kernel | _norm(f"{name}/norm", width)


def _dense(name: str, shape: tuple[int, ...]) -> Shapes:
    return {f"{name}/kernel": shape, f"{name}/bias": shape[-1:]}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}
