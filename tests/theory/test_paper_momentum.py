"""`psi_sgdm` against two oracles: the paper's rule, and its form on spheres.

Yi (arXiv 2101.02916, UAI 2022), eq. 11, with u_0 = 0:

    u <- mu u - rate |w|^2 g,   w <- w + u.

Divided by |w|, with m = u/|w| and gbar = |w| g, that reads

    m' = mu m - rate gbar,   n = |v + m'|,   v <- (v + m')/n,   m <- m'/n,

which needs no norm of w. Both oracles are numpy, on noisy Rayleigh quotients.
"""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from tests.columns import unit
from tests.theory.networks import rayleigh, rayleigh_gradient
from tests.theory.training import path_of

pytestmark = pytest.mark.usefixtures("x64")

MOMENTUM = 0.9
# 300 steps, rounded differently in the two programs, by 1e-16 each.
ROUNDING = 1e-12


def rate_at(step):
    return 0.05 * np.exp(-0.005 * step)


def schedule(count):
    return 0.05 * jnp.exp(-0.005 * count.astype(jnp.float64))


def raw_path(problem):
    """The paper's rule, as printed but for the index it has wrong."""
    w, u = problem.params, np.zeros_like(problem.params)
    for step, matrix in enumerate(problem.batches):
        radius = np.linalg.norm(w, axis=0)
        gradient = rayleigh_gradient(w / radius, matrix) / radius
        u = MOMENTUM * u - rate_at(step) * radius**2 * gradient
        w = w + u
        yield w


def intrinsic_path(problem, rescale=True):
    """Directions alone; without rescaling of the buffer for a control."""
    v = unit(problem.params)
    m = np.zeros_like(v)
    for step, matrix in enumerate(problem.batches):
        m = MOMENTUM * m - rate_at(step) * rayleigh_gradient(v, matrix)
        length = np.linalg.norm(v + m, axis=0)
        v = (v + m) / length
        m = m / length if rescale else m
        yield v


def paper(problem, **options):
    return psi_optax.psi_sgdm(
        schedule, problem.groups, momentum=MOMENTUM, **options
    )


def test_additive_form_is_the_papers_rule():
    problem = rayleigh()
    path = path_of(paper(problem, retraction=None), problem)
    expected = np.array(list(raw_path(problem)))
    radius = np.linalg.norm(expected, axis=1, keepdims=True)
    assert radius[-1].max() > 100  # It grows without bound.
    np.testing.assert_allclose(path / radius, expected / radius, atol=ROUNDING)


@pytest.mark.parametrize(
    "options", [{}, {"radius": None}, {"radius": 0.7}, {"retraction": None}]
)
def test_directions_are_those_of_the_intrinsic_form(options):
    problem = rayleigh()
    path = path_of(paper(problem, **options), problem)
    expected = list(intrinsic_path(problem))
    np.testing.assert_allclose(unit(path), expected, atol=ROUNDING)


def test_oracles_agree_with_one_another():
    problem = rayleigh()
    np.testing.assert_allclose(
        unit(np.array(list(raw_path(problem)))),
        list(intrinsic_path(problem)),
        atol=ROUNDING,
    )


def test_buffer_that_is_not_rescaled_is_another_method():
    # The control, in numpy and as parts of the package.
    problem = rayleigh()
    g = problem.groups
    expected = list(intrinsic_path(problem))
    stale = list(intrinsic_path(problem, rescale=False))
    parts = optax.chain(
        psi_optax.transforms.scale_by_group_norm(g),
        psi_optax.transforms.scale_by_group_norm(g),
        optax.scale_by_schedule(lambda count: -schedule(count)),
        optax.trace(MOMENTUM),
        psi_optax.transforms.retract(g),
    )
    path = unit(path_of(parts, problem))
    assert np.abs(np.array(stale) - expected).max() > 1e-3
    assert np.abs(path - expected).max() > 1e-3
    np.testing.assert_allclose(path, stale, atol=ROUNDING)


def test_momentum_of_degree_0_is_another_method():
    problem = rayleigh()
    sandwich = psi_optax.psi_sgd(schedule, problem.groups, momentum=MOMENTUM)
    path = unit(path_of(sandwich, problem))
    assert np.abs(path - list(intrinsic_path(problem))).max() > 1e-3
