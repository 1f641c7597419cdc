"""MLP and CNN: the scale invariance that they are for, measured."""

import itertools

import jax
import numpy as np
import pytest
from flax import nnx

from psi_optax import ScaleGroup, find_groups

from .twins import (
    CASES,
    IMAGES,
    apply,
    count,
    cross_entropy,
    load_linen,
    params_of,
    variables_of,
)

NAMES = ("MLP", "CNN")


def linen_model(name, **options):
    return CASES[name].linen(**options), variables_of(name)


def nnx_model(name, **options):
    model = CASES[name].nnx(**options)
    load_linen(model, variables_of(name))
    return model


def linen_loss(model, variables, train=True):
    """The loss as a jitted function of the parameters."""

    @jax.jit
    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params},
            IMAGES,
            train=train,
            mutable=["batch_stats"],
        )
        return cross_entropy(logits)

    return loss


def nnx_loss(model, train=True):
    """The same for an NNX model."""
    model.train() if train else model.eval()
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def loss(pure):
        state = jax.tree.map(lambda x: x, params)
        nnx.replace_by_pure_dict(state, pure)
        model = nnx.merge(graph, state, rest, copy=True)
        return cross_entropy(model(IMAGES))

    return loss


def rescale(params, where, factors):
    """Multiply the kernels of some layers, channel by channel."""
    return {
        layer: {
            leaf: np.asarray(value) * factors(value.shape[-1])
            if where(layer) and leaf == "kernel"
            else value
            for leaf, value in leaves.items()
        }
        for layer, leaves in params.items()
    }


def is_hidden(layer):
    return layer.startswith("hidden")


def powers_of_two(size):
    exponents = np.random.RandomState(2).randint(-10, 11, size)
    return np.ldexp(1.0, exponents).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_number_of_parameters(name):
    taps = 1 if name == "MLP" else 9
    widths, classes = CASES[name].args
    sizes = (CASES[name].in_features, *widths)
    expected = sum(
        taps * fan_in * fan_out + 2 * fan_out
        for fan_in, fan_out in itertools.pairwise(sizes)
    )
    expected += (widths[-1] + 1) * classes
    assert count(variables_of(name)["params"]) == expected


@pytest.mark.parametrize("name", NAMES)
def test_momentum_is_the_decay_of_the_running_statistics(name):
    def variance(momentum):
        model, variables = linen_model(name, momentum=momentum)
        run = jax.jit(lambda variables: apply(model, variables)[1])
        return run(variables)["norm_1"]["var"]

    np.testing.assert_allclose(
        variance(0.25), 0.25 * variance(1.0) + 0.75 * variance(0.0), rtol=1e-6
    )
    assert np.abs(variance(0.0) - variance(1.0)).max() > 1e-2


def stated(name):
    """The groups of both frameworks' models, by hand."""
    kernel = ScaleGroup(0) if name == "MLP" else ScaleGroup((0, 1, 2))
    # The next normalization takes the scale of the one before, not the head.
    pair = ScaleGroup(0, tie="norm_0/bias")
    return {
        "hidden_0/kernel": kernel,
        "hidden_1/kernel": kernel,
        "norm_0/scale": pair,
        "norm_0/bias": pair,
        "norm_1/scale": None,
        "norm_1/bias": None,
        "head/kernel": None,
        "head/bias": None,
    }


@pytest.mark.parametrize("framework", ["linen", "nnx"])
@pytest.mark.parametrize("name", NAMES)
def test_the_finder_finds_the_groups_that_are_stated_by_hand(name, framework):
    if framework == "linen":
        model, variables = linen_model(name)
        params, loss = variables["params"], linen_loss(model, variables)
    else:
        model = nnx_model(name)
        params, loss = params_of(model), nnx_loss(model)
    report = find_groups(loss, params, method="analysis")
    assert report.groups_for(params) == stated(name)
    assert find_groups(loss, params).groups == report.groups
    # Not with running averages.
    if framework == "linen":
        loss = linen_loss(model, variables, train=False)
        frozen = find_groups(loss, params, method="analysis")
        assert set(frozen.groups_for(params).values()) == {None}


@pytest.mark.parametrize("framework", ["linen", "nnx"])
@pytest.mark.parametrize("name", NAMES)
def test_the_training_loss_is_scale_invariant(name, framework):
    model, variables = linen_model(name, epsilon=0.0)
    params = variables["params"]
    twin = nnx_model(name, epsilon=0.0)

    def make_loss(train):
        if framework == "linen":
            return linen_loss(model, variables, train)
        return nnx_loss(twin, train)

    loss = make_loss(train=True)
    scaled = rescale(params, is_hidden, powers_of_two)
    assert loss(scaled) == loss(params)
    scaled = rescale(
        params, is_hidden, lambda n: np.linspace(0.1, 30.0, n, dtype=np.float32)
    )
    np.testing.assert_allclose(loss(scaled), loss(params), rtol=1e-5)

    # The head's scale matters, and so does every scale in evaluation mode.
    scaled_head = rescale(params, lambda x: x == "head", powers_of_two)
    assert abs(loss(scaled_head) - loss(params)) > 0.1
    evaluate = make_loss(train=False)
    scaled = rescale(params, is_hidden, lambda _: np.float32(2))
    assert abs(evaluate(scaled) - evaluate(params)) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_epsilon_breaks_the_invariance(name):
    model, variables = linen_model(name, epsilon=0.1)
    params = variables["params"]
    loss = linen_loss(model, variables)
    scaled = rescale(params, is_hidden, lambda _: np.float32(0.25))
    assert abs(loss(scaled) - loss(params)) > 1e-3


def radial_cosines(params, gradients, groups):
    """Largest |cosine| between weights and gradient in any group of a leaf."""

    def largest(w, g, axes):
        w, g = np.asarray(w, np.float64), np.asarray(g, np.float64)
        dots = np.abs((w * g).sum(axes))
        norms = np.sqrt((w**2).sum(axes) * (g**2).sum(axes))
        # A channel that is dead after the ReLU has no gradient at all.
        return np.max(dots[norms > 0] / norms[norms > 0])

    return {
        layer: largest(
            params[layer]["kernel"], gradients[layer]["kernel"], group.axes
        )
        for layer, group in groups.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_tangent_to_the_groups(name):
    model, variables = linen_model(name, epsilon=0.0)
    params = variables["params"]
    groups = {
        layer: stated(name)[f"{layer}/kernel"]
        for layer in params
        if is_hidden(layer)
    }
    gradients = jax.grad(linen_loss(model, variables))(params)
    for layer, cosine in radial_cosines(params, gradients, groups).items():
        assert cosine < 1e-4, layer

    # Neither with an epsilon nor along other axes.
    model, variables = linen_model(name, epsilon=1.0)
    gradients = jax.grad(linen_loss(model, variables))(params)
    for layer, cosine in radial_cosines(params, gradients, groups).items():
        assert cosine > 1e-2, layer
    head = {"head": groups["hidden_0"]}
    if name == "MLP":
        cosines = radial_cosines(params, gradients, head)
        assert cosines["head"] > 1e-2
