"""Decentralized averaging: against its matrix, and back on the spheres."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi_sgd
from psi_optax.transforms import mix_with_neighbors, retract
from tests.theory.perturbed import distance

pytestmark = pytest.mark.usefixtures("x64")
GROUPS = {"kernel": ScaleGroup(0), "head": None}
SIZE = 4
RING = [np.eye(SIZE), *(np.roll(np.eye(SIZE), shift, 0) for shift in (1, -1))]


def matrix(left, own, right):
    """M, with learner j - 1 on the left of j."""
    return own * RING[0] + left * RING[1] + right * RING[2]


def make_learners():
    """Params of four learners, near one another, and their data."""
    random = np.random.RandomState(0)
    base = {"kernel": random.normal(size=(8, 6)), "head": random.normal(size=6)}
    learners = jax.tree.map(
        lambda x: x + 0.1 * random.normal(size=(SIZE, *x.shape)), base
    )
    data = random.normal(size=(SIZE, 16, 8)), random.normal(size=(SIZE, 16))
    return jax.tree.map(jnp.asarray, (learners, data))


def loss(params, batch):
    x, target = batch
    h = x @ params["kernel"]
    h = jnp.tanh((h - h.mean(0, keepdims=True)) / h.std(0, keepdims=True))
    return jnp.mean((h @ params["head"] - target) ** 2)


def train(tx, learners, data, steps=20):
    @jax.jit
    @jax.vmap
    def init(params):
        return tx.init(params)

    def step(params, state, batch):
        gradient = jax.grad(loss)(params, batch)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(jax.vmap(step, axis_name="learners"))
    state = init(learners)
    for _ in range(steps):
        learners, state = step(learners, state, data)
    return learners


def by_hand(mixing, learners, data, steps=20):
    """SGD with a rate of 0.1 and a momentum of 0.9."""
    gradient = jax.jit(jax.vmap(jax.grad(loss)))
    trace = jax.tree.map(np.zeros_like, learners)
    for _ in range(steps):
        trace = jax.tree.map(
            lambda m, g: 0.9 * m + g, trace, gradient(learners, data)
        )
        learners = jax.tree.map(
            lambda w, m: np.tensordot(mixing, w, 1) - 0.1 * m, learners, trace
        )
    return learners


@pytest.mark.parametrize("weights", [(1 / 3, 1 / 3, 1 / 3), (0.6, 0.3, 0.1)])
def test_it_is_a_matrix(weights):
    learners, data = make_learners()
    sgd = optax.sgd(0.1, 0.9)
    tx = optax.chain(sgd, mix_with_neighbors("learners", weights))
    found = train(tx, learners, data)
    # 20 steps of some roundings of weights up to 4, in another order.
    expected = by_hand(matrix(*weights), learners, data)
    assert distance(found, expected) < 1e-13
    # The other neighbour, and none.
    for other in (0.1, 0.3, 0.6), (0, 1, 0):
        assert distance(found, by_hand(matrix(*other), learners, data)) > 1e-2


def test_the_mean_of_quadratics_is_synchronous():
    """The gradient is linear, so that of the mean is the mean of gradients."""
    random = np.random.RandomState(1)
    centers, start = random.normal(size=(2, SIZE, 2))
    curvature = np.array([1.0, 0.3])
    tx = optax.chain(optax.sgd(0.2), mix_with_neighbors("learners"))

    def step(w, center):
        u, _ = tx.update(curvature * (w - center), tx.init(w), w)
        return w + u

    step = jax.jit(jax.vmap(step, axis_name="learners"))
    learners, mean = jnp.asarray(start), start.mean(0)
    for _ in range(30):
        learners = step(learners, jnp.asarray(centers))
        mean = mean - 0.2 * curvature * (mean - centers.mean(0))
    np.testing.assert_allclose(learners.mean(0), mean, rtol=0, atol=1e-14)
    # They are not one point, as their losses differ.
    assert np.ptp(learners, axis=0).min() > 1e-2


def test_retract_brings_averages_back():
    learners, data = make_learners()
    kernel = learners["kernel"]
    norms = jnp.linalg.norm(kernel, axis=1, keepdims=True)
    learners["kernel"] = kernel / norms
    parts = [psi_sgd(0.3, GROUPS), mix_with_neighbors("learners")]
    found = train(optax.chain(*parts, retract(GROUPS)), learners, data)
    np.testing.assert_allclose(
        np.linalg.norm(found["kernel"], axis=1), 1, rtol=0, atol=1e-15
    )
    without = train(optax.chain(*parts), learners, data)
    norms = np.linalg.norm(without["kernel"], axis=1)
    assert norms.min() < 0.5
    assert norms.max() > 1.2


def test_equal_learners_take_the_step_to_the_bit():
    w = np.tile(np.random.RandomState(0).normal(size=20), (3, 1))
    u = np.full((3, 20), 1e-3)
    tx = mix_with_neighbors("learners")

    def update(u, w):
        return tx.update(u, tx.init(w), w)[0]

    found = jax.vmap(update, axis_name="learners")(jnp.array(u), jnp.array(w))
    np.testing.assert_array_equal(found, u)
    # A sum of three products is rounded.
    assert np.any(w * (1 / 3) + w * (1 / 3) + w * (1 / 3) - w + u != u)


def test_weights_may_be_traced_or_injected():
    w = jnp.array([[0.0], [4.0], [8.0]])

    def mixed(make, *args):
        def update(w):
            tx = make(*args)
            return w + tx.update(0 * w, tx.init(w), w)[0]

        return jax.vmap(update, axis_name="learners")(w)

    def traced(left):
        weights = (left, 0.75 - left, 0.25)
        return mixed(mix_with_neighbors, "learners", weights)

    injected = optax.inject_hyperparams(mix_with_neighbors)
    weights = np.array([0.5, 0.25, 0.25])
    for found in (
        jax.jit(traced)(0.5),
        jax.jit(lambda: mixed(injected, "learners", weights))(),
    ):
        np.testing.assert_array_equal(found, [[5.0], [3.0], [4.0]])
    np.testing.assert_array_equal(jax.jit(traced)(0.25), [[3.0], [4.0], [5.0]])


def test_frozen_and_integer_parameters_stay():
    params = {"w": jnp.arange(3.0), "frozen": jnp.arange(3.0)}
    tx = mix_with_neighbors("learners", (0.25, 0.5, 0.25))

    def update(params):
        params = {**params, "steps": jnp.asarray(7)}
        updates = {"w": jnp.zeros([]), "frozen": None, "steps": jnp.asarray(1)}
        found, _ = tx.update(updates, tx.init(params), params)
        assert found["frozen"] is None
        return found["w"], found["steps"]

    found, steps = jax.vmap(update, axis_name="learners")(params)
    np.testing.assert_array_equal(found, [0.75, 0, -0.75])
    np.testing.assert_array_equal(steps, 0)


# Errors.


def test_an_axis_that_is_not_bound_or_too_short():
    tx, w = mix_with_neighbors("learners"), jnp.ones(2)
    with pytest.raises(ValueError, match="'learners'.*vmap.*shard_map"):
        tx.update(w, tx.init(w), w)

    def update(w):
        return tx.update(w, tx.init(w), w)[0]

    with pytest.raises(ValueError, match="2 learners.*pmean"):
        jax.vmap(update, axis_name="learners")(w)


def test_weights_of_an_average():
    for wrong in (0.5, 0.5), (0.3, 0.3, 0.3), (-0.5, 1.0, 0.5):
        with pytest.raises(ValueError, match="^weights"):
            mix_with_neighbors("learners", wrong)
    with pytest.raises(TypeError, match="axis_name"):
        mix_with_neighbors(("a", "b"))
