"""Ordinary parameters, and mistakes, across the family."""

import numpy as np
import optax
import pytest

import psi_optax
from tests.columns import COLUMNS
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


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: psi_optax.sgd_g(None, COLUMNS), TypeError),
        (lambda: psi_optax.sgd_g(0.1, COLUMNS, max_norm=0.0), ValueError),
        (lambda: psi_optax.adam_g("fast", COLUMNS), TypeError),
        (lambda: psi_optax.sgdp(None, COLUMNS), TypeError),
        (lambda: psi_optax.rotational(0.1, 0.9, COLUMNS), TypeError),
        (
            lambda: psi_optax.psi_sgd(0.1, COLUMNS, momentum=optax.sgd(0.1)),
            TypeError,
        ),
        (lambda: psi_optax.psi_sgdm(0.1, COLUMNS, momentum="high"), TypeError),
        (lambda: psi_optax.hyperball(0.1, None, COLUMNS), TypeError),
        (lambda: psi_optax.weight_rescaling(0.1, COLUMNS), TypeError),
        (
            lambda: psi_optax.transforms.transported_trace(
                COLUMNS, transport=""
            ),
            ValueError,
        ),
        (
            lambda: psi_optax.transforms.scale_by_group_adam(
                COLUMNS, transport="exact"
            ),
            ValueError,
        ),
        (
            lambda: psi_optax.transforms.add_orthogonality(0.0, COLUMNS),
            ValueError,
        ),
        (
            lambda: psi_optax.transforms.add_decayed_weights(
                0.1, COLUMNS, of="bn"
            ),
            ValueError,
        ),
        (
            lambda: psi_optax.wrappers.project_by_cosine(
                optax.trace(0.9), channels="c"
            ),
            ValueError,
        ),
        (
            lambda: psi_optax.psi(
                optax.sgd(0.1), COLUMNS, retraction="exponential", tangent=False
            ),
            ValueError,
        ),
    ],
)
def test_wrong_options_are_refused_at_once(make, error):
    with pytest.raises(
        error, match="choose|positive|pass|transformation|omit|leave"
    ):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: psi_optax.sgdp(0.1, COLUMNS, momentum=1.0),
        lambda: psi_optax.transforms.scale_by_group_rms(COLUMNS, decay=1.0),
        lambda: psi_optax.adam_g(0.1, COLUMNS, b2=-0.1),
    ],
)
def test_a_decay_of_one_or_more_is_refused(make):
    with pytest.raises(ValueError, match=r"is not in \[0, 1\)"):
        make()
