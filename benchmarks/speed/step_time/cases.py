"""The optimizers that are timed, by their names in tables."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks.optimizers import OPTIMIZERS
from benchmarks.speed import steps
from benchmarks.speed.sets import ParameterSet
from psi_optax.diagnostics import monitor_groups

PLAIN, SGD, ADAM = "optax.sgd", "optax.sgd(momentum)", "optax.adam"

BY_HAND = "sgd, then renormalize by hand"
"""A training step without psi_optax that keeps the norms of filters."""

_RATES = {PLAIN: 0.01, SGD: 0.01, ADAM: 1e-3}


class Timed(NamedTuple):
    """An optimizer that is timed.

    Attributes:
        make: function of groups.
        baseline: the optimizer that it is compared with.
    """

    make: Callable[[Any], optax.GradientTransformation]
    baseline: str


def _known(name: str, baseline: str = SGD, **options: Any) -> Timed:
    make = OPTIMIZERS[name].make
    return Timed(lambda x: make(_RATES[baseline], x, **options), baseline)


def _within_psi(name: str, baseline: str) -> Timed:
    inner = OPTIMIZERS[name].make(_RATES[baseline])
    return Timed(lambda groups: psi_optax.psi(inner, groups), baseline)


def _monitored(groups: Any) -> optax.GradientTransformation:
    optimizer = MAIN["psi_sgd(momentum)"].make(groups)
    return optax.chain(optimizer, monitor_groups(groups))


MAIN = {
    SGD: _known("sgd"),
    BY_HAND: _known("sgd"),
    "psi_sgd(momentum)": _known("psi_sgd"),
    PLAIN: _known("sgd", PLAIN, momentum=None),
    "psi_sgd()": _known("psi_sgd", PLAIN, momentum=None),
    ADAM: _known("adam", ADAM),
    "psi_adam": _known("psi_adam", ADAM),
}
"""Those that are timed on each set of parameters."""

FAMILY = {
    "psi_sgd(nesterov)": _known("psi_sgd", nesterov=True),
    "psi_sgd(momentum), monitor_groups": Timed(_monitored, SGD),
    "psi(optax.sgd(momentum))": _within_psi("sgd", SGD),
    "sgd, then retract": _known("sgd_retracted"),
    "sgdp": _known("sgdp"),
    "weight_rescaling(optax.sgd(momentum))": _known("weight_rescaling"),
    "psi_sgdm": _known("psi_sgdm"),
    "hyperball(optax.trace)": _known("hyperball"),
    "rotational(optax.trace)": _known("rotational"),
    "sgd_g": _known("sgd_g"),
    "optax.lars": _known("lars"),
    "psi(optax.adam)": _within_psi("adam", ADAM),
    "adamp": _known("adamp", ADAM),
    "adamh": _known("adamh", ADAM),
    "adam_g": _known("adam_g", ADAM),
    "optax.lamb": _known("lamb", ADAM),
}
"""The others, timed on sets with the whole family."""

CASES = MAIN | FAMILY


def chosen(parameters: ParameterSet, only: tuple[str, ...] = ()) -> list[str]:
    """Return the cases of a set, or the named ones, with their baselines."""
    asked = only or (CASES if parameters.family else MAIN)
    wanted = {*asked, *(CASES[name].baseline for name in asked)}
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
    return CASES[name].make(psi_optax.output_channels(params, where=grouped))


def build(name: str, params: dict[str, Any], grouped: str) -> steps.Case:
    """Build the step of an optimizer."""
    optimizer = make(name, params, grouped)
    if name == BY_HAND:
        return steps.build_by_hand(optimizer, params, grouped)
    return steps.build(optimizer, params)
