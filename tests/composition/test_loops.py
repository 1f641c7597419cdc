"""Steps in JAX's loops, and many runs at once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup, psi_sgd
from tests.compilation import quick_jit
from tests.composition.runs import COLUMNS, uniform
from tests.theory.training import scan as scan_steps, to_numpy

pytestmark = pytest.mark.usefixtures("x64")
GROUP = ScaleGroup(axes=0)
STEPS = 8
BATCHES = COLUMNS.batches[:STEPS]
# A few steps, of a few roundings of weights up to 4 each, in other programs.
CLOSE = {"rtol": 0, "atol": 3e-14}

# Loops.

# A radius, moments, a monitor, an average: each kind of state.
EVERYTHING = optax.chain(
    psi_sgd(0.1, GROUP, momentum=0.9),
    psi_optax.diagnostics.monitor_groups(GROUP, learning_rate=0.1, degree=1),
    psi_optax.wrappers.average_weights(uniform),
)


def step(carry, batch):
    params, state = carry
    gradient = jax.grad(COLUMNS.loss)(params, batch)
    updates, state = EVERYTHING.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def start():
    params = jnp.asarray(COLUMNS.params)
    return params, EVERYTHING.init(params)


def python_loop(carry):
    one = quick_jit(step)
    for batch in BATCHES:
        carry = one(carry, batch)
    return carry


def scan(carry):
    def body(carry, batch):
        return step(carry, batch), None

    return jax.lax.scan(body, carry, BATCHES)[0]


def while_loop(carry):
    # The optimizer's own count says when to stop.
    return jax.lax.while_loop(
        lambda carry: carry[1][0].count < STEPS,
        lambda carry: step(carry, jnp.asarray(BATCHES)[carry[1][0].count]),
        carry,
    )


def test_loops_are_loops():
    expected = to_numpy(python_loop(start()))
    assert expected[1][0].count == STEPS
    for loop in (scan, while_loop):
        found = to_numpy(quick_jit(loop)(start()))
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, **CLOSE),
            found,
            expected,
        )
    assert np.abs(expected[0] - COLUMNS.params).max() > 0.1


# Many runs at once.

HYPER = np.array([(0.1, 0.9, 1.0), (0.3, 0.5, 2.0), (0.02, 0.0, 4.0)])
SEEDS = COLUMNS.params + 0.3 * np.random.RandomState(1).normal(size=(2, 9, 4))


def last(hyper, params):
    """The weights after some steps."""
    rate, momentum, radius = hyper
    tx = psi_sgd(rate, GROUP, momentum=momentum, radius=radius)

    return scan_steps(tx, jax.grad(COLUMNS.loss), params, BATCHES)[0]


def test_vmap_over_seeds_rates_momenta_and_radii():
    many = jax.vmap(jax.vmap(last, in_axes=(0, None)), in_axes=(None, 0))
    grid, one = quick_jit(many)(HYPER, SEEDS), quick_jit(last)
    apart = np.array([[one(hyper, seed) for hyper in HYPER] for seed in SEEDS])
    np.testing.assert_allclose(grid, apart, **CLOSE)
    norms = np.linalg.norm(grid, axis=2)
    expected = np.broadcast_to(HYPER[:, 2:], norms.shape)
    np.testing.assert_allclose(norms, expected, rtol=1e-14)
    assert np.abs(grid[0] - grid[1]).max() > 1e-2
    # Each of the three numbers matters.
    for column in range(3):
        other = HYPER[0].copy()
        other[column] = HYPER[1, column]
        assert np.abs(one(other, SEEDS[0]) - apart[0, 0]).max() > 1e-2
