"""One function on the trees of four frameworks: one loss, to the bit."""

import functools
import itertools

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn, nnx

from psi_optax import ScaleGroup, find_groups, groups_from_paths
from psi_optax.groups import make_plan
from psi_optax.reparametrize import (
    Reparametrized,
    centered,
    orthogonal,
    raw_groups,
    spectral,
    standardized,
    unit,
    weight_normalization,
)
from tests.reparametrize.problem import draw

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion", "ranks")

WIDTHS = (9, 6, 5, 3)
LAYERS = ("first", "second", "head")


@pytest.fixture
def ranks():
    """Let frameworks add biases as they do."""
    with jax.numpy_rank_promotion("allow"):
        yield


def arrays():
    return {
        name: (draw(*shape, seed=i), 0.1 * draw(shape[1], seed=10 + i))
        for i, (name, shape) in enumerate(
            zip(LAYERS, itertools.pairwise(WIDTHS), strict=True)
        )
    }


def cross_entropy(logits):
    labels = jnp.arange(16) % 3
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()


def inputs():
    return draw(16, 9, seed=20)


def stated(leaf, axes=0):
    return groups_from_paths({rf"(first|second)/{leaf}": ScaleGroup(axes)})


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        for name, width in zip(LAYERS, WIDTHS[1:], strict=True):
            x = nn.Dense(width, name=name, param_dtype=jnp.float64)(x)
            x = x if name == "head" else nn.relu(x)
        return x


def in_linen():
    params = {n: {"kernel": k, "bias": b} for n, (k, b) in arrays().items()}

    def loss(params):
        return cross_entropy(Linen().apply({"params": params}, inputs()))

    return params, loss, stated("kernel")


class Nnx(nnx.Module):
    def __init__(self):
        for name, (kernel, bias) in arrays().items():
            layer = nnx.Linear(
                *kernel.shape, rngs=nnx.Rngs(0), param_dtype=jnp.float64
            )
            layer.kernel[...], layer.bias[...] = kernel, bias
            setattr(self, name, layer)

    def __call__(self, x):
        x = nnx.relu(self.second(nnx.relu(self.first(x))))
        return self.head(x)


def in_nnx():
    graph, params, rest = nnx.split(Nnx(), nnx.Param, ...)

    def loss(params):
        model = nnx.merge(graph, params, rest, copy=True)
        return cross_entropy(model(inputs()))

    return params, loss, stated("kernel")


class Equinox(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    head: eqx.nn.Linear

    def __call__(self, x):
        x = jax.nn.relu(self.second(jax.nn.relu(self.first(x))))
        return self.head(x)


def in_equinox():
    layers = []
    for kernel, bias in arrays().values():
        layer = eqx.nn.Linear(
            *kernel.shape, key=jax.random.key(0), dtype=jnp.float64
        )
        new = (kernel.T, bias)
        layers.append(eqx.tree_at(lambda m: (m.weight, m.bias), layer, new))
    params, static = eqx.partition(Equinox(*layers), eqx.is_inexact_array)

    def loss(params):
        return cross_entropy(jax.vmap(eqx.combine(params, static))(inputs()))

    return params, loss, stated("weight", 1)


def in_haiku():
    def forward(x):
        for name, width in zip(LAYERS, WIDTHS[1:], strict=True):
            x = hk.Linear(width, name=name)(x)
            x = x if name == "head" else jax.nn.relu(x)
        return x

    net = hk.without_apply_rng(hk.transform(forward))
    params = {n: {"w": k, "b": b} for n, (k, b) in arrays().items()}

    def loss(params):
        return cross_entropy(net.apply(params, inputs()))

    return params, loss, stated("w")


FRAMEWORKS = {
    "linen": in_linen,
    "nnx": in_nnx,
    "equinox": in_equinox,
    "haiku": in_haiku,
}


def plain(function, **options):
    """Return a pair of functions like `weight_normalization`, without gains."""

    def pair(groups):
        return (
            lambda params: params,
            functools.partial(function, groups=groups, **options),
        )

    return pair


KINDS = {
    "none": lambda groups: (lambda p: p, lambda p: p),
    "unit": plain(unit, gains=2**0.5),
    "learned": weight_normalization,
    "learned, centered": lambda groups: weight_normalization(groups, centered),
    "standardized": plain(standardized),
    "orthogonal": plain(orthogonal),
    "spectral": plain(spectral),
}


def evaluated(framework, kind):
    """Return the loss, the squared norm of its gradient, and both trees."""
    params, loss, groups = FRAMEWORKS[framework]()
    init, apply = KINDS[kind](groups)
    raw = init(params)
    value, gradient = jax.value_and_grad(lambda r: loss(apply(r)))(raw)
    square = sum(float(jnp.vdot(x, x)) for x in jax.tree.leaves(gradient))
    return float(value), square, raw, gradient


@functools.cache
def losses(kind):
    return {name: evaluated(name, kind)[:2] for name in FRAMEWORKS}


@pytest.mark.parametrize("kind", KINDS)
def test_one_loss_in_four_frameworks(kind):
    found = losses(kind)
    values = [loss for loss, _ in found.values()]
    # Equinox has kernels transposed, and multiplies vectors: the frameworks
    # themselves agree to the bit here, or else to their own rounding.
    own = np.ptp([loss for loss, _ in losses("none").values()])
    assert np.ptp(values) <= own
    squares = [square for _, square in found.values()]
    np.testing.assert_allclose(squares, squares[0], rtol=1e-13)
    if kind not in ("none", "learned"):
        assert abs(values[0] - losses("none")["linen"][0]) > 1e-3


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_learned_gains_keep_the_loss_to_the_bit(framework):
    assert losses("learned")[framework][0] == losses("none")[framework][0]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_gradients_are_orthogonal_to_raw_weights(framework):
    _, _, raw, gradient = evaluated(framework, "learned")
    assert isinstance(gradient, Reparametrized)
    plan = make_plan(raw_groups(FRAMEWORKS[framework]()[2]), raw)
    inner = plan.dot(plan.select(raw), plan.select(gradient))
    for x in jax.tree.leaves(inner):
        # Nine products of up to 3, and as many roundings of the gradient.
        np.testing.assert_allclose(x, 0, rtol=0, atol=2 * 27 * 2.3e-16)
    _, _, params, gradient = evaluated(framework, "none")
    plan = make_plan(FRAMEWORKS[framework]()[2], params)
    inner = plan.dot(plan.select(params), plan.select(gradient))
    assert max(np.abs(x).max() for x in jax.tree.leaves(inner)) > 1e-3


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_finder_proves_them(framework):
    params, loss, groups = FRAMEWORKS[framework]()
    for function in (unit, centered):
        wn = weight_normalization(groups, function)
        raw = wn.init(params)
        report = find_groups(lambda r, wn=wn: loss(wn.apply(r)), raw)
        assert make_plan(report, raw) == make_plan(raw_groups(groups), raw)
        kinds = {x.kind for x in report.findings.values() if x.group}
        assert kinds == {"proved"}


def test_an_nnx_model_is_trained_and_freed():
    """As in a training loop: the model holds raw weights all along."""
    groups, model = stated("kernel"), Nnx()
    tx = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        weights = standardized(params, groups)
        net = nnx.merge(graph, weights, rest, copy=True)
        return cross_entropy(net(inputs()))

    before = float(loss(params))
    for _ in range(5):
        tx.update(model, jax.grad(loss)(nnx.state(model, nnx.Param)))
    params = nnx.state(model, nnx.Param)
    after = float(loss(params))
    assert after < before - 1e-3
    nnx.update(model, standardized(params, groups))
    assert float(cross_entropy(model(inputs()))) == after
    again = standardized(nnx.state(model, nnx.Param), groups)
    # A projection: of what it made, but for rounding.
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-14),
        again,
        nnx.state(model, nnx.Param),
    )
