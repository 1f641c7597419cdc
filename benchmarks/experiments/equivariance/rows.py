"""Optimizers of psi_optax and of optax in the equivariance table."""

import itertools
from typing import NamedTuple

import optax

import psi_optax
from benchmarks.experiments.equivariance.problem import (
    ADAM,
    ANGLE,
    RATE,
    SHAPES,
)
from benchmarks.optimizers import OPTIMIZERS
from psi_optax import transforms


class Row(NamedTuple):
    """An optimizer, and its claim, as `experiment.verdict` says it, or ""."""

    tx: optax.GradientTransformation
    claim: str = ""


GROUPS = dict.fromkeys(SHAPES, psi_optax.ScaleGroup(axes=0))
NETWORK = psi_optax.joint_groups(psi_optax.ScaleGroup(axes=0), tie="network")
FILTER_COUNT = 26  # about the square of the network's norm
DECAY = 0.3


def _of(name, rate, claim="", groups=GROUPS, **options) -> Row:
    """Make an optimizer of the one table, whose claim holds by default."""
    optimizer = OPTIMIZERS[name]
    tx = optimizer.make(rate, groups, **options)
    return Row(tx, claim or optimizer.invariance or "")


def _chain(claim: str, *transformations: optax.GradientTransformation) -> Row:
    return Row(optax.chain(*transformations), claim)


def _psi(tx: optax.GradientTransformation) -> Row:
    return Row(psi_optax.psi(tx, GROUPS), "filter")


def _balls(name: str, *published: str) -> dict[str, Row]:
    """Make the four forms of a hyperball, with the claims as published."""
    forms = itertools.product((True, False), (False, True))
    return {
        f"{name}(per_tensor={tensor}, equivariant={equivariant})": _of(
            name, ANGLE, claim, per_tensor=tensor, equivariant=equivariant
        )
        for (equivariant, tensor), claim in zip(
            forms, ("filter", "tensor", *published), strict=True
        )
    }


OPTAX: dict[str, Row] = {
    "sgd": _of("sgd", 10 * RATE, momentum=None),
    "sgd(momentum)": _of("sgd", RATE),
    "sgd(momentum), then psi_optax.transforms.retract": _of(
        "sgd_retracted", RATE
    ),
    "adam": _of("adam", ADAM),
    "adam, then psi_optax.transforms.retract": _chain(
        "", optax.adam(ADAM), transforms.retract(GROUPS)
    ),
    "adamw": _of("adamw", ADAM, decay=DECAY),
    "lion": _of("lion", ADAM),
    "rmsprop": _of("rmsprop", ADAM),
    "lars": _of("lars", ANGLE / 5, trust_coefficient=1.0),
    "lamb": _of("lamb", ANGLE),
    "novograd": _of("novograd", ANGLE),
    "contrib.muon": _of("muon", ANGLE),
}

WITHIN_PSI = (
    *("sgd(momentum)", "adamw", "lion", "rmsprop", "lars", "lamb"),
    *("novograd", "contrib.muon"),
)
CLIP = optax.clip_by_global_norm(0.5)
MOMENTS = optax.scale_by_adam()
PSI_SGD = _of("psi_sgd", RATE)
ADDITIVE = _of("psi_sgd", RATE, retraction=None)
SCALE_DECAY = transforms.add_decayed_weights(-RATE * DECAY, GROUPS, of="scale")

OURS: dict[str, Row] = {
    "psi_sgd": _of("psi_sgd", 10 * RATE, momentum=None),
    "psi_sgd(momentum)": PSI_SGD,
    "psi_sgd(momentum, nesterov)": _of("psi_sgd", RATE, nesterov=True),
    "psi_sgd(momentum, exponential)": _of(
        "psi_sgd", RATE, retraction="exponential"
    ),
    "psi_sgd(momentum, additive)": ADDITIVE,
    "psi_sgd(momentum, additive), add_decayed_weights(scale)": _chain(
        "filter", ADDITIVE.tx, SCALE_DECAY
    ),
    "psi_sgd(momentum, joint_groups(network))": _of(
        "psi_sgd", RATE / FILTER_COUNT, "network", NETWORK
    ),
    "clip_by_global_norm, psi_sgd(momentum)": _chain("none", CLIP, PSI_SGD.tx),
    "psi_sgdm": _of("psi_sgdm", RATE),
    "psi_sgdm(additive)": _of("psi_sgdm", RATE, retraction=None),
    "psi_adam": _of("psi_adam", ADAM),
    "psi(clip_by_global_norm, optax.sgd)": _psi(
        optax.chain(CLIP, OPTAX["sgd(momentum)"].tx)
    ),
    **{f"psi(optax.{name})": _psi(OPTAX[name].tx) for name in WITHIN_PSI},
    "sgd_g": _of("sgd_g", ANGLE),
    "add_orthogonality, sgd_g": _chain(
        "filter",
        transforms.add_orthogonality(0.1, GROUPS),
        _of("sgd_g", ANGLE).tx,
    ),
    "adam_g": _of("adam_g", ANGLE),
    "rotational(optax.trace)": _of("rotational", ANGLE),
    "rotational(optax.scale_by_adam)": _of(
        "rotational", ANGLE, direction=MOMENTS
    ),
    "rotational(optax.scale_by_adam, centered)": _of(
        "rotational", ANGLE, direction=MOMENTS, centered=True
    ),
    **_balls("hyperball", "filter", "tensor"),
    **_balls("adamh", "filter, to epsilon", "tensor, to epsilon"),
    **_balls("muonh", "tensor, to epsilon", "tensor, to epsilon"),
    "weight_rescaling(optax.sgd(momentum))": _of("weight_rescaling", RATE),
    "sgdp": _of("sgdp", RATE),
    "adamp": _of("adamp", ADAM),
    "project_by_cosine(optax.trace)": _chain(
        "none",
        psi_optax.wrappers.project_by_cosine(optax.trace(0.9)),
        optax.scale_by_learning_rate(RATE),
    ),
}
"""By the call that makes it, less rates and groups."""
