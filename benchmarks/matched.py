"""SGD with weight decay, and what takes its place at a matched rate."""

from typing import Any

import optax

import psi_optax
from benchmarks.methods import METHODS, MOMENTUM
from benchmarks.training import Build
from psi_optax.dynamics import matching_learning_rate

__all__ = ["LABELS", "builds", "psi_sgd"]

_SGD, _SGD_DECAY = METHODS["sgd"].build, METHODS["sgd_decay"].build

LABELS = {
    "sgd_decay": "SGD, weight decay",
    "psi_sgd": "`psi_sgd`, matched",
    "rotational": "`rotational`, matched",
    "sgd": "SGD, filters not decayed",
}
"""What is compared, by the names that `builds` gives it."""


def builds(gradient_norm: float) -> dict[str, Build]:
    """What makes the optimizers, from SGD's `rate`, its `decay` and `groups`.

    Args:
        gradient_norm: that of `psi_sgd`.

    Returns:
        A function for each name. All decay the head, which has a scale.
    """
    return {
        "sgd_decay": _SGD_DECAY,
        "psi_sgd": psi_sgd(gradient_norm),
        "rotational": METHODS["rotational"].build,
        "sgd": _sgd,
    }


def psi_sgd(gradient_norm: float) -> Build:
    """What makes the matched `psi_sgd`."""

    def build(rate: Any, decay: Any, groups: Any):
        matched = matching_learning_rate(
            rate, decay, momentum=MOMENTUM, gradient_norm=gradient_norm
        )
        ordinary = _SGD_DECAY(rate=rate, decay=decay)
        return psi_optax.psi_sgd(
            matched, groups, momentum=MOMENTUM, ordinary=ordinary
        )

    return build


def _sgd(rate: Any, decay: Any, groups: Any):
    return optax.partition(
        {
            "scale": _SGD(rate=rate),
            "ordinary": _SGD_DECAY(rate=rate, decay=decay),
        },
        lambda params: psi_optax.group_labels(params, groups),
    )
