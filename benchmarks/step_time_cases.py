"""What is timed on a set of parameters: the optimizers, and their baselines."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks.step_time_sets import ParameterSet
from benchmarks.step_time_steps import Case, build, build_by_hand

__all__ = ["ADAM", "BY_HAND", "SGD", "baseline", "draw", "makers", "optimizers"]

SGD, ADAM = "optax.sgd(momentum)", "optax.adam"

BY_HAND = "sgd, then renormalize by hand"
"""A training step without psi_optax, that keeps the norms of filters."""


def draw(chosen: ParameterSet) -> tuple[Any, Any]:
    """Weights and gradients, fixed numbers of no meaning."""
    random = np.random.default_rng(0)
    params = {
        path: jnp.asarray(
            0.05 * random.standard_normal(shape, np.float32), chosen.dtype
        )
        for path, shape in chosen.shapes.items()
    }
    return params, jax.tree.map(lambda w: 1e-3 * jnp.flip(w), params)


def makers(params: Any, chosen: ParameterSet) -> dict[str, Callable[[], Case]]:
    """What makes the step of each optimizer, by the names that tables have."""
    found: dict[str, Callable[[], Case]] = {
        name: functools.partial(build, tx, params)
        for name, tx in optimizers(
            params, chosen.grouped, chosen.family
        ).items()
    }
    by_hand = functools.partial(
        build_by_hand, optax.sgd(0.01, momentum=0.9), chosen.grouped, params
    )
    found = {SGD: found.pop(SGD), BY_HAND: by_hand, **found}
    return {x: make for x, make in found.items() if x not in chosen.left_out}


def optimizers(
    params: Any, grouped: str, family: bool = True
) -> dict[str, optax.GradientTransformation]:
    """Baselines, ours and optax's.

    Args:
        params: the parameters.
        grouped: which of them have a group for each output channel.
        family: whether to time all methods.
    """
    groups = psi_optax.output_channels(params, where=grouped)
    sgd, adam = optax.sgd(0.01, momentum=0.9), optax.adam(1e-3)
    psi_sgd = psi_optax.psi_sgd(0.01, groups, momentum=0.9)
    main: dict[str, optax.GradientTransformation] = {
        SGD: sgd,
        "psi_sgd(momentum)": psi_sgd,
        "psi(optax.sgd(momentum))": psi_optax.psi(sgd, groups),
        "sgd, then retract": optax.chain(
            sgd, psi_optax.transforms.retract(groups)
        ),
        "optax.lars": optax.lars(0.01, momentum=0.9),
        ADAM: adam,
        "optax.adamw": optax.adamw(1e-3),
        "psi_adam": psi_optax.psi_adam(1e-3, groups),
        "psi(optax.adam)": psi_optax.psi(adam, groups),
        "optax.lamb": optax.lamb(1e-3),
        "optax.contrib.muon": _muon(params, groups),
    }
    if not family:
        return main
    trace = optax.trace(0.9)
    return {
        **main,
        "psi_sgd(momentum), monitor_groups": optax.chain(
            psi_sgd, psi_optax.diagnostics.monitor_groups(groups)
        ),
        "psi_sgdm": psi_optax.psi_sgdm(0.01, groups),
        "sgd_g": psi_optax.sgd_g(0.01, groups),
        "sgdp": psi_optax.sgdp(0.01, groups),
        "weight_rescaling(optax.sgd(momentum))": psi_optax.weight_rescaling(
            sgd, groups
        ),
        "rotational(optax.trace)": psi_optax.rotational(0.01, trace, groups),
        "hyperball(optax.trace)": psi_optax.hyperball(0.01, trace, groups),
        "adam_g": psi_optax.adam_g(1e-3, groups),
        "adamp": psi_optax.adamp(1e-3, groups),
        "adamh": psi_optax.adamh(1e-3, groups),
        "optax.novograd": optax.novograd(1e-3),
    }


def _muon(params: Any, groups: Any) -> optax.GradientTransformation:
    """Muon on what has groups, as matrices with a column for each group.

    Left alone it takes what has two axes, and no convolution. The rest goes
    through its Adam.
    """

    def matrix(group, w):
        if group is None:
            return None
        rows = tuple(range(w.ndim - 1))
        return optax.contrib.MuonDimensionNumbers(rows, w.ndim - 1)

    numbers = jax.tree.map(
        matrix, groups, params, is_leaf=lambda group: group is None
    )
    return optax.contrib.muon(1e-3, muon_weight_dimension_numbers=numbers)


def baseline(name: str) -> str:
    """The optimizer that a case is compared with."""
    adam = any(word in name for word in ("adam", "lamb", "novograd", "muon"))
    return ADAM if adam else SGD
