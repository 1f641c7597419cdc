"""The optimizers of ours and of optax that the equivariance table shows.

Each at a rate at which it moves: the property does not depend on it.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import optax

import psi_optax
from psi_optax import ScaleGroup


class Entry(NamedTuple):
    """A row's optimizer.

    Attributes:
        tx: the optimizer.
        claim: what its first weights may be rescaled by, in the words of
            `equivariance.verdict`; None for what is not ours.
    """

    tx: optax.GradientTransformation
    claim: str | None = None


FILTERS = ScaleGroup(axes=0)
NETWORK = psi_optax.joint_groups(FILTERS, tie="network")
FILTER_COUNT = 26  # about the square of the network's norm

RATE = 0.02  # with momentum 0.9
ADAM = 0.02  # of methods whose steps have elements of about this size
ANGLE = 0.05  # of methods that turn by about this many radians a step
DECAY = 0.3

TRACE, MOMENTS = optax.trace(0.9), optax.scale_by_adam()
MOMENTUM = optax.sgd(RATE, momentum=0.9)


def _psi() -> dict[str, Entry]:
    """Any optimizer of optax's, in direction space."""
    inner = {
        "optax.sgd(momentum)": MOMENTUM,
        "clip_by_global_norm, optax.sgd": optax.chain(
            optax.clip_by_global_norm(0.5), MOMENTUM
        ),
        "optax.adamw": optax.adamw(ADAM, weight_decay=DECAY),
        "optax.lion": optax.lion(ADAM),
        "optax.rmsprop": optax.rmsprop(ADAM),
        "optax.lars": optax.lars(ANGLE / 5, trust_coefficient=1.0),
        "optax.lamb": optax.lamb(ANGLE),
        "optax.novograd": optax.novograd(ANGLE),
        "optax.contrib.muon": optax.contrib.muon(ANGLE),
    }
    return {
        f"psi({name})": Entry(psi_optax.psi(tx, FILTERS), "filter")
        for name, tx in inner.items()
    }


def _balls(
    name: str, make: Callable[..., optax.GradientTransformation], *claims: str
) -> dict[str, Entry]:
    """The four forms of a hyperball."""
    forms = [
        {"per_tensor": per_tensor, "equivariant": equivariant}
        for equivariant in (True, False)
        for per_tensor in (False, True)
    ]
    return {
        f"{name}({', '.join(f'{k}={v}' for k, v in form.items())})": Entry(
            make(**form), claim
        )
        for form, claim in zip(forms, claims, strict=True)
    }


OURS: dict[str, Entry] = {
    "psi_sgd": Entry(psi_optax.psi_sgd(10 * RATE, FILTERS), "filter"),
    "psi_sgd(momentum)": Entry(
        psi_optax.psi_sgd(RATE, FILTERS, momentum=0.9), "filter"
    ),
    "psi_sgd(momentum, nesterov)": Entry(
        psi_optax.psi_sgd(RATE, FILTERS, momentum=0.9, nesterov=True), "filter"
    ),
    "psi_sgd(momentum, exponential)": Entry(
        psi_optax.psi_sgd(
            RATE, FILTERS, momentum=0.9, retraction="exponential"
        ),
        "filter",
    ),
    "psi_sgd(momentum, additive)": Entry(
        psi_optax.psi_sgd(RATE, FILTERS, momentum=0.9, retraction=None),
        "filter",
    ),
    "psi_sgd(momentum, additive), add_decayed_weights(scale)": Entry(
        optax.chain(
            psi_optax.psi_sgd(RATE, FILTERS, momentum=0.9, retraction=None),
            psi_optax.transforms.add_decayed_weights(
                -RATE * DECAY, FILTERS, of="scale"
            ),
        ),
        "filter",
    ),
    "psi_sgd(momentum, joint_groups(network))": Entry(
        psi_optax.psi_sgd(RATE / FILTER_COUNT, NETWORK, momentum=0.9), "network"
    ),
    "clip_by_global_norm, psi_sgd(momentum)": Entry(
        optax.chain(
            optax.clip_by_global_norm(0.5),
            psi_optax.psi_sgd(RATE, FILTERS, momentum=0.9),
        ),
        "none",
    ),
    "psi_sgdm": Entry(psi_optax.psi_sgdm(RATE, FILTERS), "filter"),
    "psi_sgdm(additive)": Entry(
        psi_optax.psi_sgdm(RATE, FILTERS, retraction=None), "filter"
    ),
    "psi_adam": Entry(psi_optax.psi_adam(ADAM, FILTERS), "filter"),
    **_psi(),
    "sgd_g": Entry(psi_optax.sgd_g(ANGLE, FILTERS), "filter"),
    "add_orthogonality, sgd_g": Entry(
        optax.chain(
            psi_optax.transforms.add_orthogonality(0.1, FILTERS),
            psi_optax.sgd_g(ANGLE, FILTERS),
        ),
        "filter",
    ),
    "adam_g": Entry(psi_optax.adam_g(ANGLE, FILTERS), "filter"),
    "rotational(optax.trace)": Entry(
        psi_optax.rotational(ANGLE, TRACE, FILTERS), "filter"
    ),
    "rotational(optax.scale_by_adam)": Entry(
        psi_optax.rotational(ANGLE, MOMENTS, FILTERS), "filter"
    ),
    "rotational(optax.scale_by_adam, centered)": Entry(
        psi_optax.rotational(ANGLE, MOMENTS, FILTERS, centered=True), "filter"
    ),
    **_balls(
        "hyperball",
        partial(psi_optax.hyperball, ANGLE, TRACE, FILTERS),
        "filter",
        "tensor",
        "filter",
        "tensor",
    ),
    **_balls(
        "adamh",
        partial(psi_optax.adamh, ANGLE, FILTERS),
        "filter",
        "tensor",
        "filter, to epsilon",
        "tensor, to epsilon",
    ),
    **_balls(
        "muonh",
        partial(psi_optax.muonh, ANGLE, FILTERS),
        "filter",
        "tensor",
        "tensor, to epsilon",
        "tensor, to epsilon",
    ),
    "weight_rescaling(optax.sgd(momentum))": Entry(
        psi_optax.weight_rescaling(MOMENTUM, FILTERS), "none"
    ),
    "sgdp": Entry(psi_optax.sgdp(RATE, FILTERS), "none"),
    "adamp": Entry(psi_optax.adamp(ADAM, FILTERS), "none"),
    "project_by_cosine(optax.trace)": Entry(
        optax.chain(
            psi_optax.wrappers.project_by_cosine(TRACE),
            optax.scale_by_learning_rate(RATE),
        ),
        "none",
    ),
}
"""By the call that makes it, less rates and groups."""


OPTAX: dict[str, Entry] = {
    "sgd": Entry(optax.sgd(10 * RATE)),
    "sgd(momentum)": Entry(MOMENTUM),
    "sgd(momentum), then psi_optax.transforms.retract": Entry(
        optax.chain(MOMENTUM, psi_optax.transforms.retract(FILTERS))
    ),
    "adam": Entry(optax.adam(ADAM)),
    "adam, then psi_optax.transforms.retract": Entry(
        optax.chain(optax.adam(ADAM), psi_optax.transforms.retract(FILTERS))
    ),
    "adamw": Entry(optax.adamw(ADAM, weight_decay=DECAY)),
    "lion": Entry(optax.lion(ADAM)),
    "rmsprop": Entry(optax.rmsprop(ADAM)),
    "lars": Entry(optax.lars(ANGLE / 5, trust_coefficient=1.0)),
    "lamb": Entry(optax.lamb(ANGLE)),
    "novograd": Entry(optax.novograd(ANGLE)),
    "contrib.muon": Entry(optax.contrib.muon(ANGLE)),
}
