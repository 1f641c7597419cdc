"""SGD-G and Adam-G: great circles, and momentum that is as long as the step."""

import jax
import jax.numpy as jnp
import numpy as np
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
        after, tau = unit(params), np.asarray(state.inner[-1].trace)
        # Where it stands it is tangent still to where the step began.
        assert np.abs((before * tau).sum(0)).max() < 1e-14
        turned = 2 * np.arcsin(np.linalg.norm(after - before, axis=0) / 2)
        np.testing.assert_allclose(
            np.linalg.norm(tau, axis=0), turned, rtol=1e-13
        )
        # And along the great circle: in the plane of both.
        normal = after - before * (before * after).sum(0)
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
    adam = state.inner[1].inner_states["scale"].inner_state
    shapes = jax.tree.map(jnp.shape, adam.nu)
    assert shapes == {"batch": (16,), "layer/bias": (), "group": (2,)}
