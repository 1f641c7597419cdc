"""With the same weights, Linen and NNX compute the same."""

import jax
import pytest
from flax import nnx

from .twins import (
    BATCH_NORMALIZED,
    CASES,
    IMAGES,
    apply,
    difference,
    load_linen,
    params_of,
    shapes,
    statistics_of,
    variables_of,
)


def options_of(name):
    """None of them as it is by default."""
    return {"epsilon": 1e-3} | (
        {"momentum": 0.7} if name in BATCH_NORMALIZED else {}
    )


def linen_results(name):
    """Logits of both modes, and the statistics after training mode."""
    model = CASES[name].linen(**options_of(name))

    @jax.jit
    def run(variables):
        return *apply(model, variables), apply(model, variables, train=False)[0]

    return run(variables_of(name))


def nnx_results(name):
    model = CASES[name].nnx(**options_of(name))
    load_linen(model, variables_of(name))

    @nnx.jit
    def run(model):
        model.eval()
        evaluated = model(IMAGES)
        model.train()
        return model(IMAGES), statistics_of(model), evaluated

    return run(model)


@pytest.mark.parametrize("name", CASES)
def test_both_frameworks_have_the_same_parameters(name):
    variables = variables_of(name)
    model = CASES[name].nnx()
    assert shapes(params_of(model)) == shapes(variables["params"])
    assert shapes(statistics_of(model)) == shapes(
        variables.get("batch_stats", {})
    )


# Nothing differs on a CPU, where both compile to the same. If one of them were
# to add up in another order: n terms of one sign are off by sqrt(n) roundings
# of 2^-24, and a sum that cancels, or a variance of few values, by ten times
# that; n is 768 at most and there are up to nine layers in a row, so
# 10 * sqrt(768 * 9) * 2^-24 = 5e-5.
TOLERANCE = 5e-5


@pytest.mark.parametrize("name", CASES)
def test_both_frameworks_compute_the_same(name):
    theirs, ours = linen_results(name), nnx_results(name)
    assert shapes(ours) == shapes(theirs)
    assert difference(ours, theirs) < TOLERANCE
    # The two modes are not the same, nor are statistics what they were.
    before = variables_of(name).get("batch_stats", {})
    trained, statistics, evaluated = ours
    if name in BATCH_NORMALIZED:
        assert difference(trained, evaluated) > 1e-2
        assert difference(statistics, before) > 1e-2
    else:
        assert difference(trained, evaluated) == 0
