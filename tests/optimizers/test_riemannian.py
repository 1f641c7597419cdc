"""SGD-G and Adam-G: great circles, and momentum that is as long as the step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from tests.columns import COLUMNS, angles, unit
from tests.theory.networks import (
    mixed_network,
    rayleigh,
    rayleigh_gradient,
)
from tests.theory.scales import norms
from tests.theory.training import lenient, path_of, step, train

pytestmark = pytest.mark.usefixtures("x64")


def inner_state(state):
    """The state of groups in that of one of these optimizers."""
    return state.inner_states["scale"].inner_state.inner


def momentum_at(params, stored):
    """The momentum of columns: what is tangent of the stored array."""
    v, z = unit(params), np.asarray(stored)
    return z - v * (v * z).sum(0)


def test_momentum_of_sgd_g_is_tangent_and_as_long_as_the_step():
    problem = rayleigh()
    tx = psi_optax.sgd_g(0.1, COLUMNS, max_norm=None)
    params, state = problem.params, tx.init(problem.params)
    for matrix in problem.batches[:20]:
        before = unit(params)
        gradient = rayleigh_gradient(before, matrix) / np.linalg.norm(
            params, axis=0
        )
        params, state = step(tx, gradient, state, params)
        after = unit(params)
        tau = momentum_at(params, inner_state(state).trace)
        turned = 2 * np.arcsin(np.linalg.norm(after - before, axis=0) / 2)
        np.testing.assert_allclose(
            np.linalg.norm(tau, axis=0), turned, rtol=1e-13
        )
        # And along the great circle: away from where the step began.
        normal = after * (before * after).sum(0) - before
        cosine = (normal * tau).sum(0) / np.linalg.norm(normal, axis=0)
        np.testing.assert_allclose(
            cosine, np.linalg.norm(tau, axis=0), rtol=1e-13
        )
    np.testing.assert_allclose(
        norms(params, problem.ids),
        norms(problem.params, problem.ids),
        rtol=1e-15,
    )


def test_a_turn_of_360_degrees_returns():
    w = np.random.RandomState(0).normal(size=(5, 3))
    gradient = np.random.RandomState(1).normal(size=(5, 3))
    radius = np.linalg.norm(w, axis=0)
    gradient -= w * (w * gradient).sum(0) / radius**2
    gradient /= radius * np.linalg.norm(gradient, axis=0)
    for turn, returns in [(2 * np.pi, True), (np.pi, False)]:
        tx = psi_optax.sgd_g(turn, COLUMNS, max_norm=None)
        after, _ = step(tx, gradient, tx.init(w), w)
        # sin(2 pi) is 2e-16 in floats, and the norms of gradients are rounded.
        np.testing.assert_allclose(after, w if returns else -w, atol=1e-14)


def test_clipping_bounds_what_enters_the_momentum():
    problem = rayleigh(100)
    bound, rate, decay = 0.05, 0.2, 0.9
    tx = psi_optax.sgd_g(rate, COLUMNS, momentum=decay, max_norm=bound)
    turns = angles(path_of(tx, problem), problem.params)
    assert turns.max() <= rate * bound / (1 - decay) * (1 + 1e-9)
    loose = psi_optax.sgd_g(rate, COLUMNS, momentum=decay, max_norm=None)
    assert angles(path_of(loose, problem), problem.params).max() > 0.2


def test_adam_g_has_one_second_moment_a_group():
    problem = mixed_network(3)
    _, state = train(lenient(psi_optax.adam_g(0.1, problem.groups)), problem)
    adam = inner_state(state)
    shapes = jax.tree.map(jnp.shape, adam.nu)
    assert shapes == {"batch": (16,), "layer/bias": (), "group": (2,)}


RECIPES = {
    "sgd_g": psi_optax.sgd_g,
    "adam_g": lambda rate, groups: lenient(psi_optax.adam_g(rate, groups)),
}
each_recipe = pytest.mark.parametrize("name", RECIPES)


def with_a_base_point(name, rate, groups):
    """The same of public parts: explicit transport from a remembered place."""
    t = psi_optax.transforms
    bounded = optax.chain(
        t.project_to_tangent(groups), t.clip_by_group_norm(groups, 0.1)
    )
    if name == "sgd_g":
        momentum = optax.chain(
            optax.scale_by_learning_rate(rate),
            t.transported_trace(groups, 0.9, transport="parallel"),
        )
    else:
        moments = t.scale_by_group_adam(
            groups, 0.9, 0.99, 0.0, 1e-8, transport="parallel"
        )
        momentum = optax.chain(moments, optax.scale_by_learning_rate(rate))
    return psi_optax.psi(
        optax.chain(bounded, momentum), groups, retraction="exponential"
    )


@each_recipe
def test_closed_form_is_explicit_transport(name):
    """No step is of half a turn, where they differ."""
    problem = mixed_network(100)
    path, _ = train(RECIPES[name](0.1, problem.groups), problem)
    other, _ = train(
        lenient(with_a_base_point(name, 0.1, problem.groups)), problem
    )
    # The network amplifies rounding: 1e-16 times the steps and forty.
    for x, y in zip(*map(jax.tree.leaves, (path, other)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
    plain = psi_optax.psi(
        optax.chain(
            psi_optax.transforms.clip_by_group_norm(problem.groups, 0.1),
            optax.sgd(0.1, 0.9),
        ),
        problem.groups,
        retraction="exponential",
    )
    without, _ = train(plain, problem)
    differ = jax.tree.map(lambda x, y: np.abs(x - y).max(), path, without)
    assert max(jax.tree.leaves(differ)) > 1e-6


@each_recipe
def test_no_copy_of_the_weights_is_kept(name):
    """One array of the size of each group in the state, the momentum."""
    params = {"x": np.ones((64, 4)), "y": np.ones((32, 4))}
    tx = RECIPES[name](0.1, COLUMNS)

    def size(state):
        return sum(x.size for x in jax.tree.leaves(state) if x.size > 4)

    assert size(tx.init(params)) == (64 + 32) * 4
    # Control: the parts that remember have two.
    remembered = lenient(with_a_base_point(name, 0.1, COLUMNS))
    assert size(remembered.init(params)) == 2 * (64 + 32) * 4


@each_recipe
def test_weights_that_something_else_moved(name):
    """The part of the momentum that is tangent there goes on."""
    random = np.random.RandomState(0)
    w, g, elsewhere = random.normal(size=(3, 9, 5))
    radius = np.linalg.norm(w, axis=0)
    elsewhere *= radius / np.linalg.norm(elsewhere, axis=0)
    tx = RECIPES[name](0.5, COLUMNS)
    _, state = step(tx, g, tx.init(w), w)
    tau = momentum_at(elsewhere, read_momentum(name, state))
    after, _ = step(tx, 0 * g, state, elsewhere)
    # On the sphere, and along the great circle of what is tangent.
    np.testing.assert_allclose(
        np.linalg.norm(after, axis=0), radius, rtol=1e-14
    )
    apart = after - elsewhere * (after * elsewhere).sum(0) / radius**2
    cosine = (apart * tau).sum(0) / (
        np.linalg.norm(apart, axis=0) * np.linalg.norm(tau, axis=0)
    )
    np.testing.assert_allclose(np.abs(cosine), 1, rtol=0, atol=1e-13)
    # Control: from the other place it would go elsewhere.
    stay, _ = step(tx, 0 * g, state, w)
    assert np.abs((stay - w) - (after - elsewhere)).max() > 1e-4


@each_recipe
def test_rescaled_weights_change_nothing(name):
    """Groups that are off their sphere come back by the same rotation."""
    w, g, h = np.random.RandomState(0).normal(size=(3, 9, 5))
    tx = RECIPES[name](0.5, COLUMNS)
    w1, state = step(tx, g, tx.init(w), w)
    expected, _ = step(tx, h, state, w1)
    found, _ = step(tx, h / 3, state, 3 * w1)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)


@each_recipe
def test_a_zero_group_is_as_new_when_something_else_sets_it(name):
    """Its non-finite gradient, as behind a normalization, is forgotten."""
    w, g, h = np.random.RandomState(0).normal(size=(3, 9, 5))
    zeroed, broken = w.copy(), g.copy()
    zeroed[:, 0], broken[:, 0] = 0, np.nan
    tx = RECIPES[name](0.5, COLUMNS)
    kept, state = step(tx, broken, tx.init(w), zeroed)
    assert not kept[:, 0].any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    after, _ = step(tx, h, state, w)
    assert np.isfinite(after).all()
    assert np.abs(after - w)[:, 0].min() > 1e-4


def read_momentum(name, state):
    found = inner_state(state)
    return found.trace if name == "sgd_g" else found.mu


@each_recipe
def test_a_long_run_stays_on_the_sphere(name):
    """Norms in float32, after 1e5 steps with noise as gradients."""
    with jax.enable_x64(False):
        w = jnp.asarray(
            np.random.RandomState(0).normal(size=(4, 16)), "float32"
        )
        tx = RECIPES[name](0.1, COLUMNS)

        def one(carry, key):
            w, state = carry
            g = jax.random.normal(key, w.shape)
            updates, state = tx.update(g, state, w)
            return (optax.apply_updates(w, updates), state), None

        keys = jax.random.split(jax.random.key(0), 100_000)
        (after, _), _ = jax.jit(lambda x: jax.lax.scan(one, x, keys))(
            (w, tx.init(w))
        )
    radius = np.linalg.norm(np.asarray(w, "float64"), axis=0)
    norm = np.linalg.norm(np.asarray(after, "float64"), axis=0)
    ulp = np.spacing(radius.astype("float32"))
    assert np.abs((norm - radius) / ulp).max() <= 2
