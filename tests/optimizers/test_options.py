"""Ordinary parameters, and mistakes, across the family."""

import numpy as np
import optax
import pytest

import psi_optax
from tests.theory.networks import (
    rayleigh_with_gains,
)
from tests.theory.training import lenient, step

pytestmark = pytest.mark.usefixtures("x64")


def test_ordinary_parameters_follow_the_direction_or_their_own_optimizer():
    problem = rayleigh_with_gains(20)
    own = optax.sgd(0.01)
    expected = {
        "sgd_g": psi_optax.sgd_g(0.1, problem.groups, ordinary=own),
        "adam_g": lenient(psi_optax.adam_g(0.1, problem.groups, ordinary=own)),
        "rotational": psi_optax.rotational(
            0.1, optax.trace(0.9), problem.groups, ordinary=own
        ),
        "adamh": lenient(psi_optax.adamh(0.1, problem.groups, ordinary=own)),
        "raw": lenient(
            psi_optax.adamh(
                0.1, problem.groups, ordinary=own, equivariant=False
            )
        ),
    }
    gradient = {"w": np.ones((9, 4)), "gains": np.full(4, 3.0)}
    for tx in expected.values():
        after, _ = step(tx, gradient, tx.init(problem.params), problem.params)
        np.testing.assert_allclose(after["gains"], 1 - 0.03, rtol=1e-15)
    followed = psi_optax.sgd_g(0.1, problem.groups)
    after, _ = step(
        followed, gradient, followed.init(problem.params), problem.params
    )
    np.testing.assert_allclose(after["gains"], 1 - 0.3, rtol=1e-15)
