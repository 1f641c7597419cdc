"""The normalizations, and the optimizers in front of each."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import psi_optax
from benchmarks.experiments.normalizations.network import identity
from benchmarks.optimizers import MOMENTUM, OPTIMIZERS, Make
from psi_optax import ScaleGroup, reparametrize

FILTERS = ScaleGroup(axes=0)

# The norm that He initialization gives filters.
_GAIN = math.sqrt(2)

# Filters without a mean see the variance of ReLUs, (1 - 1 / pi) / 2 for normal
# inputs, in place of their mean square.
_GAIN_OF_VARIANCE = _GAIN / math.sqrt(1 - 1 / math.pi)


def _psi_sgd_stated(rate, groups, *, radius):
    """Run psi_sgd where gradients have radial parts, which it measures."""
    trace = optax.trace(MOMENTUM)
    return psi_optax.psi_direction(rate, trace, groups, radius=radius)


_USUAL = {name: OPTIMIZERS[name].make for name in ("sgd", "psi_sgd")}


class Normalization(NamedTuple):
    """A network's normalization, and its two optimizers.

    Attributes:
        label: its name in tables and figures.
        function: makes the weights of a hidden layer from its kernel.
        batch_norm: whether a batch normalization follows each hidden layer.
        scaled: whether each unit has a learned scale.
        stated: whether filters are stated to be groups. Otherwise groups are
            found.
        optimizers: makers, by name.
    """

    label: str
    function: Callable[[jax.Array], jax.Array] = identity
    batch_norm: bool = False
    scaled: bool = True
    stated: bool = False
    optimizers: Mapping[str, Make] = _USUAL


NORMALIZATIONS = {
    "none": Normalization(
        "none",
        scaled=False,
        stated=True,
        optimizers={
            "sgd": OPTIMIZERS["sgd"].make,
            "psi_sgd": partial(_psi_sgd_stated, radius="init"),
        },
    ),
    "unit": Normalization(
        "weight normalization",
        partial(reparametrize.unit, groups=FILTERS, gains=_GAIN),
    ),
    "centered": Normalization(
        "centered weight normalization",
        partial(reparametrize.centered, groups=FILTERS, gains=_GAIN),
    ),
    "standardized": Normalization(
        "scaled weight standardization",
        partial(
            reparametrize.standardized, groups=FILTERS, gain=_GAIN_OF_VARIANCE
        ),
    ),
    "orthogonal": Normalization(
        "orthogonal weight normalization",
        partial(reparametrize.orthogonal, groups=FILTERS, gain=_GAIN),
    ),
    "projected": Normalization(
        "projection to norm 1",
        partial(jnp.multiply, _GAIN),
        stated=True,
        optimizers={
            "sgd": OPTIMIZERS["weight_rescaling"].make,
            "psi_sgd": partial(_psi_sgd_stated, radius=1.0),
        },
    ),
    "batch_norm": Normalization("BatchNorm", batch_norm=True),
}
"""The normalizations that are compared, by name."""

LABELS = {"sgd": "SGD", "psi_sgd": "psi_sgd"}
"""The optimizers in front of each."""
