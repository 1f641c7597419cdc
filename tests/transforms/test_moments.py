"""Second moments and momentum that know no axes."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from tests.columns import COLUMNS, unit
from tests.compilation import quick_jit
from tests.theory.training import lenient

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(
    ("scale", "rotates"),
    [
        (lambda: psi_optax.transforms.scale_by_group_adam(COLUMNS), True),
        (
            lambda: psi_optax.transforms.scale_by_group_adam(
                COLUMNS, transport="parallel"
            ),
            True,
        ),
        (lambda: psi_optax.transforms.scale_by_group_rms(COLUMNS), True),
        (optax.scale_by_adam, False),
    ],
)
def test_one_second_moment_a_group_sees_no_axes(scale, rotates):
    # Rotate weights and gradients, and updates are rotated: by an orthogonal
    # matrix, whose products round a few times, 1e-16 each.
    tx = lenient(scale())
    random = np.random.RandomState(0)
    rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]
    w = unit(random.normal(size=(6, 4)))
    state = turned_state = tx.init(jnp.asarray(w))
    update = quick_jit(tx.update)
    for _ in range(5):
        gradient = random.normal(size=(6, 4))
        plain, state = update(gradient, state, w)
        turned, turned_state = update(
            rotation @ gradient, turned_state, rotation @ w
        )
        error = np.abs(rotation @ plain - turned).max()
        w = unit(w - 0.1 * plain)
    assert error < 1e-14 if rotates else error > 0.1


def test_momentum_with_parallel_transport_keeps_its_length():
    w = unit(np.random.RandomState(0).normal(size=(6, 4)))
    there = unit(np.random.RandomState(1).normal(size=(6, 4)))
    g = np.random.RandomState(2).normal(size=(6, 4))
    g -= w * (w * g).sum(0)
    lengths = {}
    for transport in ("parallel", "projection"):
        tx = psi_optax.transforms.transported_trace(
            COLUMNS, 0.5, transport=transport
        )
        _, state = tx.update(g, tx.init(w), w)
        m, _ = tx.update(np.zeros_like(g), state, there)
        # Tangent at the new place, both of them.
        np.testing.assert_allclose((m * there).sum(0), 0, atol=1e-15)
        lengths[transport] = np.linalg.norm(m, axis=0)
    np.testing.assert_allclose(
        lengths["parallel"], 0.5 * np.linalg.norm(g, axis=0), rtol=1e-14
    )
    assert (lengths["projection"] < 0.99 * lengths["parallel"]).any()


ADAM = psi_optax.transforms.scale_by_group_adam


@pytest.mark.parametrize("length", [1.0, 1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize(
    ("make", "root", "added"),
    [
        (
            lambda: psi_optax.transforms.scale_by_group_rms(COLUMNS, eps=1e-8),
            0,
            1e-8,
        ),
        (lambda: ADAM(COLUMNS, eps=1e-8), 0, 1e-8),
        (lambda: ADAM(COLUMNS, eps=0.0, eps_root=1e-16), 1e-16, 0),
        (lambda: ADAM(COLUMNS, eps=3e-8, eps_root=1e-16), 1e-16, 3e-8),
    ],
    ids=["rms", "adam", "adam, in the root", "adam, both"],
)
def test_where_the_epsilons_are_added(make, root, added, length):
    # The first step: both corrections undo (1 - decay) but for some roundings.
    g = length * unit(np.random.RandomState(0).normal(size=(6, 4)))
    tx = lenient(make())
    u, _ = tx.update(g, tx.init(g), g)
    expected = length / (np.sqrt(length**2 + root) + added)
    np.testing.assert_allclose(np.linalg.norm(u, axis=0), expected, rtol=1e-13)
    np.testing.assert_allclose(u, g * (expected / length), rtol=1e-13)
    # The control: an epsilon on the other side of the root.
    other = length / (np.sqrt(length**2 + added) + root)
    assert length > 1e-8 or abs(other / expected - 1) > 0.1


@pytest.mark.parametrize("transport", ["projection", "parallel"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_nesterov_looks_one_step_ahead(transport, nesterov):
    # Weights that stay: there it is optax's. An ordinary parameter is beside.
    params = {"w": unit(np.random.RandomState(0).normal(size=(6, 4)))}
    params["b"] = np.ones(3)
    groups = {"w": COLUMNS, "b": None}
    ours = psi_optax.transforms.transported_trace(
        groups, 0.7, nesterov, transport=transport
    )
    peer, other = (optax.trace(0.7, n) for n in (nesterov, not nesterov))
    states = [tx.init(params) for tx in (ours, peer, other)]
    random = np.random.RandomState(1)
    for _ in range(3):
        g = {k: random.normal(size=x.shape) for k, x in params.items()}
        g["w"] -= params["w"] * (params["w"] * g["w"]).sum(0)
        (u, states[0]), (v, states[1]), (z, states[2]) = (
            tx.update(g, state, params)
            for tx, state in zip((ours, peer, other), states, strict=True)
        )
        for k in params:
            # A tangent momentum is projected again: some roundings.
            np.testing.assert_allclose(u[k], v[k], atol=1e-14)
            assert np.abs(v[k] - z[k]).max() > 0.1
            # The look ahead is of the step alone, not of what is kept.
            np.testing.assert_allclose(
                states[0].trace[k], states[1].trace[k], atol=1e-14
            )


@pytest.mark.parametrize(
    "make",
    [
        lambda: psi_optax.transforms.scale_by_group_rms(COLUMNS, 0.75, eps=0.0),
        lambda: ADAM(COLUMNS, b1=0.0, b2=0.75, eps=0.0),
    ],
    ids=["rms", "adam"],
)
def test_the_mean_square_is_over_all_steps(make):
    v = unit(np.random.RandomState(0).normal(size=(6, 4)))
    tx = lenient(make())
    state = tx.init(v)
    square = 0.0
    for count, length in enumerate([2.0, 1.0, 4.0], 1):
        u, state = tx.update(length * v, state, v)
        square = 0.75 * square + 0.25 * length**2
        mean = square / (1 - 0.75**count)
        # Some roundings of 1e-16.
        np.testing.assert_allclose(u, v * (length / np.sqrt(mean)), rtol=1e-14)
