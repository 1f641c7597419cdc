"""Retraction, radius and period change norms, not directions.

PSI-SGD, with or without retraction, and gradient descent that is rescaled after
every step (Liu et al., "Weight rescaling", arXiv 2102.03497; projected descent
on spheres, arXiv 1710.02338) are one method in direction space.
"""

import numpy as np
import optax
import pytest

import psi_optax
from tests.theory.networks import bn_mlp, rayleigh
from tests.theory.scales import direction_error, norms
from tests.theory.training import path_of

pytestmark = pytest.mark.usefixtures("x64")

# 100 steps, each rounded by 1e-16 in its own way.
ROUNDING = 1e-12


# Others: `test_closed_form.py`, and `psi_sgdm` in `test_paper_momentum.py`.
@pytest.mark.parametrize(
    "options",
    # From a norm of 4 the sum w + (w' - w) rounds by 4e-16/0.1 of w'.
    [{"retraction": None}, {"radius": None}, {"radius": 2.0}, {"radius": 0.1}],
)
def test_retractions_and_radii_have_one_path_of_directions(options):
    problem = rayleigh(100)
    paths = [
        path_of(
            psi_optax.psi_sgd(0.05, problem.groups, momentum=0.9, **more),
            problem,
        )
        for more in ({}, options)
    ]
    assert direction_error(*paths, problem.ids) < ROUNDING


def test_retraction_makes_no_difference_to_a_network():
    problem = bn_mlp(100)
    path, other = (
        path_of(
            psi_optax.psi_sgdm(0.05, problem.groups, retraction=retraction),
            problem,
        )
        for retraction in ("projection", None)
    )
    assert direction_error(path, other, problem.ids) < ROUNDING
    # It does to the norms, which the paper's step lets grow.
    growth = norms(other, problem.ids)[-1] / norms(path, problem.ids)[-1]
    assert growth.max() > 1.02


RATE, RADIUS = 0.4, 2.0


def rescaling(problem, every, rate=RATE, momentum=None):
    return optax.chain(
        optax.sgd(rate, momentum),
        psi_optax.transforms.rescale_weights(
            problem.groups, radius=RADIUS, every=every
        ),
    )


def same_path(problem):
    """PSI-SGD as fast as gradient descent is on the sphere of radius R.

    There the step of v is rate/R times a gradient of gbar/R.
    """
    rate = RATE / RADIUS**2
    tx = psi_optax.psi_sgd(rate, problem.groups, ordinary=optax.sgd(RATE))
    return path_of(tx, problem)


@pytest.mark.parametrize("make", [rayleigh, bn_mlp])
def test_weight_rescaling_of_every_step_is_psi_sgd(make):
    # Descent sees the scale of where it starts, so it starts on the sphere.
    problem = make(100)
    start = psi_optax.normalize(problem.params, problem.groups, RADIUS)
    path = path_of(rescaling(problem, 1), problem, start)
    assert direction_error(path, same_path(problem), problem.ids) < ROUNDING
    np.testing.assert_allclose(norms(path, problem.ids), RADIUS, rtol=1e-14)


def test_weight_rescaling_that_is_not_psi_sgd():
    problem = rayleigh(100)
    path = same_path(problem)
    start = psi_optax.normalize(problem.params, problem.groups, RADIUS)
    for tx, params in [
        (rescaling(problem, 2), start),  # The norm grows in between.
        (rescaling(problem, 1), problem.params),  # The first step is another.
        (rescaling(problem, 1, rate=RATE / RADIUS), start),
        (rescaling(problem, 1, momentum=0.5), start),
    ]:
        other = path_of(tx, problem, params)
        assert direction_error(path, other, problem.ids) > 1e-3


@pytest.mark.parametrize("every", [1, 7])
def test_weight_rescaling_keeps_to_its_period(every):
    problem = rayleigh(100)
    tx = rescaling(problem, every)
    radii = norms(path_of(tx, problem), problem.ids)
    due = np.arange(1, 101) % every == 0
    np.testing.assert_allclose(radii[due], RADIUS, rtol=1e-14)
    assert np.all(np.abs(radii[~due] - RADIUS) > 1e-4)
