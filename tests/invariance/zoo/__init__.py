"""Small networks whose scale groups are known."""

from . import equinox, haiku, linen, nnx, plain
from .registry import INERT, NETS, PARTLY, Answer, Net, Special

__all__ = [
    "INERT",
    "NETS",
    "PARTLY",
    "Answer",
    "Net",
    "Special",
    "equinox",
    "haiku",
    "linen",
    "nnx",
    "plain",
]
