"""Bytes that a step reads and writes per weight, by XLA's cost analysis.

They depend on the compiler, and neither on the machine nor on its load.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import jax

from benchmarks.speed import steps
from benchmarks.speed.sets import ParameterSet
from benchmarks.speed.step_time import cases

KERNEL = (3, 3, 256, 256)


def traffic(name: str, dtype: str) -> dict[str, float]:
    """Return bytes per weight of an optimizer's step on one kernel.

    XLA counts the larger branch of a conditional. `psi_sgd` has one, which
    measures all norms if other code has changed the weights.

    Args:
        name: the optimizer.
        dtype: of weights and gradients.

    Returns:
        `ordinary` of a step whose conditionals take their first branch, `most`
        of XLA's own count, and `least`: gradients read once, weights and state
        read and written once.
    """
    kernel = ParameterSet({"kernel": KERNEL}, "kernel", dtype)
    params, gradients = cases.draw(kernel)
    case = cases.build(name, params, kernel.grouped)
    arrays = 3 * steps.size(case.params) + 2 * steps.size(case.state)
    with mock.patch.object(jax.lax, "cond", _first_branch):
        ordinary = _accessed(case, gradients)
    return {
        "ordinary": ordinary / kernel.weights,
        "most": _accessed(case, gradients) / kernel.weights,
        "least": arrays / kernel.weights,
    }


def _first_branch(pred: Any, true_fun: Callable, false_fun: Any, *operands):
    del pred, false_fun
    return true_fun(*operands)


def _accessed(case: steps.Case, gradients: Any) -> float:
    analysis = steps.lower(case, gradients).compile().cost_analysis()
    return float(analysis["bytes accessed"])
