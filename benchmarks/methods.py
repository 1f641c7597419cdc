"""The optimizers that the experiments compare, and the grids they are tuned on.

Every optimizer is used as its users use it, and tuned with as many trials as
the others: where the weight decay is tuned too, on a grid of 4 rates and 3
decays, otherwise on 12 rates. The grids of decays reach far beyond usual
values, to where validation accuracy falls again in a training this short.
"""

import dataclasses
import itertools
from typing import Any

import jax
import numpy as np
import optax

import psi_optax
from benchmarks.training import Build

__all__ = ["DEFAULT", "METHODS", "Method"]

MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True)
class Method:
    """An optimizer and its grid.

    Attributes:
        label: its name in tables and figures.
        build: makes it from `rate`, `decay` and `groups`.
        learning_rates: the rates to try, ascending.
        weight_decays: the decays to try with each, ascending.
    """

    label: str
    build: Build
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...] = (0.0,)

    def trials(self) -> list[tuple[float, float]]:
        """Return every pair of a learning rate and a weight decay."""
        return list(itertools.product(self.learning_rates, self.weight_decays))


def _are_kernels(params: Any) -> Any:
    """Mark what users decay: the kernels, not biases and normalizations."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _sgd(rate: Any, **_: Any) -> optax.GradientTransformation:
    return optax.sgd(rate, MOMENTUM)


def _sgd_decay(rate: Any, decay: Any, **_: Any) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(decay, _are_kernels), _sgd(rate)
    )


def _adamw(rate: Any, decay: Any, **_: Any) -> optax.GradientTransformation:
    return optax.adamw(rate, weight_decay=decay, mask=_are_kernels)


def _sgd_renormalize(
    rate: Any, groups: Any, **_: Any
) -> optax.GradientTransformation:
    """What is often written by hand: w <- |w0| (w + u) / |w + u|."""
    return optax.chain(_sgd(rate), psi_optax.transforms.retract(groups))


def _sgd_unit(rate: Any, groups: Any, **_: Any) -> optax.GradientTransformation:
    """The same with norm 1: w <- (w + u) / |w + u|."""
    return optax.chain(
        _sgd(rate), psi_optax.transforms.retract(groups, radius=1.0)
    )


def _psi_sgd(rate: Any, groups: Any, **_: Any) -> optax.GradientTransformation:
    return psi_optax.psi_sgd(rate, groups, momentum=MOMENTUM)


def _psi_sgd_decay(
    rate: Any, decay: Any, groups: Any
) -> optax.GradientTransformation:
    """Decay of what has a scale, which among the kernels is the head."""
    ordinary = _sgd_decay(rate, decay)
    return psi_optax.psi_sgd(rate, groups, momentum=MOMENTUM, ordinary=ordinary)


def _psi_adam(
    rate: Any, decay: Any, groups: Any
) -> optax.GradientTransformation:
    return psi_optax.psi_adam(rate, groups, weight_decay=decay)


def _psi_sgdm(rate: Any, groups: Any, **_: Any) -> optax.GradientTransformation:
    return psi_optax.psi_sgdm(rate, groups, momentum=MOMENTUM)


def _sgd_g(rate: Any, groups: Any, **_: Any) -> optax.GradientTransformation:
    """As published, but for decay; filters have 20 times the others' rate."""
    ordinary = optax.sgd(_times(1 / 20, rate), MOMENTUM, nesterov=True)
    return psi_optax.sgd_g(rate, groups, momentum=MOMENTUM, ordinary=ordinary)


def _weight_rescaling(
    rate: Any, groups: Any, **_: Any
) -> optax.GradientTransformation:
    return psi_optax.weight_rescaling(_sgd(rate), groups)


def _rotational(
    rate: Any, decay: Any, groups: Any
) -> optax.GradientTransformation:
    """As published: filters turn as rate and decay of SGD would make them."""
    return psi_optax.rotational(
        psi_optax.dynamics.matching_learning_rate(
            rate, decay, momentum=MOMENTUM
        ),
        optax.trace(MOMENTUM),
        groups,
        ordinary=_sgd_decay(rate, decay),
    )


def _adamp(rate: Any, decay: Any, groups: Any) -> optax.GradientTransformation:
    """As its users use it: only kernels decay."""
    return optax.partition(
        {
            True: psi_optax.adamp(rate, groups, weight_decay=decay),
            False: optax.adam(rate),
        },
        _are_kernels,
    )


def _times(factor: float, rate: Any) -> optax.Schedule:
    """A schedule, or a number, times a factor."""
    return lambda step: factor * (rate(step) if callable(rate) else rate)


def _rates(low: float, high: float) -> tuple[float, ...]:
    """Return 12 rates, evenly spaced on a logarithmic axis."""
    return tuple(float(f"{rate:.3g}") for rate in np.geomspace(low, high, 12))


SGD_RATES = _rates(0.01, 3.0)
ADAM_RATES = _rates(0.001, 0.3)

METHODS = {
    "sgd": Method("SGD", _sgd, SGD_RATES),
    "sgd_usual_decay": Method(
        "SGD, weight decay 5e-4", _sgd_decay, SGD_RATES, (5e-4,)
    ),
    "sgd_decay": Method(
        "SGD, tuned weight decay",
        _sgd_decay,
        (0.01, 0.03, 0.1, 0.3),
        (0.01, 0.1, 1.0),
    ),
    "adamw": Method(
        "AdamW, tuned weight decay",
        _adamw,
        (0.001, 0.003, 0.01, 0.03),
        (1.0, 10.0, 100.0),
    ),
    "adamw_usual_decay": Method(
        "AdamW, weight decay 1e-2", _adamw, ADAM_RATES, (1e-2,)
    ),
    "adamp": Method(
        "AdamP, tuned weight decay",
        _adamp,
        (0.001, 0.003, 0.01, 0.03),
        (1.0, 10.0, 100.0),
    ),
    "sgd_renormalize": Method(
        "SGD, then renormalize", _sgd_renormalize, SGD_RATES
    ),
    "sgd_unit": Method("SGD, then to norm 1", _sgd_unit, SGD_RATES),
    "sgd_g": Method("sgd_g", _sgd_g, _rates(0.03, 10.0)),
    "weight_rescaling": Method(
        "weight_rescaling", _weight_rescaling, SGD_RATES
    ),
    "rotational": Method(
        "rotational, tuned weight decay",
        _rotational,
        (0.01, 0.03, 0.1, 0.3),
        (0.01, 0.1, 1.0),
    ),
    "psi_sgd": Method("psi_sgd", _psi_sgd, SGD_RATES),
    "psi_sgdm": Method("psi_sgdm", _psi_sgdm, SGD_RATES),
    "psi_sgd_decay": Method(
        "psi_sgd, head decayed",
        _psi_sgd_decay,
        (0.03, 0.1, 0.3, 1.0),
        (0.01, 0.1, 1.0),
    ),
    "psi_adam": Method("psi_adam", _psi_adam, ADAM_RATES),
    "psi_adam_decay": Method(
        "psi_adam, rest decayed",
        _psi_adam,
        (0.003, 0.01, 0.03, 0.1),
        (0.1, 1.0, 10.0),
    ),
}
"""Every method by the name that the command line knows it by."""

DEFAULT = (
    *("sgd", "sgd_usual_decay", "sgd_decay", "adamw"),
    *("sgd_renormalize", "sgd_unit", "psi_sgd", "psi_adam"),
)
"""The methods that are compared where none are named."""
