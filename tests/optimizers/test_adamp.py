"""SGDP and AdamP: no radial steps, and less decay of groups."""

import jax
import numpy as np
import optax
import pytest

import psi_optax
from tests.columns import COLUMNS
from tests.theory.networks import (
    rayleigh,
)
from tests.theory.training import lenient, path_of

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("name", ["sgdp", "adamp"])
def test_steps_are_orthogonal_to_weights_and_norms_grow_by_pythagoras(name):
    problem = rayleigh(50)
    tx = lenient(getattr(psi_optax, name)(0.05, COLUMNS))
    path = path_of(tx, problem)
    before = np.concatenate([problem.params[None], path[:-1]])
    change = path - before
    radial = (change * before).sum(1) / np.linalg.norm(before, axis=1)
    assert np.abs(radial).max() < 1e-15
    square = (before**2).sum(1) + (change**2).sum(1)
    np.testing.assert_allclose((path**2).sum(1), square, rtol=1e-14)
    plain = path_of(optax.sgd(0.05, momentum=0.9), problem)
    change = np.diff(plain, axis=0)
    assert np.abs((change * plain[:-1]).sum(1)).max() > 1e-2


def test_groups_decay_less_than_ordinary_parameters():
    params = {"w": np.ones((3, 2)), "b": np.ones(2)}
    groups = {"w": COLUMNS, "b": None}
    zeros = jax.tree.map(np.zeros_like, params)
    tx = psi_optax.sgdp(
        0.1, groups, momentum=0.5, weight_decay=0.2, wd_ratio=0.25
    )
    updates, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_allclose(updates["b"], -0.1 * 0.2 / 0.5, rtol=1e-15)
    np.testing.assert_allclose(updates["w"], -0.01, rtol=1e-15)


def test_decay_may_be_a_schedule():
    params = {"w": np.ones((3, 2)), "b": np.ones(2)}
    groups = {"w": COLUMNS, "b": None}
    zeros = jax.tree.map(np.zeros_like, params)
    schedule = optax.linear_schedule(0.2, 0.0, 2)
    tx = lenient(
        psi_optax.sgdp(0.1, groups, momentum=0.5, weight_decay=schedule)
    )
    state = tx.init(params)
    for decay in (0.2, 0.1, 0.0):
        updates, state = tx.update(zeros, state, params)
        # The schedule is float32.
        np.testing.assert_allclose(updates["b"], -0.2 * decay, rtol=1e-6)
        np.testing.assert_allclose(updates["w"], -0.02 * decay, rtol=1e-6)
