"""What is timed: sets of parameters, and optimizers for each of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks import shapes

__all__ = ["AXPY", "SETS", "ParameterSet", "baseline", "draw", "optimizers"]

SGD, ADAM = "optax.sgd(momentum)", "optax.adam"

AXPY = "w + 0.01 g, in place"
"""What every step is held to: two arrays read, one written."""


class ParameterSet(NamedTuple):
    """Parameters of a network, and which of them are grouped.

    Attributes:
        shapes: by path.
        grouped: a pattern of paths; each output channel there is a group.
        dtype: of parameters and gradients.
        family: whether every method is timed, or the main ones alone.
    """

    shapes: shapes.Shapes
    grouped: str
    dtype: str = "float32"
    family: bool = False


_MATRICES = r"block_.*/kernel"

SETS = {
    "resnet50": ParameterSet(
        shapes.resnet50(), r".*(stem|conv_\d|shortcut)/kernel", family=True
    ),
    "vit_b16": ParameterSet(shapes.vit_b16(), _MATRICES),
    "gpt_124m": ParameterSet(shapes.gpt_124m(), _MATRICES),
    "gpt_124m_bf16": ParameterSet(shapes.gpt_124m(), _MATRICES, "bfloat16"),
    "tiny": ParameterSet(shapes.tiny(), r".*/kernel"),
}


def draw(chosen: ParameterSet) -> tuple[Any, Any]:
    """Weights and gradients, fixed numbers of no meaning."""
    random = np.random.default_rng(0)
    params = {
        path: jnp.asarray(random.normal(0, 0.05, shape), chosen.dtype)
        for path, shape in chosen.shapes.items()
    }
    return params, jax.tree.map(lambda w: 1e-3 * jnp.flip(w), params)


def optimizers(
    params: Any, grouped: str, family: bool = True
) -> dict[str, optax.GradientTransformation]:
    """Baselines, ours and optax's, by the names that tables have.

    Args:
        params: the parameters.
        grouped: which of them have a group for each output channel.
        family: whether to time all methods.
    """
    groups = psi_optax.output_channels(params, where=grouped)
    sgd, adam = optax.sgd(0.01, momentum=0.9), optax.adam(1e-3)
    psi_sgd = psi_optax.psi_sgd(0.01, groups, momentum=0.9)
    main: dict[str, optax.GradientTransformation] = {
        SGD: sgd,
        "psi_sgd(momentum)": psi_sgd,
        "psi(optax.sgd(momentum))": psi_optax.psi(sgd, groups),
        "sgd, then retract": optax.chain(sgd, psi_optax.retract(groups)),
        "optax.lars": optax.lars(0.01, momentum=0.9),
        ADAM: adam,
        "optax.adamw": optax.adamw(1e-3),
        "psi_adam": psi_optax.psi_adam(1e-3, groups),
        "psi(optax.adam)": psi_optax.psi(adam, groups),
        "optax.lamb": optax.lamb(1e-3),
    }
    if not family:
        return main
    trace = optax.trace(0.9)
    return {
        **main,
        "psi_sgd(momentum), monitor_groups": optax.chain(
            psi_sgd, psi_optax.monitor_groups(groups)
        ),
        "psi_sgdm": psi_optax.psi_sgdm(0.01, groups),
        "sgd_g": psi_optax.sgd_g(0.01, groups),
        "sgdp": psi_optax.sgdp(0.01, groups),
        "weight_rescaling(optax.sgd(momentum))": psi_optax.weight_rescaling(
            sgd, groups
        ),
        "rotational(optax.trace)": psi_optax.rotational(0.01, trace, groups),
        "hyperball(optax.trace)": psi_optax.hyperball(0.01, trace, groups),
        "adam_g": psi_optax.adam_g(1e-3, groups),
        "adamp": psi_optax.adamp(1e-3, groups),
        "adamh": psi_optax.adamh(1e-3, groups),
        "optax.novograd": optax.novograd(1e-3),
    }


def baseline(name: str) -> str:
    """The optimizer that a case is compared with."""
    adam = any(word in name for word in ("adam", "lamb", "novograd"))
    return ADAM if adam else SGD
