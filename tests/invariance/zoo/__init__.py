"""Small networks whose scale groups are known."""

# ruff: noqa: F401
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
    reparametrized,
    sequences,
    vision,
)
from .registry import INERT, NETS, PARTLY, Answer, Net, Special
