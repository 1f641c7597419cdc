"""Second moments and momentum that know no axes."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from tests.columns import COLUMNS, unit
from tests.theory.training import lenient, quick_jit

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(
    ("scale", "rotates"),
    [
        (lambda: psi_optax.scale_by_group_adam(COLUMNS), True),
        (
            lambda: psi_optax.scale_by_group_adam(
                COLUMNS, transport="parallel"
            ),
            True,
        ),
        (lambda: psi_optax.scale_by_group_rms(COLUMNS), True),
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
        tx = psi_optax.transported_trace(COLUMNS, 0.5, transport=transport)
        _, state = tx.update(g, tx.init(w), w)
        m, _ = tx.update(np.zeros_like(g), state, there)
        # Tangent at the new place, both of them.
        np.testing.assert_allclose((m * there).sum(0), 0, atol=1e-15)
        lengths[transport] = np.linalg.norm(m, axis=0)
    np.testing.assert_allclose(
        lengths["parallel"], 0.5 * np.linalg.norm(g, axis=0), rtol=1e-14
    )
    assert (lengths["projection"] < 0.99 * lengths["parallel"]).any()
