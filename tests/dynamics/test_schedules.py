"""Schedules and weight decay, by running SGD on noisy Rayleigh quotients.

All in double precision. The quotients see no scale of the weights at all, and
their gradient is known in numpy: `tests.theory.networks`.
"""

import numpy as np
import optax
import pytest

from psi_optax.dynamics import (
    balanced_schedule,
    directional_rate,
    exponential_schedule,
    exponential_trace,
    next_directional_rate,
)
from tests.columns import unit
from tests.theory.networks import rayleigh, rayleigh_gradient
from tests.theory.training import path_of

pytestmark = pytest.mark.usefixtures("x64")

STEPS = 300


def varying(count):
    """A rate that goes up and down."""
    return 0.1 * (1 + 0.8 * np.sin(count / 7.0)) * 0.995**count


def varying_decay(count):
    return 0.3 * (1 + 0.5 * np.cos(count / 11.0))


def decayed_sgd(problem, rate, decay):
    """SGD with coupled decay by schedules, in numpy: weights and |gbar|."""
    path, norms = [problem.params], []
    for step, matrix in enumerate(problem.batches):
        w = path[-1]
        r = np.linalg.norm(w, axis=0)
        gbar = rayleigh_gradient(w / r, matrix)
        norms.append(np.linalg.norm(gbar, axis=0))
        path.append(w - rate(step) * (gbar / r + decay(step) * w))
    return np.array(path), np.array(norms)


def test_exact_schedule_law():
    path, c = decayed_sgd(rayleigh(STEPS), varying, varying_decay)
    eta = varying(np.arange(STEPS))[:, None]
    lam = varying_decay(np.arange(STEPS))[:, None]
    r = np.linalg.norm(path[:-1], axis=1)
    phi = directional_rate(eta, r, lam)
    after = next_directional_rate(
        phi[:-1], eta[:-1], eta[1:], lam[:-1], c[:-1], lam[1:]
    )
    # Some twenty roundings of 1.1e-16.
    np.testing.assert_allclose(after, phi[1:], rtol=1e-13)
    # The directions, too, move by it.
    v = unit(path)
    for step, matrix in enumerate(rayleigh(STEPS).batches):
        gbar = rayleigh_gradient(v[step], matrix)
        moved = v[step] - np.asarray(phi[step]) * gbar
        moved /= np.linalg.norm(moved, axis=0)
        np.testing.assert_allclose(moved, v[step + 1], atol=1e-14)
    # The controls: the next step's decay counts, and so does the gradient.
    forgotten = next_directional_rate(
        phi[:-1], eta[:-1], eta[1:], lam[:-1], c[:-1]
    )
    assert np.abs(forgotten / phi[1:] - 1).max() > 1e-4
    still = next_directional_rate(
        phi[:-1], eta[:-1], eta[1:], lam[:-1], 0 * c[:-1], lam[1:]
    )
    assert np.abs(still / phi[1:] - 1).max() > 1e-3


@pytest.mark.parametrize("balance", [1.0, 0.999, 1.01])
def test_balanced_schedule(balance):
    decay = 0.05
    schedule = balanced_schedule(0.1, decay, 500, balance)
    eta = np.array([schedule(step) for step in range(500)])
    drive = eta[1:] / eta[:-1] / (1 - decay * eta[1:]) / (1 - decay * eta[:-1])
    # Three roundings, as eta and its product with the decay have them.
    np.testing.assert_allclose(drive, balance, rtol=1e-14)
    assert schedule(10_000) == eta[-1]


def test_a_constant_rate_is_balanced_too():
    schedule = balanced_schedule(0.1, 0.05, 500, (1 - 0.1 * 0.05) ** -2)
    # 500 steps of a few roundings each.
    np.testing.assert_allclose(schedule(499), 0.1, rtol=1e-12)
    assert balanced_schedule(0.1, 0.05, 500)(499) < 0.05


@pytest.mark.parametrize("count", [3, np.int32(3)], ids=type)
def test_schedules_take_counts(count):
    balanced = balanced_schedule(0.1, 0.1, 5)
    for schedule in balanced, exponential_schedule(0.1, 0.1):
        assert np.asarray(schedule(count)).shape == ()


# Exponential rates.

DECAY = 0.02


def with_decay(rate, momentum):
    return optax.chain(
        optax.add_decayed_weights(DECAY), optax.sgd(rate, momentum)
    )


def starting_at(tx, trace):
    """The optimizer, with this momentum to begin with."""

    def init(params):
        return optax.tree.set(tx.init(params), trace=trace(params))

    return optax.GradientTransformation(init, tx.update)


def test_exponential_schedule():
    problem = rayleigh(STEPS)
    decayed = path_of(with_decay(0.1, 0.0), problem)
    growing = path_of(optax.sgd(exponential_schedule(0.1, DECAY)), problem)
    # The spec's bound; noisy steps amplify roundings of 1e-16.
    np.testing.assert_allclose(unit(growing), unit(decayed), atol=1e-8)
    # The controls: not by a constant rate, and the norms are far apart.
    constant = path_of(optax.sgd(0.1), problem)
    assert np.abs(unit(constant) - unit(decayed)).max() > 1e-2
    ratio = np.linalg.norm(growing[-1], axis=0) / np.linalg.norm(
        decayed[-1], axis=0
    )
    np.testing.assert_allclose(
        ratio, (1 - 0.1 * DECAY) ** -float(STEPS), rtol=1e-8
    )


def test_exponential_schedule_with_momentum():
    problem = rayleigh(STEPS)
    rate, momentum = 0.1, 0.9
    decayed = path_of(with_decay(rate, momentum), problem)
    growing = optax.sgd(exponential_schedule(rate, DECAY, momentum), momentum)
    started = starting_at(
        growing, lambda w: exponential_trace(w, rate, DECAY, momentum)
    )
    expected = unit(decayed)
    np.testing.assert_allclose(
        unit(path_of(started, problem)), expected, atol=1e-8
    )
    # The controls: another buffer at the start, and the rate without momentum.
    unstarted = path_of(growing, problem)
    assert np.abs(unit(unstarted) - expected).max() > 1e-3
    other = path_of(
        optax.sgd(exponential_schedule(rate, DECAY), momentum), problem
    )
    assert np.abs(unit(other) - expected).max() > 1e-3


def test_without_momentum_there_is_nothing_to_start():
    w = np.ones(3)
    trace = exponential_trace({"w": w}, 0.1, DECAY, 0.0)
    # -(lam / alpha) w: multiplied by a momentum of zero.
    np.testing.assert_allclose(
        trace["w"], -DECAY / (1 - 0.1 * DECAY) * w, rtol=1e-14
    )


def test_too_much_decay():
    # (1 - sqrt(0.81))^2 = 0.01.
    exponential_schedule(0.1, 0.099, 0.81)
    for call in [
        lambda: exponential_schedule(0.1, 0.101, 0.81),
        lambda: exponential_trace(np.ones(2), 0.1, 0.101, 0.81),
        lambda: exponential_schedule(1.0, 1.0),
        lambda: exponential_schedule(1.0, -0.1),
    ]:
        with pytest.raises(ValueError, match="weight_decay.*momentum"):
            call()
    with pytest.raises(ValueError, match=r"momentum=1\.0"):
        exponential_schedule(0.1, 0.1, 1.0)
    with pytest.raises(
        ValueError, match=r"weight_decay=1\.0.*learning_rate=1\.0"
    ):
        balanced_schedule(1.0, 1.0, 10)
    with pytest.raises(ValueError, match="steps=0"):
        balanced_schedule(0.1, 0.1, 0)
