"""With the same weights, both frameworks compute the same."""

import dataclasses
import inspect

import jax
import pytest
from flax import nnx

from psi_optax.models import linen, nnx as nnx_models, options

from .twins import (
    BATCH_NORMALIZED,
    CASES,
    apply,
    difference,
    load_linen,
    params_of,
    shapes,
    statistics_of,
    variables_of,
)


def options_of(name):
    """Return options that differ from the defaults."""
    return {"epsilon": 1e-3} | (
        {"momentum": 0.7} if name in BATCH_NORMALIZED else {}
    )


def linen_results(name):
    """Return logits and statistics in training mode, logits in evaluation."""
    model, inputs = CASES[name].linen(**options_of(name)), CASES[name].inputs

    @jax.jit
    def run(variables):
        evaluated, _ = apply(model, variables, inputs, train=False)
        return *apply(model, variables, inputs), evaluated

    return run(variables_of(name))


def nnx_results(name):
    model, inputs = CASES[name].nnx(**options_of(name)), CASES[name].inputs
    load_linen(model, variables_of(name))

    @nnx.jit
    def run(model):
        model.eval()
        evaluated = model(inputs)
        model.train()
        return model(inputs), statistics_of(model), evaluated

    return run(model)


def arguments(cls):
    """Return the positional arguments of a constructor, with their defaults."""
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in FRAMEWORK
    }


FRAMEWORK = {"parent", "name", "in_features"}

# Not layers, whose options are keywords in NNX.
NETWORKS = set(linen.__all__) - {"GroupBatchNorm", "WhitenedBatchNorm"}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_both_frameworks_take_the_same_arguments(name):
    ours = arguments(getattr(nnx_models, name))
    assert ours == arguments(getattr(linen, name))
    assert ("vocabulary" if name == "Transformer" else "num_classes") in ours


@pytest.mark.parametrize("kind", ["BatchNorm", "RMSNorm"])
def test_both_frameworks_take_the_same_options(kind):
    fields = dataclasses.fields(getattr(options, f"{kind}Options"))
    keywords = getattr(options, f"{kind}Keywords").__annotations__
    assert list(keywords) == [field.name for field in fields]


@pytest.mark.parametrize("name", CASES)
def test_both_frameworks_have_the_same_parameters(name):
    variables = variables_of(name)
    model = CASES[name].nnx()
    assert shapes(params_of(model)) == shapes(variables["params"])
    assert shapes(statistics_of(model)) == shapes(
        variables.get("batch_stats", {})
    )


# On a CPU both compile to the same operations. If one of them added in another
# order, n terms of one sign would be off by sqrt(n) roundings of 2^-24, and a
# sum that cancels, or a variance of few values, by ten times that. n is 768 at
# most, in up to nine layers in a row: 10 * sqrt(768 * 9) * 2^-24 = 5e-5.
TOLERANCE = 5e-5


@pytest.mark.parametrize("name", CASES)
def test_both_frameworks_compute_the_same(name):
    theirs, ours = linen_results(name), nnx_results(name)
    assert shapes(ours) == shapes(theirs)
    assert difference(ours, theirs) < TOLERANCE
    # The modes differ, and training moves all statistics.
    before = variables_of(name).get("batch_stats", {})
    trained, statistics, evaluated = ours
    if name in BATCH_NORMALIZED:
        assert difference(trained, evaluated) > 1e-2
        assert difference(statistics, before) > 1e-2
        moved = jax.tree.map(lambda x, y: (x != y).all(), statistics, before)
        assert all(jax.tree.leaves(moved))
    else:
        assert difference(trained, evaluated) == 0
