"""AdamW, and what takes its place in front of normalizations."""

from collections.abc import Callable
from typing import Any

import jax
import optax

import psi_optax

__all__ = ["LABELS", "Build", "builds"]

Build = Callable[..., optax.GradientTransformation]
"""Makes an optimizer from the keywords `rate`, `decay`, `factor`, `groups`.

Rate (a schedule) and decay are AdamW's, and how all that is not grouped is
trained. By the factor groups turn faster than under AdamW.
"""

LABELS = {
    "adamw": "AdamW",
    "adamh": "`adamh`",
    "rotational": "`rotational`, Adam inside",
    "psi_adam": "`psi_adam`",
}
"""What is compared, by the names that `builds` gives it."""


def builds(unit: float) -> dict[str, Build]:
    """What makes each optimizer.

    Args:
        unit: the rate at which `psi_adam` turns by a radian, were that little.
    """

    def psi_adam(rate, decay, factor, groups):
        return psi_optax.psi_adam(
            _angle(rate, decay, factor * unit),
            groups,
            ordinary=_adamw(rate, decay),
        )

    return {
        "adamw": _partitioned,
        "adamh": _adamh,
        "rotational": _rotational,
        "psi_adam": psi_adam,
    }


def _adamw(rate, decay):
    """Matrices decay, and scales and biases do not."""
    return optax.adamw(
        rate,
        weight_decay=decay,
        mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    )


def _partitioned(rate, decay, factor, groups):
    """Rotations go with the root of the rate, so its factor is the square."""
    return optax.partition(
        {
            "scale": _adamw(_times(factor**2, rate), decay),
            "ordinary": _adamw(rate, decay),
        },
        lambda params: psi_optax.group_labels(params, groups),
    )


def _adamh(rate, decay, factor, groups):
    return psi_optax.adamh(
        _angle(rate, decay, factor), groups, ordinary=_adamw(rate, decay)
    )


def _rotational(rate, decay, factor, groups):
    return psi_optax.rotational(
        _angle(rate, decay, factor),
        optax.scale_by_adam(),
        groups,
        ordinary=_adamw(rate, decay),
    )


def _angle(rate, decay, factor) -> optax.Schedule:
    matched = psi_optax.dynamics.matching_learning_rate(
        rate, decay, optimizer="adamw"
    )
    return _times(factor, matched)


def _times(factor: Any, schedule: optax.Schedule) -> optax.Schedule:
    return lambda step: factor * schedule(step)
