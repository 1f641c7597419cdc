"""Hyperparameters that change while a run goes on, in one executable."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, groups_from_paths, psi_sgd
from tests.compilation import quick_jit
from tests.composition.runs import COLUMNS, gradient

pytestmark = pytest.mark.usefixtures("x64")
GROUPS = {"w": ScaleGroup(axes=0)}
STEPS = 12


def linear(first, last):
    """A schedule in double precision, which those of optax are not."""
    return lambda count: (
        first + (last - first) / STEPS * jnp.asarray(count, float)
    )


RATE, MOMENTUM = linear(0.3, 0.1), linear(0.5, 0.9)


def by_hand(settings):
    """PSI-SGD in numpy, with the rate, momentum and radius of each step."""
    w, m, path = COLUMNS.params, 0.0, []
    for (rate, momentum, radius), batch in zip(
        settings, COLUMNS.batches, strict=False
    ):
        norms = np.linalg.norm(w, axis=0)
        v, g = w / norms, norms * gradient(w, batch)
        m = momentum * m + g
        v = v - rate * (m - v * (v * m).sum(0))
        w = radius * v / np.linalg.norm(v, axis=0)
        path.append(w)
    return np.array(path)


def run(tx, change=lambda time, state: None):
    """The path, the last state, and how often the step was traced."""
    traces = []

    @quick_jit
    def step(params, state, batch):
        traces.append(None)
        slope = jax.grad(lambda p: COLUMNS.loss(p["w"], batch))(params)
        updates, state = tx.update(slope, state, params)
        return optax.apply_updates(params, updates), state

    params = {"w": jnp.asarray(COLUMNS.params)}
    state, path = jax.jit(tx.init)(params), []
    for time in range(STEPS):
        change(time, state)
        params, state = step(params, state, COLUMNS.batches[time])
        path.append(params["w"])
    return np.array(path), state, len(traces)


def assert_close(found, wanted):
    # 12 steps, a few 1e-16 each, of weights up to 4.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)


BEFORE, AFTER = (0.3, 0.5, 2.0), (0.1, 0.9, 3.0)


def test_numbers_changed_in_the_middle():
    names = ("learning_rate", "momentum", "radius")

    def change(time, state):
        if time == STEPS // 2:
            for name, value in zip(names, AFTER, strict=True):
                # Of the same type, or the step is traced anew.
                dtype = state.hyperparams[name].dtype
                state.hyperparams[name] = jnp.asarray(value, dtype)

    start = dict(zip(names, BEFORE, strict=True))
    tx = optax.inject_hyperparams(psi_sgd)(groups=GROUPS, **start)
    path, state, traces = run(tx, change)
    half = STEPS // 2
    assert_close(path, by_hand(half * [BEFORE] + half * [AFTER]))
    assert traces == 1
    # Groups, flags and words are no arrays.
    assert set(state.hyperparams) == set(names)
    unchanged = by_hand(STEPS * [BEFORE])
    np.testing.assert_allclose(path[:half], unchanged[:half], atol=1e-13)
    assert np.abs(path[half:] - unchanged[half:]).max() > 0.1


@pytest.mark.parametrize(
    ("groups", "static"),
    [(GROUPS, ()), (groups_from_paths(GROUPS), "groups")],
    ids=["tree", "rule"],
)
def test_schedules_of_rate_and_momentum(groups, static):
    tx = optax.inject_hyperparams(psi_sgd, static_args=static)(
        RATE, groups, momentum=MOMENTUM, radius=2.0
    )
    path, state, _ = run(tx)
    settings = [(RATE(t), MOMENTUM(t), 2.0) for t in range(STEPS)]
    assert_close(path, by_hand(np.array(settings)))
    assert state.count == STEPS
    late = [(RATE(t + 1), MOMENTUM(t + 1), 2.0) for t in range(STEPS)]
    assert np.abs(path - by_hand(np.array(late))).max() > 1e-2
