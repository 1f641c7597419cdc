"""Optimizers at the edge of stability, and the Hessians they see."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import psi_optax
from benchmarks.experiments.full_batch import Problem
from psi_optax.landscape import Curvature, hessian, stability_threshold

MOMENTUM = 0.9
B2, EPS = 0.999, 1e-6  # of psi_adam


class Method(NamedTuple):
    """An optimizer.

    Attributes:
        label: its name in table and figure.
        build: makes it from a learning rate and groups.
        rate: the learning rate that multiples are taken of.
        grouped: whether its Hessian is that with respect to directions.
        adaptive: whether it is in units of the root of the second moment.
        momentum: of `stability_threshold`.
        ema: of `stability_threshold`.
    """

    label: str
    build: Callable[[Any, Any], optax.GradientTransformation]
    rate: float
    grouped: bool
    adaptive: bool = False
    momentum: float | None = None
    ema: bool = False

    def threshold(self, rate: float) -> float:
        """Return the top eigenvalue at which the optimizer is unstable."""
        return float(
            stability_threshold(rate, momentum=self.momentum, ema=self.ema)
        )

    def curvature(self, problem: Problem, params: Any, state: Any) -> Curvature:
        """Return the Hessian that the threshold holds for."""
        groups = problem.groups if self.grouped else None
        units = adam_units(state) if self.adaptive else None
        return hessian(problem.loss, params, groups=groups, units=units)


def adam_units(state: Any) -> Any:
    """Return the units of Adam's steps, from its second moment."""
    moments = optax.tree.get(state, "ScaleByAdamState")
    # Before the first step the moment is zero, whatever its correction.
    corrected = 1 - B2 ** jnp.maximum(moments.count, 1).astype(float)
    return jax.tree.map(
        lambda x: (jnp.sqrt(x / corrected) + EPS) ** -0.5, moments.nu
    )


def _psi_adam(rate, groups):
    return psi_optax.psi_adam(rate, groups, b1=MOMENTUM, b2=B2, eps=EPS)


METHODS = {
    "gd": Method("GD", lambda rate, _: optax.sgd(rate), 0.3, grouped=False),
    "momentum": Method(
        "GD, momentum",
        lambda rate, _: optax.sgd(rate, MOMENTUM),
        0.1,
        grouped=False,
        momentum=MOMENTUM,
    ),
    "psi_sgd": Method("psi_sgd", psi_optax.psi_sgd, 0.3, grouped=True),
    "psi_momentum": Method(
        "psi_sgd, momentum",
        lambda rate, groups: psi_optax.psi_sgd(rate, groups, momentum=MOMENTUM),
        0.1,
        grouped=True,
        momentum=MOMENTUM,
    ),
    "psi_adam": Method(
        "psi_adam",
        _psi_adam,
        0.003,
        grouped=True,
        adaptive=True,
        momentum=MOMENTUM,
        ema=True,
    ),
}
"""The methods, by name."""
