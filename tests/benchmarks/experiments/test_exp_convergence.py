"""Convergence: constants of smoothness, descent, and the theorems' claims."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks import data
from benchmarks.experiments.convergence.descent import (
    make_descent,
    make_problem,
    normalized,
    norms,
    scaled,
)
from benchmarks.experiments.convergence.report import faults
from benchmarks.experiments.convergence.smoothness import (
    Smoothness,
    block_bounds,
)
from benchmarks.experiments.noisy_data import first
from benchmarks.harness import pages, results
from psi_optax._compat import enable_x64

pytestmark = pytest.mark.usefixtures("optax_promotion", "x64")

IDS = np.array([0, 0, 0, 1, 1, -1, -1])


def symmetric(seed):
    matrix = np.random.RandomState(seed).normal(size=(7, 7))
    return matrix + matrix.T


def curvature(hessian, rates):
    """Return the eigenvalue of the scaled Hessian that is largest in size."""
    root = np.sqrt(rates)
    values = np.linalg.eigvalsh(root[:, None] * hessian * root)
    return values[np.abs(values).argmax()]


@pytest.fixture(scope="module")
def problem():
    digits = first(data.load("digits"), 200)
    small = digits._replace(train_images=digits.train_images[:, 2:6, 2:6])
    with enable_x64(True):
        return make_problem(small, width=2)


def test_constants_are_sums_of_the_norms_of_blocks():
    hessian = symmetric(0)
    parts = slice(0, 3), slice(3, 5), slice(5, 7)
    sizes = np.array(
        [[np.linalg.norm(hessian[a, b], 2) for b in parts] for a in parts]
    )
    # The block of the rest counts once for each of the two groups.
    sizes[2, 2] *= 2
    np.testing.assert_allclose(block_bounds(hessian, IDS), sizes.sum(1), 1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_at_rates_of_one_over_the_constants_no_curvature_exceeds_1(seed):
    hessian = symmetric(seed)
    rates = 1 / block_bounds(hessian, IDS)[IDS]
    assert abs(curvature(hessian, rates)) <= 1
    # The control: the blocks of the diagonal alone do not suffice.
    alone = np.where(IDS[:, None] == IDS, hessian, 0.0)
    rates = 1 / block_bounds(alone, IDS)[IDS]
    assert abs(curvature(hessian, rates)) > 1


def test_curvature_is_that_of_the_scaled_hessian(problem):
    rates = np.linspace(0.5, 2.0, 13)
    hessian = np.asarray(jax.jit(jax.hessian(problem.loss))(problem.start))
    expected = curvature(hessian, rates[problem.ids])
    found = Smoothness(problem).curvature(problem.start, rates)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_the_loss_ignores_the_scale_of_groups_alone(problem):
    assert problem.ids.max() + 1 == 2 + 10
    assert problem.start.dtype == np.float64
    assert norms(problem.start, problem.ids).max() > 1.1
    unit = norms(normalized(problem, problem.start), problem.ids)
    np.testing.assert_allclose(unit, 1, rtol=1e-15)
    factors = np.append(10.0 ** np.linspace(-2, 2, 12), 1.0)[problem.ids]
    loss = jax.jit(problem.loss)
    before = loss(problem.start)
    # A mean of 200 losses of size 2, each rounded to 2e-16 several times.
    np.testing.assert_allclose(loss(factors * problem.start), before, 1e-13)
    other = jnp.where(problem.ids < 0, 2.0, 1.0) * problem.start
    assert abs(loss(other) - before) > 0.01


@pytest.mark.parametrize("psi", [True, False])
def test_only_gradient_descent_depends_on_the_scale(psi, problem):
    descend = make_descent(problem, psi, steps=20)
    # Rounding, 2e-16, that 20 steps of a smooth descent amplify little.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-11)
    one, ten = (
        descend(scaled(problem, x), jnp.full(13, 0.1)) for x in (1.0, 10.0)
    )
    close(one["direction"][0], ten["direction"][0])
    assert ten["euclidean"][0] < 0.9 * one["euclidean"][0]
    if psi:
        close(one["loss"], ten["loss"])
        ends = (normalized(problem, path["points"][-1]) for path in (one, ten))
        close(*ends)
    else:
        assert ten["loss"][-1] > one["loss"][-1] + 0.01
    close(
        one["promised"], 0.05 * (one["direction"] if psi else one["euclidean"])
    )


def test_the_theorems_hold_and_larger_rates_break_them():
    content = results.read(pages.DOCS / "numbers" / "convergence.json")
    assert not faults(content)
    parts = content["parts"]
    first = parts["PSI-GD, theorem, scale 1"]
    first["loss"] = [0.01 * loss for loss in first["loss"]]
    large = parts["GD, multiple 100"]
    parts["GD, theorem, scale 1"]["rises"] = large["rises"]
    parts["GD, theorem, scale 10"]["curvature"] = large["curvature"]
    parts["GD, theorem, scale 100"]["excess"] = 1.01
    assert [fault.split(" does")[0] for fault in faults(content)] == [
        "PSI-GD from scale any",
        *(f"GD from scale {scale}" for scale in (1, 10, 100)),
    ]
