"""Steps in JAX's loops, many runs at once, and derivatives through them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup, psi_sgd
from tests.compilation import quick_jit
from tests.composition.runs import COLUMNS, uniform
from tests.theory.training import to_numpy

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


def step(carry, batch, tx=EVERYTHING):
    params, state = carry
    gradient = jax.grad(COLUMNS.loss)(params, batch)
    updates, state = tx.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def start(tx=EVERYTHING, params=COLUMNS.params):
    params = jnp.asarray(params)
    return params, tx.init(params)


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


def last(hyper, params=COLUMNS.params, **options):
    """The weights after some steps."""
    rate, momentum, radius = hyper
    tx = psi_sgd(rate, GROUP, momentum=momentum, radius=radius, **options)

    def body(carry, batch):
        return step(carry, batch, tx), None

    return jax.lax.scan(body, start(tx, params), BATCHES)[0][0]


def test_vmap_over_rate_momentum_and_radius():
    together = quick_jit(jax.vmap(last))(HYPER)
    one = quick_jit(last)
    apart = [one(hyper) for hyper in HYPER]
    np.testing.assert_allclose(together, apart, **CLOSE)
    norms = np.linalg.norm(together, axis=1)
    np.testing.assert_allclose(norms, np.repeat(HYPER[:, 2:], 4, 1), rtol=1e-14)
    # Each of the three numbers matters.
    for column in range(3):
        other = HYPER[0].copy()
        other[column] = HYPER[1, column]
        assert np.abs(one(other) - apart[0]).max() > 1e-2


def test_vmap_over_seeds_and_rates():
    random = np.random.RandomState(1)
    seeds = COLUMNS.params + 0.3 * random.normal(size=(2, 9, 4))
    grid = quick_jit(
        jax.vmap(jax.vmap(last, in_axes=(0, None)), in_axes=(None, 0))
    )(HYPER, seeds)
    one = quick_jit(last)
    apart = [[one(hyper, seed) for hyper in HYPER] for seed in seeds]
    np.testing.assert_allclose(grid, apart, **CLOSE)
    assert np.abs(grid[0] - grid[1]).max() > 1e-2


# Derivatives. The first column has norm zero, the second no gradient.

TARGET = np.random.RandomState(2).normal(size=(9, 4)) * [1, 0, 1, 1]
DEGENERATE = COLUMNS.params * [0, 1, 1, 1]
WAYS = {
    "init": {},
    "none": {"radius": None},
    "number": {"radius": 2.0},
    "exponential": {"retraction": "exponential"},
    "additive": {"retraction": None},
    "ordinary": {"ordinary": optax.sgd(0.1)},
}


def outcomes(hyper):
    """A loss after four steps of each kind, by rate and momentum."""

    def loss(w):
        return (jnp.sin(w) * TARGET).sum()

    def outcome(options):
        tx = psi_sgd(hyper[0], GROUP, momentum=hyper[1], **options)

        def body(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return loss(jax.lax.scan(body, start(tx, DEGENERATE), length=4)[0][0])

    return jnp.stack([outcome(options) for options in WAYS.values()])


def test_derivatives_by_rate_and_momentum():
    both = quick_jit(lambda x: (outcomes(x), jax.jacrev(outcomes)(x)))
    at, h = np.array([0.05, 0.8]), 1e-6
    _, slopes = both(at)
    # Off by h^2/6 of the third derivative, and by 1e-16/h of losses up to 10.
    for column in range(2):
        aside = h * np.eye(2)[column]
        expected = (both(at + aside)[0] - both(at - aside)[0]) / (2 * h)
        np.testing.assert_allclose(slopes[:, column], expected, rtol=1e-6)
    assert (np.abs(slopes) > 1e-2).all()


def test_derivative_by_the_radius():
    """A number for a radius is a scale: what comes of it has a derivative."""

    @functools.partial(jax.value_and_grad)
    def by_radius(radius):
        w = last((0.1, 0.9, radius), DEGENERATE + 1e-3)
        return (jnp.sin(w) * TARGET).sum()

    run, h = quick_jit(by_radius), 1e-6
    _, slope = run(2.0)
    expected = (run(2.0 + h)[0] - run(2.0 - h)[0]) / (2 * h)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)
    assert np.abs(slope) > 1e-2
