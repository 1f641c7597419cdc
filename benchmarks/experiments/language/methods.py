"""AdamW, and the methods that replace it for scale-invariant matrices."""

import optax

import psi_optax
from benchmarks.optimizers import OPTIMIZERS
from psi_optax.dynamics import matching_learning_rate

LABELS = {
    "adamw": "AdamW",
    "adamh": "`adamh`",
    "rotational": "`rotational`, Adam inside",
    "psi_adam": "`psi_adam`",
}
"""The methods that are compared, by the names that `make` takes."""


def make(name, groups, rate, decay, factor=1.0, unit=1.0):
    """Make a method, from the rate and the decay of AdamW.

    Parameters without groups are trained by AdamW. Groups turn faster than
    under AdamW by the factor. `unit` is the rate at which `psi_adam` turns by a
    radian, extrapolated from small angles.
    """
    adamw = OPTIMIZERS["adamw"].make
    ordinary = adamw(rate, decay=decay)
    if name == "adamw":
        # Rotations are proportional to the square root of the rate.
        faster = adamw(_times(factor**2, rate), decay=decay)
        return optax.partition(
            {"scale": faster, "ordinary": ordinary},
            lambda params: psi_optax.group_labels(params, groups),
        )
    if name == "psi_adam":
        factor = factor * unit
    matched = matching_learning_rate(rate, decay, optimizer="adamw")
    options = {"ordinary": ordinary}
    if name == "rotational":
        options["direction"] = optax.scale_by_adam()
    return OPTIMIZERS[name].make(_times(factor, matched), groups, **options)


def _times(factor, schedule):
    return lambda step: factor * schedule(step)
