"""Sets of parameters whose steps are timed. JAX is not needed here."""

import math
from typing import NamedTuple

Shapes = dict[str, tuple[int, ...]]


class ParameterSet(NamedTuple):
    """Parameters of a network, and which of them are grouped.

    Attributes:
        shapes: by path.
        grouped: pattern of paths; each output channel there is a group.
        dtype: of parameters and gradients.
        family: time every optimizer, not the main ones alone.
    """

    shapes: Shapes
    grouped: str
    dtype: str = "float32"
    family: bool = False

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(map(math.prod, self.shapes.values()))


def resnet50() -> Shapes:
    """Return the 161 shapes of ResNet-50: those of `psi_optax.models`."""
    shapes, width_in = _convolution("stem", 7, 3, 64), 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            name, out = f"stage_{stage}/block_{block}", 4 * width
            shapes |= _convolution(f"{name}/conv_0", 1, width_in, width)
            shapes |= _convolution(f"{name}/conv_1", 3, width, width)
            shapes |= _convolution(f"{name}/conv_2", 1, width, out)
            if block == 0:
                shapes |= _convolution(f"{name}/shortcut", 1, width_in, out)
            width_in = out
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


def gpt(width: int, depth: int) -> Shapes:
    """Return the shapes of a GPT-2: the smallest one is 768 wide, 12 deep."""
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


_CONVOLUTIONS, _IN_BLOCKS = (
    r".*(stem|conv_\d|shortcut)/kernel",
    r"block_.*/kernel",
)
_GPT = ParameterSet(gpt(768, 12), _IN_BLOCKS)
_LARGE = _GPT._replace(shapes=gpt(2048, 24))

SETS = {
    "resnet50": ParameterSet(resnet50(), _CONVOLUTIONS, family=True),
    "vit_b16": ParameterSet(vit_b16(), _IN_BLOCKS),
    "gpt_124m": _GPT,
    "gpt_124m_bf16": _GPT._replace(dtype="bfloat16"),
    # 1.3 billion weights, for GPUs.
    "gpt_1_3b": _LARGE,
    "gpt_1_3b_bf16": _LARGE._replace(dtype="bfloat16"),
    # Small kernels, which cost dispatch and compile for long.
    "tiny": ParameterSet(
        {f"layer_{i}/kernel": (16, 16) for i in range(1000)},
        r".*/kernel",
    ),
    # Of 8 and 16 groups, to try the command.
    "small": ParameterSet(
        {"a/kernel": (24, 8), "b/kernel": (8, 16), "head": (16, 8)},
        r".*/kernel",
        family=True,
    ),
}
