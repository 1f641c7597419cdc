"""AdamSRT and SGD-MRT from parts, against the formulas of their paper.

Roburin et al., https://arxiv.org/abs/2006.13382: after each step from w to w',
moments are rescaled by norms and transported to w'.
"""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, group_norms
from psi_optax.transforms import (
    scale_by_group_adam,
    scale_by_group_norm,
    transported_trace,
)
from tests.composition.runs import COLUMNS, gradient, run

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")
GROUP, RATE = ScaleGroup(axes=0), 0.02
SIZE = len(COLUMNS.params)


def adamsrt(transport="parallel"):
    return optax.chain(
        scale_by_group_norm(GROUP),
        scale_by_group_adam(GROUP, 0.9, 0.99, eps=0.0, transport=transport),
        optax.scale(SIZE**0.5),
        optax.scale_by_learning_rate(RATE),
    )


def divide_by_group_norm(updates, params):
    return updates / group_norms(params, GROUP)[None]


def sgd_mrt(transport="parallel"):
    """Momentum of degree 0, and steps of degree -1 as those of SGD."""
    return optax.chain(
        scale_by_group_norm(GROUP),
        transported_trace(GROUP, 0.9, transport=transport),
        optax.stateless(divide_by_group_norm),
        optax.scale_by_learning_rate(RATE),
    )


def transported(m, old, new):
    """The paper's formula: degree -1, and tangent at the new weights."""
    return ((old * new).sum(0) * m - (m * new).sum(0) * old) / (new**2).sum(0)


def adamsrt_by_hand():
    w, m, v = COLUMNS.params, 0.0, 0.0
    for t, batch in enumerate(COLUMNS.batches, start=1):
        g = gradient(w, batch)
        m = 0.9 * m + 0.1 * g
        v = 0.99 * v + 0.01 * (g**2).sum(0)
        step = m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.99**t))
        new = w - RATE * SIZE**0.5 * step
        v = v * (w**2).sum(0) / (new**2).sum(0)
        m, w = transported(m, w, new), new
    return w


def sgd_mrt_by_hand():
    w, m = COLUMNS.params, 0.0
    for batch in COLUMNS.batches:
        m = 0.9 * m + gradient(w, batch)
        new = w - RATE * m
        m, w = transported(m, w, new), new
    return w


@pytest.mark.parametrize(
    ("make", "by_hand"),
    [(adamsrt, adamsrt_by_hand), (sgd_mrt, sgd_mrt_by_hand)],
)
def test_parts_are_the_paper(make, by_hand):
    expected = by_hand()
    # 60 steps of some roundings of weights up to 4.
    found = run(make())[-1][0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    projected = run(make("projection"))[-1][0]
    assert np.abs(projected - expected).max() > 5e-4


def test_without_transport_it_is_another_run():
    found = run(adamsrt(None))[-1][0]
    assert np.abs(found - adamsrt_by_hand()).max() > 0.2


def test_norms_grow():
    """As in the paper: nothing retracts."""
    for tx in adamsrt(), sgd_mrt():
        w = jnp.asarray(run(tx)[-1][0])
        grown = jnp.linalg.norm(w, axis=0) / np.linalg.norm(
            COLUMNS.params, axis=0
        )
        assert (grown > 1.0001).all()
