"""Small networks whose scale groups are known."""

from . import (
    embeddings,
    equinox,
    graphs,
    haiku,
    heads,
    language,
    linen,
    nnx,
    norms,
    parallel,
    plain,
    quantized,
    sequences,
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
    "embeddings",
    "equinox",
    "graphs",
    "haiku",
    "heads",
    "language",
    "linen",
    "nnx",
    "norms",
    "parallel",
    "plain",
    "quantized",
    "sequences",
    "vision",
]
