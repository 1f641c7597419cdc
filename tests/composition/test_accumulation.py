"""Gradients accumulated over several calls: around psi, and inside of it."""

import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup, psi, psi_direction, psi_sgd
from tests.composition.runs import COLUMNS, by_hand, uniform
from tests.theory.training import step, walk

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")
GROUP = ScaleGroup(axes=0)
EVERY, STEPS = 3, 4
GRADIENTS = np.random.RandomState(0).normal(size=(STEPS, EVERY, 9, 4))
# Falls from step to step, so that a count that is off shows.
RATES = optax.piecewise_constant_schedule(
    0.2, {1: 0.5, 2: 0.5, 3: 0.5, 5: 0.1, 8: 0.1}
)


def accumulated(tx):
    """The weights after each of the calls."""
    gradients = GRADIENTS.reshape(-1, 9, 4)
    path, state = walk(tx, COLUMNS.params, gradients, move=step)
    return np.reshape(path, GRADIENTS.shape), state


def expected(counts=range(STEPS)):
    """Four steps with the mean gradients, in numpy: momentum, falling rates."""
    w, m, path = COLUMNS.params, 0.0, []
    for count, gradients in zip(counts, GRADIENTS, strict=True):
        m = 0.9 * m + np.linalg.norm(w, axis=0) * gradients.mean(0)
        w = by_hand(w, -float(RATES(count)) * m)
        path.append(w)
    return np.array(path)


SGD = optax.sgd(RATES, momentum=0.9)


def accumulate(tx):
    """In double precision, which optax has to be told."""
    many = optax.MultiSteps(tx, EVERY, accumulator_dtype="float64")
    return many.gradient_transformation()


PLACES = {
    # These gradients have radial parts, which psi_sgd takes to be zero.
    "around": lambda: accumulate(psi_direction(RATES, optax.trace(0.9), GROUP)),
    "around an optimizer": lambda: accumulate(psi(SGD, GROUP)),
    "inside": lambda: psi(accumulate(SGD), GROUP),
}


def assert_close(found, wanted):
    # A mean of three, four steps: some 1e-15 of weights up to 4.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-14)


@pytest.mark.parametrize("place", PLACES)
def test_steps_are_those_of_the_mean_gradients(place):
    path, _ = accumulated(PLACES[place]())
    assert_close(path[:, -1], expected())
    # In between, no bit changes.
    starts = [COLUMNS.params, *path[:-1, -1]]
    for start, calls in zip(starts, path, strict=True):
        for w in calls[:-1]:
            np.testing.assert_array_equal(w, start)
    # Calls counted for steps would be another run.
    wrong = expected(range(0, STEPS * EVERY, EVERY))
    assert np.abs(path[:, -1] - wrong).max() > 1e-2


def test_a_rate_of_psi_counts_the_calls_of_psi():
    """And with them those of what it accumulates inside."""
    trace = accumulate(optax.trace(0.9))
    path, _ = accumulated(psi_direction(RATES, trace, GROUP))
    calls = range(EVERY - 1, STEPS * EVERY, EVERY)
    assert_close(path[:, -1], expected(calls))
    assert np.abs(path[:, -1] - expected()).max() > 1e-2


def test_an_average_is_of_steps_inside_and_of_calls_around():
    average = psi_optax.wrappers.average_weights(uniform)
    recipe = psi_sgd(RATES, GROUP, momentum=0.9)
    inside = accumulate(optax.chain(recipe, average))
    around = optax.chain(accumulate(recipe), average)
    path, state = accumulated(inside)
    found = psi_optax.wrappers.get_average(state, path[-1, -1])
    assert_close(found, path[:, -1].mean(0))
    path, state = accumulated(around)
    assert_close(
        psi_optax.wrappers.get_average(state, path[-1, -1]), path.mean((0, 1))
    )
    assert np.abs(path.mean((0, 1)) - path[:, -1].mean(0)).max() > 1e-3
