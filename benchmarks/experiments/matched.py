"""SGD with weight decay, and its replacements at a matched learning rate."""

import math
from collections.abc import Callable
from typing import Any

import optax

import psi_optax
from benchmarks.optimizers import MOMENTUM, OPTIMIZERS, TUNED
from benchmarks.training import Build
from psi_optax.dynamics import matching_learning_rate

LABELS = {
    "sgd_decay": "SGD, weight decay",
    "psi_sgd": "`psi_sgd`, matched",
    "rotational": "`rotational`, matched",
    "sgd": "SGD, filters not decayed",
}
"""The methods that are compared, by the names that `builds` gives them."""


def builds(gradient_norm: float) -> dict[str, Build]:
    """Return makers of the methods, from SGD's `rate`, `decay` and `groups`.

    All decay the head. The gradient norm is that of `psi_sgd`.
    """
    return {
        "sgd_decay": TUNED["sgd_decay"].build,
        "psi_sgd": _psi_sgd(gradient_norm),
        "rotational": TUNED["rotational"].build,
        "sgd": _sgd,
    }


def pilots(
    run: Callable[[Build, int], dict[str, Any]],
    wanted: float,
    guess: float,
    count: int,
) -> list[dict[str, Any]]:
    """Find the gradient norm of `psi_sgd`: each pilot corrects the guess.

    `run(build, index)` trains the matched `psi_sgd` and returns numbers, the
    "rotation" among them. The last "corrected" norm is the best.
    """
    found = []
    for index in range(count):
        seen = run(_psi_sgd(guess), index)
        corrected = guess * math.tan(seen["rotation"]) / math.tan(wanted)
        found.append({"gradient_norm": guess, **seen, "corrected": corrected})
        guess = corrected
    return found


def _psi_sgd(gradient_norm: float) -> Build:
    def build(rate, decay, groups):
        matched = matching_learning_rate(
            rate, decay, momentum=MOMENTUM, gradient_norm=gradient_norm
        )
        ordinary = OPTIMIZERS["sgd"].make(rate, decay=decay)
        return OPTIMIZERS["psi_sgd"].make(matched, groups, ordinary=ordinary)

    return build


def _sgd(rate, decay, groups):
    sgd = OPTIMIZERS["sgd"].make
    return optax.partition(
        {"scale": sgd(rate), "ordinary": sgd(rate, decay=decay)},
        lambda params: psi_optax.group_labels(params, groups),
    )
