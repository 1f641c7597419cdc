"""Decay of one kind of parameter, and steps of mean zero."""

import jax
import numpy as np
import optax
import pytest

import psi_optax
from tests.columns import COLUMNS, unit
from tests.theory.networks import (
    rayleigh,
)
from tests.theory.training import path_of

pytestmark = pytest.mark.usefixtures("x64")

# 300 steps, each of a few operations on numbers of about 1, rounded to 1e-16.
ROUNDING = 1e-12


def test_decay_of_either_kind_alone():
    params = {"w": np.full((3, 2), 2.0), "b": np.full(2, 2.0)}
    params["count"] = np.array([2, 3])
    groups = {"w": COLUMNS, "b": None, "count": None}
    zeros = jax.tree.map(np.zeros_like, params)
    for kind, decays in [("scale", "w"), ("ordinary", "b")]:
        tx = psi_optax.transforms.add_decayed_weights(0.25, groups, of=kind)
        updates, _ = tx.update(zeros, tx.init(params), params)
        for path, x in updates.items():
            assert np.all(x == (0.5 if path == decays else 0))


@pytest.mark.parametrize(
    "make",
    [
        lambda g: psi_optax.psi_direction(
            0.05,
            optax.chain(
                optax.trace(0.9), psi_optax.transforms.project_to_zero_mean(g)
            ),
            g,
        ),
        lambda g: psi_optax.rotational(
            0.02, optax.trace(0.9), g, centered=True
        ),
        lambda g: optax.chain(
            psi_optax.transforms.scale_by_group_norm(g),
            optax.sgd(0.05),
            psi_optax.transforms.scale_by_group_norm(g),
            psi_optax.transforms.project_to_tangent(g, centered=True),
            psi_optax.transforms.retract(g),
        ),
    ],
)
def test_centered_weights_stay_centered(make):
    problem = rayleigh()
    start = psi_optax.normalize(
        problem.params, COLUMNS, radius=2.0, centered=True
    )
    assert np.abs(start.mean(0)).max() < 1e-15
    path = path_of(make(COLUMNS), problem, start)
    assert np.abs(path.mean(1)).max() < ROUNDING
    assert np.abs(path[-1] - start).max() > 0.5
    free = path_of(
        psi_optax.psi_sgd(0.05, COLUMNS, momentum=0.9), problem, start
    )
    assert np.abs(free.mean(1)).max() > 0.01


def test_centered_descent_finds_the_minimum_among_centered_weights():
    # The least eigenvalue of the matrix between projections to mean zero.
    problem = rayleigh(300, noise=0.0)
    matrix = problem.batches[0]
    center = np.eye(9) - 1 / 9
    least = np.linalg.eigvalsh(center @ matrix @ center + 9 * np.ones((9, 9)))[
        0
    ]
    start = psi_optax.normalize(problem.params, COLUMNS, centered=True)
    tx = psi_optax.psi_direction(
        0.4,
        optax.chain(
            optax.identity(), psi_optax.transforms.project_to_zero_mean(COLUMNS)
        ),
        COLUMNS,
    )
    v = unit(path_of(tx, problem, start)[-1])
    found = (v * (matrix @ v)).sum(0)
    # Convergence like (1 - 0.8 gap)^2 a step, with a gap of about 0.1.
    np.testing.assert_allclose(found, least, rtol=1e-9)
    assert least > 1.01 * np.linalg.eigvalsh(matrix)[0]


def test_normalizing_what_is_its_mean():
    w = np.array([[0.1, 1.0, 1.0], [0.1, 2.0, 1.0], [0.1, 6.0, 1.0]])
    got = psi_optax.normalize(w, COLUMNS, 2.0, centered=True)
    np.testing.assert_array_equal(got[:, [0, 2]], w[:, [0, 2]])
    expected = np.array([-2.0, -1.0, 3.0])
    expected *= 2 / np.linalg.norm(expected)
    np.testing.assert_allclose(got[:, 1], expected, rtol=1e-15)
    one = psi_optax.normalize(np.ones((1, 2)), COLUMNS, centered=True)
    np.testing.assert_array_equal(one, 1.0)
