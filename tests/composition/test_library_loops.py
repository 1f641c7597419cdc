"""Training loops as Equinox and Haiku write them: the plain tree's numbers.

Linen and NNX: `tests/conformance/test_frameworks.py`.
"""

from collections.abc import Callable

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.compilation import quick_jit
from tests.composition.runs import uniform
from tests.theory.networks import standardize

pytestmark = pytest.mark.usefixtures("x64")

STEPS = 10
RANDOM = np.random.RandomState(0)
HIDDEN, HEAD = RANDOM.normal(size=(5, 4)), RANDOM.normal(size=(4, 1))
INPUTS = RANDOM.normal(size=(STEPS, 8, 5))
TARGETS = np.sin(INPUTS.sum(-1, keepdims=True))


def optimizer(hidden, head):
    """Momentum on the hidden columns, with an average of all."""
    groups = {hidden: ScaleGroup(axes=0), head: None}
    return optax.chain(
        psi_optax.psi_sgd(0.1, groups, momentum=0.9),
        psi_optax.wrappers.average_weights(uniform),
    ), groups


def error(predicted, target):
    return ((predicted - target) ** 2).mean()


def network(hidden, head, x):
    return jnp.tanh(standardize(x @ hidden, 0)) @ head


def plain():
    tx, groups = optimizer("hidden", "head")

    def loss(params, x, y):
        return error(network(params["hidden"], params["head"], x), y)

    @quick_jit
    def step(params, state, x, y):
        updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    params = {"hidden": jnp.asarray(HIDDEN), "head": jnp.asarray(HEAD)}
    state, path = tx.init(params), []
    for x, y in zip(INPUTS, TARGETS, strict=True):
        params, state = step(params, state, x, y)
        path.append((params["hidden"], params["head"]))
    average = psi_optax.wrappers.get_average(state, params, groups)
    return path, (average["hidden"], average["head"]), 1


class Network(eqx.Module):
    hidden: jax.Array
    head: jax.Array
    activation: Callable = jnp.tanh
    name: str = "net"

    def __call__(self, x):
        return self.activation(standardize(x @ self.hidden, 0)) @ self.head


def equinox():
    tx, groups = optimizer("hidden", "head")
    traces = []

    @eqx.filter_value_and_grad
    def loss(model, x, y):
        return error(model(x), y)

    @eqx.filter_jit
    def step(model, state, x, y):
        traces.append(None)
        _, gradient = loss(model, x, y)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, state = tx.update(gradient, state, params)
        return eqx.apply_updates(model, updates), state

    model = Network(jnp.asarray(HIDDEN), jnp.asarray(HEAD))
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    path = []
    for x, y in zip(INPUTS, TARGETS, strict=True):
        model, state = step(model, state, jnp.asarray(x), jnp.asarray(y))
        path.append((model.hidden, model.head))
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    average = psi_optax.wrappers.get_average(state, params, groups)
    # The model itself, with its functions and names.
    assert eqx.combine(average, rest)(INPUTS[0]).shape == (8, 1)
    return path, (average.hidden, average.head), len(traces)


def haiku():
    tx, groups = optimizer("net/hidden/w", "net/head/w")
    traces = []

    class Net(hk.Module):
        def __call__(self, x):
            x = hk.Linear(4, with_bias=False, name="hidden")(x)
            x = jnp.tanh(standardize(x, 0))
            return hk.Linear(1, with_bias=False, name="head")(x)

    model = hk.without_apply_rng(hk.transform(lambda x: Net("net")(x)))

    def loss(params, x, y):
        return error(model.apply(params, x), y)

    @jax.jit
    def step(params, state, x, y):
        traces.append(None)
        updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    shapes = jax.eval_shape(model.init, jax.random.key(0), INPUTS[0])
    assert set(shapes) == {"net/hidden", "net/head"}
    params = {
        "net/hidden": {"w": jnp.asarray(HIDDEN)},
        "net/head": {"w": jnp.asarray(HEAD)},
    }
    state, path = tx.init(params), []
    for x, y in zip(INPUTS, TARGETS, strict=True):
        params, state = step(params, state, x, y)
        path.append((params["net/hidden"]["w"], params["net/head"]["w"]))
    average = psi_optax.wrappers.get_average(state, params, groups)
    return (
        path,
        (average["net/hidden"]["w"], average["net/head"]["w"]),
        len(traces),
    )


@pytest.fixture(scope="module")
def expected():
    with jax.enable_x64(True):
        return plain()


@pytest.mark.parametrize("train", [equinox, haiku])
def test_a_loop_gives_the_numbers_of_plain_trees(train, expected):
    path, average, traces = train()
    assert traces == 1
    # Ten steps of a network, in another program: each amplifies what the last
    # one was off, 1e-16 of numbers up to 3.
    close = {"rtol": 0, "atol": 1e-12}
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, **close),
        (path, average),
        expected[:2],
    )
    for (hidden, head), start in ((path[-1], HIDDEN), (average, HIDDEN)):
        norms = np.linalg.norm(hidden, axis=0) / np.linalg.norm(start, axis=0)
        np.testing.assert_allclose(norms, 1, rtol=1e-14)
        assert np.abs(head - HEAD).max() > 0.1
    assert np.abs(average[0] - path[-1][0]).max() > 1e-2
