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

RECIPES = {
    "psi_sgd": lambda g, **options: psi_optax.psi_sgd(0.1, g, **options),
    "sandwich": lambda g, **options: psi_optax.psi_sgd(
        0.05, g, momentum=0.9, **options
    ),
    "psi_sgdm": lambda g, **options: psi_optax.psi_sgdm(0.05, g, **options),
}
OPTIONS = [
    {"retraction": None},
    {"radius": None},
    {"radius": 2.0},
    # From a norm of 4 the sum w + (w' - w) rounds by 4e-16/0.1 of w'.
    {"radius": 0.1},
]


@pytest.mark.parametrize("name", RECIPES)
def test_retractions_and_radii_have_one_path_of_directions(name):
    problem = rayleigh(100)
    path = path_of(RECIPES[name](problem.groups), problem)
    for options in OPTIONS:
        other = path_of(RECIPES[name](problem.groups, **options), problem)
        assert direction_error(path, other, problem.ids) < ROUNDING


def test_retraction_makes_no_difference_to_a_network():
    problem, make = bn_mlp(100), RECIPES["psi_sgdm"]
    path = path_of(make(problem.groups), problem)
    other = path_of(make(problem.groups, retraction=None), problem)
    assert direction_error(path, other, problem.ids) < ROUNDING
    # It does to the norms, which the paper's step lets grow.
    growth = norms(other, problem.ids)[-1] / norms(path, problem.ids)[-1]
    assert growth.max() > 1.02


def test_radii_are_kept():
    problem = rayleigh(100)
    start = norms(problem.params, problem.ids)
    for options, radius in [({}, start), ({"radius": 2.0}, 2.0)]:
        path = path_of(RECIPES["sandwich"](problem.groups, **options), problem)
        np.testing.assert_allclose(
            norms(path, problem.ids), np.broadcast_to(radius, (100, 4)), 1e-14
        )


@pytest.mark.parametrize("name", ["psi_sgd", "sandwich"])
def test_exponential_map_has_another_path(name):
    problem = rayleigh(100)
    make = RECIPES[name]
    path = path_of(make(problem.groups), problem)
    other = path_of(make(problem.groups, retraction="exponential"), problem)
    assert direction_error(path, other, problem.ids) > 1e-3


def test_exponential_map_differs_at_third_order():
    # Steps of t and arctan t part by t^3/3: at a tenth of the rate the first
    # steps of both are 1000 times nearer.
    problem = rayleigh(1)
    apart = []
    for rate in (0.005, 0.0005):
        paths = [
            path_of(
                psi_optax.psi_sgd(rate, problem.groups, retraction=kind),
                problem,
            )
            for kind in ("projection", "exponential")
        ]
        apart.append(direction_error(*paths, problem.ids))
    np.testing.assert_allclose(apart[0] / apart[1], 1000, rtol=0.02)


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
