"""The Flax networks: shapes, twins, and the scale invariance they are for."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from psi_optax import ScaleGroup, find_groups
from psi_optax.models import linen
from psi_optax.models import nnx as nnx_models

CLASSES = 5
WIDTHS = (12, 16)
NAMES = ("MLP", "CNN")

random = np.random.RandomState(0)
IMAGES = random.normal(size=(32, 8, 8, 2)).astype(np.float32)
LABELS = random.randint(0, CLASSES, 32)


def in_features(name):
    return 8 * 8 * 2 if name == "MLP" else 2


@functools.cache
def linen_variables(name):
    """Variables in which nothing is 0 or 1."""
    model = getattr(linen, name)(WIDTHS, CLASSES)
    init = jax.jit(model.init, static_argnames="train")
    variables = init(jax.random.key(0), IMAGES, train=False)
    noise = np.random.RandomState(1)
    return jax.tree.map(
        lambda x: x + jnp.asarray(noise.uniform(0.1, 0.3, x.shape), x.dtype),
        variables,
    )


def linen_model(name, **options):
    model = getattr(linen, name)(WIDTHS, CLASSES, **options)
    return model, linen_variables(name)


def nnx_model(name, **options):
    cls = getattr(nnx_models, name)
    return cls(in_features(name), WIDTHS, CLASSES, **options, rngs=nnx.Rngs(0))


@functools.partial(jax.jit, static_argnums=(0, 2))
def apply(model, variables, train):
    """The logits, and the running statistics after them."""
    return model.apply(variables, IMAGES, train=train, mutable=["batch_stats"])


@nnx.jit
def nnx_apply(model, images):
    return model(images)


def params_of(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def load_linen(model, variables):
    """Put variables of the Linen twin into an NNX model."""
    for kind, collection in (
        (nnx.Param, variables["params"]),
        (nnx.BatchStat, variables["batch_stats"]),
    ):
        state = nnx.state(model, kind)
        nnx.replace_by_pure_dict(state, collection)
        nnx.update(model, state)


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


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(
        logits, LABELS
    ).mean()


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


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_logits_have_one_column_for_each_class(name, train):
    model, variables = linen_model(name)
    logits, _ = apply(model, variables, train)
    assert logits.shape == (len(IMAGES), CLASSES)
    twin = nnx_model(name)
    twin.train() if train else twin.eval()
    assert nnx_apply(twin, IMAGES).shape == (len(IMAGES), CLASSES)


@pytest.mark.parametrize("name", NAMES)
def test_number_of_parameters(name):
    taps = 1 if name == "MLP" else 9
    sizes = (in_features(name), *WIDTHS)
    expected = sum(
        taps * fan_in * fan_out + 2 * fan_out
        for fan_in, fan_out in itertools.pairwise(sizes)
    )
    expected += (WIDTHS[-1] + 1) * CLASSES
    for params in (linen_model(name)[1]["params"], params_of(nnx_model(name))):
        assert sum(x.size for x in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_both_frameworks_have_the_same_parameters(name):
    model = nnx_model(name)
    _, variables = linen_model(name)
    statistics = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    assert shapes(params_of(model)) == shapes(variables["params"])
    assert shapes(statistics) == shapes(variables["batch_stats"])
    assert set(params_of(model)) == {
        *("hidden_0", "norm_0", "hidden_1", "norm_1", "head")
    }


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_both_frameworks_compute_the_same(name, train):
    options = {"epsilon": 1e-3, "momentum": 0.7}
    model, variables = linen_model(name, **options)
    twin = nnx_model(name, **options)
    load_linen(twin, variables)
    twin.train() if train else twin.eval()
    logits, updates = apply(model, variables, train)
    np.testing.assert_allclose(
        nnx_apply(twin, IMAGES), logits, rtol=1e-5, atol=1e-5
    )
    statistics = nnx.to_pure_dict(nnx.state(twin, nnx.BatchStat))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        statistics,
        updates["batch_stats"] if train else variables["batch_stats"],
    )


@pytest.mark.parametrize("name", NAMES)
def test_momentum_is_the_decay_of_the_running_statistics(name):
    def variance(momentum):
        model, variables = linen_model(name, momentum=momentum)
        _, updates = apply(model, variables, True)
        return updates["batch_stats"]["norm_1"]["var"]

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
    load_linen(twin, variables)

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
