"""Full-batch gradient descent with and without decay of grouped weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.experiments import sharpness_flow
from benchmarks.experiments.full_batch import (
    Lengths,
    Problem,
    make_descent,
    rising_share,
    short,
)
from psi_optax._compat import enable_x64
from psi_optax.landscape import hessian, stability_threshold

KINDS = ("plain", "spherical")


def make_decay_run(
    problem: Problem, lengths: Lengths
) -> Callable[[float, float], dict[str, Any]]:
    """Compile descent with decay of the grouped weights.

    It is a function of learning rate and decay.
    """
    is_grouped = jax.tree.map(
        lambda group: group is not None,
        problem.groups,
        is_leaf=lambda group: group is None,
    )

    def build(rate, decay):
        decayed = optax.add_decayed_weights(decay, is_grouped)
        return optax.chain(decayed, optax.sgd(rate))

    def curvatures(params, _):
        groups = (None, problem.groups)
        found = (hessian(problem.loss, params, groups=x) for x in groups)
        return dict(zip(KINDS, found, strict=True))

    def norms(params: Any) -> dict[str, jax.Array]:
        return {
            name: jnp.linalg.norm(leaf["kernel"])
            for name, leaf in params.items()
            if name.startswith("hidden")
        }

    descend = make_descent(problem, build, curvatures, lengths, norms)

    def run(rate, decay):
        found = descend(rate, decay)
        found["loss"], losses = found["loss"][:: lengths.record], found["loss"]
        return {
            **{kind: short(found["warm"][kind]) for kind in KINDS},
            "cold": {kind: short(found["cold"][kind]) for kind in KINDS},
            "norms": {name: short(x) for name, x in found["seen"].items()},
            "loss": short(found["loss"]),
            "rises": rising_share(losses),
            "threshold": float(stability_threshold(rate)),
        }

    return run


def flow(product: float, times: int, last: float) -> dict[str, Any]:
    """Return the sharpness of the flow, and of the descent that it predicts."""
    with enable_x64(True):
        at = np.linspace(0, last, times + 1)[1:]
        at = np.rint(at / product) * product
        predicted = sharpness_flow.predict(at)
        found = sharpness_flow.run_with_decay(product, at)
    return {
        "time": short(at),
        "predicted": short(predicted),
        "measured": short(found),
        "error": float(np.abs(found - predicted).max()),
    }
