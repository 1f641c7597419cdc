"""The learning rates that a warning and a conversion know of a schedule."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup
from psi_optax._schedules import sample_rates
from psi_optax.dynamics import convert_learning_rate


def test_a_schedule_with_side_effects_is_not_called():
    called = []

    def printing(count):
        jax.debug.callback(called.append, count)
        return 0.1 / (1.0 + count)

    def inside(count):
        return jax.lax.cond(count > 3, printing, lambda x: 0.1 + 0.0 * x, 1.0)

    for schedule in printing, inside:
        assert sample_rates(schedule) == []
        with pytest.raises(ValueError, match="side effects"):
            convert_learning_rate(schedule, jnp.ones(3), ScaleGroup(0))
    jax.effects_barrier()
    assert called == []
    # The control: it has an effect when it is called.
    printing(2.0)
    jax.effects_barrier()
    assert len(called) == 1


class Clock:
    """A clock that each schedule moves, in place of the time."""

    def __init__(self, monkeypatch):
        """Replace the clock of the sampling."""
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def in_python(clock, seconds):
    """A schedule that JAX cannot trace."""

    def schedule(count):
        clock.now += seconds
        return 0.1 if 100 < int(count) < 200_000 else 0.01

    return schedule


def by_callback(clock, seconds):
    """A schedule that JAX can trace, and that Python knows."""
    known = in_python(clock, seconds)
    like = jax.ShapeDtypeStruct((), jnp.float32)

    def schedule(count):
        return jax.pure_callback(
            lambda x: np.float32(known(x)),
            like,
            count,
            vmap_method="sequential",
        )

    return schedule


@pytest.mark.parametrize("make", [in_python, by_callback])
def test_a_slow_schedule_is_called_for_half_a_second(make, monkeypatch):
    """Early steps are seen, and a grid up to a million."""
    rates = sample_rates(make(Clock(monkeypatch), 0.03))
    assert 10 < len(rates) < 20
    assert max(rates) == pytest.approx(0.1)
    assert rates[0] == pytest.approx(0.01)
    if make is in_python:
        rates = sample_rates(make(Clock(monkeypatch), 1e-5))
        assert 990 < len(rates) < 1010
