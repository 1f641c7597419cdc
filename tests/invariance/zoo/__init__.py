"""Small networks whose scale groups are known."""

from . import (
    equinox,
    graphs,
    haiku,
    heads,
    language,
    linen,
    nnx,
    parallel,
    plain,
    quantized,
    vision,
)
from .registry import INERT, NETS, PARTLY, Answer, Net, Special

__all__ = [
    "INERT",
    "NETS",
    "PARTLY",
    "Answer",
    "Net",
    "Special",
    "equinox",
    "graphs",
    "haiku",
    "heads",
    "language",
    "linen",
    "nnx",
    "parallel",
    "plain",
    "quantized",
    "vision",
]
