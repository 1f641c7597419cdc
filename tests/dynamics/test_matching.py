"""matching_learning_rate: the matched run turns as the decayed one settles.

On noise, with the tolerance of test_equilibrium.py: 1 %.
"""

import jax
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi_sgd
from psi_optax.dynamics import (
    equilibrium_norm,
    equilibrium_rotation,
    matching_learning_rate,
)
from tests.dynamics.simulation import rms, simulate
from tests.dynamics.test_equilibria import sgd, sgdw

RATE, DECAY, GRADIENT_NORM = 0.1, 0.05, 0.7


@pytest.mark.parametrize(
    ("optimizer", "decayed", "momentum"),
    [("sgd", sgd, 0.0), ("sgd", sgd, 0.9), ("sgdw", sgdw, 0.9)],
)
def test_psi_sgd_turns_as_decayed_sgd(optimizer, decayed, momentum):
    rate = matching_learning_rate(
        RATE,
        DECAY,
        optimizer=optimizer,
        momentum=momentum,
        gradient_norm=GRADIENT_NORM,
    )
    kept = psi_sgd(rate, ScaleGroup(0), momentum=momentum)
    # From any norms: the decayed one has 1/(4 eta lam) = 50 steps to forget.
    matched = simulate(kept, 3.0, 600, gradient_norm=GRADIENT_NORM)
    settled = simulate(
        decayed(RATE, DECAY, momentum),
        1.0,
        2000,
        gradient_norm=GRADIENT_NORM,
    )
    turned, expected = rms(matched.angle[100:]), rms(settled.angle[600:])
    np.testing.assert_allclose(turned, expected, rtol=0.01)
    # The control: the decayed one does not turn so before it has settled.
    assert abs(rms(settled.angle[:10]) / expected - 1) > 0.1


def test_the_part_of_the_buffer_that_turns_nothing():
    rate = matching_learning_rate(RATE, DECAY, momentum=0.9, gradient_norm=1.0)
    angle = equilibrium_rotation(RATE, DECAY, momentum=0.9)
    short = np.tan(angle) * np.sqrt(1 - 0.9**2)
    # Why it is counted: at these large angles it makes 19 % of the rate.
    assert rate / short > 1.15


def test_many_steps_together_turn_alike():
    """As they do because the momentum is the same."""
    decay, lag = 0.02, 50

    def angle(tx, norm):
        return rms(simulate(tx, norm, 800, lag=lag).angle[200:])

    def kept(momentum):
        rate = matching_learning_rate(
            RATE, decay, optimizer="sgdw", momentum=0.9, gradient_norm=1.0
        )
        # At the same rotation a step.
        rate = rate / np.sqrt((1 - 0.9**2) / (1 - momentum**2))
        return angle(psi_sgd(rate, ScaleGroup(0), momentum=momentum), 3.0)

    norm = equilibrium_norm(
        RATE, decay, optimizer="sgdw", momentum=0.9, gradient_norm=1.0
    )
    settled = angle(sgdw(RATE, decay, 0.9), norm)
    # 600 steps are but 12 of 50: three times the tolerance of single steps.
    np.testing.assert_allclose(kept(0.9), settled, rtol=0.03)
    # The control: the root of (1 + mu)/(1 - mu) = 19 between them.
    assert kept(0.0) < 0.4 * settled


def test_the_rate_of_controlled_steps():
    rate = matching_learning_rate(0.1, 5e-4, momentum=0.9)
    angle = equilibrium_rotation(0.1, 5e-4, momentum=0.9)
    np.testing.assert_allclose(np.arctan(rate), angle, rtol=1e-6)


def test_a_schedule_gives_the_schedule_of_the_rotation():
    schedule = optax.linear_schedule(0.1, 0.02, 100)
    matched = matching_learning_rate(schedule, 5e-4, optimizer="adamw")
    for step in [0, 37, 100]:
        expected = matching_learning_rate(
            schedule(step), 5e-4, optimizer="adamw"
        )
        # Compiled and not: a few roundings.
        np.testing.assert_allclose(jax.jit(matched)(step), expected, rtol=1e-6)
    # It goes with the root.
    ratio = matched(100) / matched(0)
    np.testing.assert_allclose(ratio, np.sqrt(0.2), rtol=1e-3)


def test_psi_needs_the_gradient():
    with pytest.raises(ValueError, match="gradient_norm"):
        matching_learning_rate(0.1, 0.1, optimizer="psi")
    rate = matching_learning_rate(0.1, 0.1, optimizer="psi", gradient_norm=2.0)
    # tan(arcsin(0.2))/2.
    np.testing.assert_allclose(rate, 0.2 / np.sqrt(0.96) / 2, rtol=1e-6)


def test_schedules_that_begin_and_end_at_zero():
    # As warmup and cosine do, outside of jit too.
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)
    for optimizer in ("sgd", "sgdw", "adamw", "lion"):
        matched = matching_learning_rate(schedule, 5e-4, optimizer=optimizer)
        assert matched(0) == matched(100) == 0
        assert matched(10) > 0
    with pytest.raises(ValueError, match=r"learning_rate=-0\.1"):
        matching_learning_rate(-0.1, 5e-4)
