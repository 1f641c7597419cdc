"""The optimizers that are timed, by their names in tables."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks.optimizers import OPTIMIZERS, Optimizer
from benchmarks.speed import steps
from benchmarks.speed.sets import ParameterSet
from psi_optax.diagnostics import monitor_groups

SGD, ADAM = "optax.sgd(momentum)", "optax.adam"

BY_HAND = "sgd, then renormalize by hand"
"""A training step without psi_optax that keeps the norms of filters."""

_BASELINES, _RATES = {"sgd": SGD, "adam": ADAM}, {"sgd": 0.01, "adam": 1e-3}


def _within_psi(name: str) -> Optimizer:
    inner = OPTIMIZERS[name]
    return inner._replace(
        make=lambda rate, groups: psi_optax.psi(inner.make(rate), groups)
    )


def _monitored(rate: float, groups: Any) -> optax.GradientTransformation:
    return optax.chain(
        OPTIMIZERS["psi_sgd"].make(rate, groups), monitor_groups(groups)
    )


CASES = {
    SGD: OPTIMIZERS["sgd"],
    BY_HAND: OPTIMIZERS["sgd"],
    "psi_sgd(momentum)": OPTIMIZERS["psi_sgd"],
    "psi(optax.sgd(momentum))": _within_psi("sgd"),
    "sgd, then retract": OPTIMIZERS["sgd_retracted"],
    "optax.lars": OPTIMIZERS["lars"],
    ADAM: OPTIMIZERS["adam"],
    # All parameters decay: no mask is timed.
    "optax.adamw": Optimizer(lambda rate, _: optax.adamw(rate), "adam"),
    "psi_adam": OPTIMIZERS["psi_adam"],
    "psi(optax.adam)": _within_psi("adam"),
    "optax.lamb": OPTIMIZERS["lamb"],
    "optax.contrib.muon": OPTIMIZERS["muon"],
    "psi_sgd(momentum), monitor_groups": Optimizer(_monitored),
    "psi_sgdm": OPTIMIZERS["psi_sgdm"],
    "sgd_g": OPTIMIZERS["sgd_g"],
    "sgdp": OPTIMIZERS["sgdp"],
    "weight_rescaling(optax.sgd(momentum))": OPTIMIZERS["weight_rescaling"],
    "rotational(optax.trace)": OPTIMIZERS["rotational"],
    "hyperball(optax.trace)": OPTIMIZERS["hyperball"],
    "adam_g": OPTIMIZERS["adam_g"],
    "adamp": OPTIMIZERS["adamp"],
    "adamh": OPTIMIZERS["adamh"],
    "optax.novograd": OPTIMIZERS["novograd"],
}

# The others are timed on sets with the whole family.
_MAIN = list(CASES)[: list(CASES).index("optax.contrib.muon") + 1]


def baseline(name: str) -> str:
    """Return the optimizer that a case is compared with."""
    return _BASELINES[CASES[name].baseline]


def chosen(parameters: ParameterSet, only: tuple[str, ...] = ()) -> list[str]:
    """Return the cases of a set, or the named ones, with their baselines."""
    usual = CASES if parameters.family else _MAIN
    asked = only or [x for x in usual if x not in parameters.left_out]
    wanted = {*asked, *map(baseline, asked)}
    return [name for name in CASES if name in wanted]


def draw(parameters: ParameterSet) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw weights and gradients, fixed numbers of no meaning."""
    random = np.random.default_rng(0)
    params = {
        path: jnp.asarray(
            0.05 * random.standard_normal(shape, np.float32), parameters.dtype
        )
        for path, shape in parameters.shapes.items()
    }
    return params, jax.tree.map(lambda w: 1e-3 * jnp.flip(w), params)


def make(name: str, params: Any, grouped: str) -> optax.GradientTransformation:
    """Make an optimizer; each output channel of a pattern is a group."""
    optimizer = CASES[name]
    groups = psi_optax.output_channels(params, where=grouped)
    return optimizer.make(_RATES[optimizer.baseline], groups)


def build(name: str, params: dict[str, Any], grouped: str) -> steps.Case:
    """Build the step of an optimizer."""
    optimizer = make(name, params, grouped)
    if name == BY_HAND:
        return steps.build_by_hand(optimizer, params, grouped)
    return steps.build(optimizer, params)
