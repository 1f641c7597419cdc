"""Sets of parameters whose steps are timed. JAX is not needed here."""

import math
from typing import NamedTuple

from benchmarks.speed import shapes


class ParameterSet(NamedTuple):
    """Parameters of a network, and which of them are grouped.

    Attributes:
        shapes: by path.
        grouped: pattern of paths; each output channel there is a group.
        dtype: of parameters and gradients.
        family: time every method and library, not the main ones alone.
        together: give all cases a turn in one round. Otherwise memory cannot
            hold them all, and each has its turns with its baseline alone.
        left_out: optimizers that are timed only if they are named.
    """

    shapes: shapes.Shapes
    grouped: str
    dtype: str = "float32"
    family: bool = False
    together: bool = True
    left_out: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(map(math.prod, self.shapes.values()))


_MATRICES = r"block_.*/kernel"
_GPT_124M = ParameterSet(shapes.gpt_124m(), _MATRICES, together=False)
_GPT_1_3B = _GPT_124M._replace(shapes=shapes.gpt_1_3b())

SETS = {
    "resnet50": ParameterSet(
        shapes.resnet50(), r".*(stem|conv_\d|shortcut)/kernel", family=True
    ),
    "vit_b16": ParameterSet(shapes.vit_b16(), _MATRICES),
    "gpt_124m": _GPT_124M,
    "gpt_124m_bf16": _GPT_124M._replace(dtype="bfloat16"),
    "gpt_1_3b": _GPT_1_3B,
    "gpt_1_3b_bf16": _GPT_1_3B._replace(dtype="bfloat16"),
    # A thousand iterations of Newton and Schulz compile for minutes.
    "tiny": ParameterSet(
        shapes.tiny(), r".*/kernel", left_out=("optax.contrib.muon",)
    ),
    # Of 8 and 16 groups, to try the command.
    "small": ParameterSet(
        {"a/kernel": (24, 8), "b/kernel": (8, 16), "head": (16, 8)},
        r".*/kernel",
        family=True,
    ),
}
"""By name. Those of 1.3 billion weights are for GPUs."""
