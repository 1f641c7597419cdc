"""The methods, each as the documentation recommends it to who did not tune."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import psi_optax
from benchmarks.optimizers import MOMENTUM, OPTIMIZERS
from psi_optax.dynamics import convert_learning_rate, matching_learning_rate

SGD_RATE, SGD_DECAY = 0.1, 5e-4
ADAM_RATE, ADAM_DECAY = 1e-3, 1e-2
MUON_RATE = 0.02

Scale = Callable[[Any], optax.Schedule]
"""Makes a schedule of a learning rate, multiplied by the factor of a run."""


class Method(NamedTuple):
    """A method at its documented default.

    Attributes:
        label: its name in tables and figures.
        make: returns it, of initial params, groups and a `Scale`.
    """

    label: str
    make: Callable[[Any, Any, Scale], optax.GradientTransformation]


def _sgd(params, groups, scale):
    del params, groups
    return OPTIMIZERS["sgd"].make(scale(SGD_RATE), decay=SGD_DECAY)


def _adamw(params, groups, scale):
    del params, groups
    return OPTIMIZERS["adamw"].make(scale(ADAM_RATE), decay=ADAM_DECAY)


def _psi_sgd(params, groups, scale):
    found = convert_learning_rate(
        SGD_RATE, params, groups, optimizer="sgd", momentum=MOMENTUM
    )
    return OPTIMIZERS["psi_sgd"].make(
        scale(_number(found)),
        groups,
        ordinary=optax.sgd(scale(SGD_RATE), MOMENTUM),
    )


def _psi_adam(params, groups, scale):
    found = convert_learning_rate(ADAM_RATE, params, groups, optimizer="adam")
    return OPTIMIZERS["psi_adam"].make(
        scale(_number(found)), groups, ordinary=optax.adam(scale(ADAM_RATE))
    )


def _rotational(params, groups, scale):
    del params
    angle = matching_learning_rate(SGD_RATE, SGD_DECAY, momentum=MOMENTUM)
    ordinary = OPTIMIZERS["sgd"].make(scale(SGD_RATE), decay=SGD_DECAY)
    return OPTIMIZERS["rotational"].make(
        scale(angle), groups, ordinary=ordinary
    )


def _ball(name: str, optimizer: str, rate: float) -> Callable:
    def make(params, groups, scale):
        found = convert_learning_rate(
            rate,
            params,
            psi_optax.joint_groups(groups),
            optimizer=optimizer,
            to="angle",
        )
        return OPTIMIZERS[name].make(
            scale(_number(found)), groups, ordinary=optax.adam(scale(ADAM_RATE))
        )

    return make


def _number(found: Any) -> float:
    return float(jax.device_get(found.learning_rate))


METHODS = {
    "sgd": Method("SGD, 0.1, decay 5e-4", _sgd),
    "adamw": Method("AdamW, 1e-3, decay 1e-2", _adamw),
    "psi_sgd": Method("psi_sgd, from SGD's 0.1", _psi_sgd),
    "psi_adam": Method("psi_adam, from Adam's 1e-3", _psi_adam),
    "rotational": Method("rotational, from SGD's rate and decay", _rotational),
    "adamh": Method(
        "adamh, from Adam's 1e-3", _ball("adamh", "adam", ADAM_RATE)
    ),
    "muonh": Method(
        "muonh, from Muon's 0.02", _ball("muonh", "muon", MUON_RATE)
    ),
}
"""The methods that are compared, by name."""
