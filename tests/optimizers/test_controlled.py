"""Rotational and hyperball: steps whose angle is set."""

import jax
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.columns import COLUMNS, angles
from tests.theory.networks import (
    rayleigh,
)
from tests.theory.scales import norms
from tests.theory.training import lenient, path_of, step

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("direction", [optax.trace(0.9), optax.scale_by_adam()])
def test_rotational_turns_every_group_by_the_rate(direction):
    problem = rayleigh(300, noise=2.0)
    tx = lenient(psi_optax.rotational(0.01, direction, COLUMNS))
    turns = angles(path_of(tx, problem), problem.params)[50:]
    # A running mean over about 10 steps of squares that vary by their own size
    # is right on average: E q^2 over its estimate, 250 steps, four groups.
    mean = np.sqrt((turns**2).mean(0))
    np.testing.assert_allclose(mean, np.arctan(0.01), rtol=0.1)
    plain = lenient(psi_optax.psi_direction(0.01, direction, COLUMNS))
    turns = angles(path_of(plain, problem), problem.params)[50:]
    assert np.abs(np.sqrt((turns**2).mean(0)) / 0.01 - 1).min() > 0.2


def test_every_step_of_a_hyperball_is_as_long_as_it_is_told():
    # Without a radial part in the direction: an angle of arctan(rate).
    problem, rate = rayleigh(50), 0.02
    tx = psi_optax.hyperball(rate, optax.identity(), COLUMNS, per_tensor=False)
    path = path_of(tx, problem)
    turns = angles(path, problem.params)
    np.testing.assert_allclose(turns, np.arctan(rate), rtol=1e-12)
    np.testing.assert_allclose(
        norms(path, problem.ids),
        np.broadcast_to(norms(problem.params, problem.ids), (50, 4)),
        rtol=1e-15,
    )


def test_a_radial_part_shortens_the_step_of_a_hyperball():
    w, rate = np.array([2.0, 0.0]), 0.5
    u = np.array([3.0, -4.0])  # The step is rate times this over 5.
    tx = psi_optax.hyperball(rate, optax.identity(), COLUMNS)
    after = w + tx.update(u, tx.init(w), w)[0]
    expected = np.array([1 - 0.3, 0.4])
    expected *= 2 / np.linalg.norm(expected)
    np.testing.assert_allclose(after, expected, rtol=1e-15)


@pytest.mark.parametrize("equivariant", [True, False])
@pytest.mark.parametrize("make", [psi_optax.adamh, psi_optax.muonh])
def test_zero_weights_and_zero_directions_stay(make, equivariant):
    params = {"a": np.zeros((4, 3)), "b": np.ones((4, 3)), "c": np.ones((4, 3))}
    groups = dict.fromkeys(params, COLUMNS)
    gradient = {
        "a": np.ones((4, 3)),
        "b": np.zeros((4, 3)),
        "c": np.eye(4)[:, :3],
    }
    tx = lenient(make(0.1, groups, equivariant=equivariant))
    after, state = step(tx, gradient, tx.init(params), params)
    assert np.array_equal(after["a"], params["a"])
    assert np.array_equal(after["b"], params["b"])
    assert not np.array_equal(after["c"], params["c"])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after, state)))


def test_dimension_numbers_of_muonh():
    # As a tree and as a function, beside what is no matrix.
    numbers = optax.contrib.MuonDimensionNumbers(2, (0, 1))
    random = np.random.RandomState(0)
    shapes = {"w": (2, 4, 3), "v": (5,), "head": (3, 2)}
    params = {k: random.normal(size=s) for k, s in shapes.items()}
    gradient = {k: random.normal(size=s) for k, s in shapes.items()}
    groups = {"w": ScaleGroup((0, 1)), "v": COLUMNS, "head": None}
    found = []
    for given in (
        {"w": numbers, "v": None, "head": None},
        lambda tree: jax.tree.map(lambda _: numbers, tree),
        None,
    ):
        tx = psi_optax.muonh(
            0.1,
            groups,
            weight_dimension_numbers=given,
            ordinary=optax.adam(0.1),
        )
        found.append(step(lenient(tx), gradient, tx.init(params), params)[0])
    np.testing.assert_array_equal(found[0]["w"], found[1]["w"])
    # Newton-Schulz does not see which side is which, but for rounding.
    np.testing.assert_allclose(found[0]["w"], found[2]["w"], atol=1e-10)
