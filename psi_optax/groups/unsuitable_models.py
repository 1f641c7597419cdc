"""Reject objects that hold no weights, and say where these are."""

import sys
from typing import Any

import jax

from psi_optax._text import short_repr

_INIT = "which holds no weights: pass those that its `init` returns"
# A class of a module, its objects in words, and the remedy.
_WITHOUT_WEIGHTS = (
    ("flax.nnx", "Optimizer", "a Flax NNX Optimizer: pass its model"),
    (
        "flax.nnx",
        "GraphDef",
        "a Flax NNX GraphDef, which holds no weights: pass the model",
    ),
    ("flax.linen", "Module", f"a Flax Linen Module, {_INIT}"),
    ("haiku", "Module", f"a Haiku Module, {_INIT} after hk.transform"),
    ("haiku", "Transformed", f"a Haiku function, {_INIT}"),
    ("haiku", "TransformedWithState", f"a Haiku function, {_INIT}"),
)
_MODULES = {
    "flax.nnx": "Flax NNX",
    "flax.linen": "Flax Linen",
    "equinox": "Equinox",
    "haiku": "Haiku",
}


def check_model(model: Any) -> None:
    """Check that an object may hold weights.

    Raises:
        TypeError: it is a class, a function, a module without weights, or the
            state of an optimizer beside weights.
    """
    if text := _describe(model):
        raise TypeError(f"in place of params or a model there is {text}.")


def _describe(model: Any) -> str:
    """Return an unsuitable object with the remedy, in words; "" of others."""
    if isinstance(model, type):
        return _describe_class(model)
    for module, name, text in _WITHOUT_WEIGHTS:
        if isinstance(model, _classes(module, name)):
            return text
    kind = type(model).__name__
    if hasattr(model, "named_parameters") and hasattr(model, "state_dict"):
        return f"a PyTorch {kind}: pass a model and a loss of JAX"
    if hasattr(model, "opt_state") and hasattr(model, "params"):
        return f"a training state, {kind}: pass its `.params`"
    if callable(model) and jax.tree_util.all_leaves([model]):
        return (
            f"a function, {short_repr(model)}: pass loss_fn first, then the"
            " model or its weights"
        )
    return ""


def _describe_class(model: type) -> str:
    frameworks = [
        f" of {name}"
        for module, name in _MODULES.items()
        if issubclass(model, _classes(module, "Module"))
    ]
    kind = model.__name__ + "".join(frameworks[:1])
    return f"the class {kind}: pass an instance, or the weights"


def _classes(module: str, name: str) -> tuple[type, ...]:
    """Return a class of a module if it is imported, in a tuple."""
    known = getattr(sys.modules.get(module), name, None)
    return () if known is None else (known,)
