"""The sets of parameters whose steps are timed. Nothing here needs JAX."""

import math
from typing import NamedTuple

from benchmarks.speed import shapes

__all__ = ["SETS", "ParameterSet"]


class ParameterSet(NamedTuple):
    """Parameters of a network, and which of them are grouped.

    Attributes:
        shapes: by path.
        grouped: a pattern of paths; each output channel there is a group.
        dtype: of parameters and gradients.
        family: whether every method and every library is timed, or the main
            ones alone.
        together: whether all cases have a turn in one round, or each only with
            its baseline, because memory cannot hold them all.
        left_out: optimizers that are not timed.
    """

    shapes: shapes.Shapes
    grouped: str
    dtype: str = "float32"
    family: bool = False
    together: bool = True
    left_out: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """How many numbers there are."""
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
}
"""By name. Those of 1.3 billion weights are for GPUs."""
