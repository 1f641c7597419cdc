"""The pictures of docs/concepts.md show what the page says of them."""

import numpy as np
import pytest

from benchmarks.experiments.concepts import experiment as concepts

pytestmark = pytest.mark.usefixtures("optax_promotion")


@pytest.mark.parametrize(
    ("name", "power"),
    [("SGD", -2), ("Adam", -1), ("psi_sgd", 0), ("psi_adam", 0)],
)
def test_the_angle_is_a_power_of_the_norm(name, power):
    """Of small angles a: arctan(a) is a (1 - a²/3), 2e-5 less for 8e-3.

    Adam's steps have a radial part of about their own length over √64, by which
    the norm, and the angle with it, changes by 8e-3; float32 adds 1e-5.
    """
    short, long = concepts.angles(concepts.COMPARED[name], [2.0, 8.0])
    assert 1e-5 < short < 0.05
    assert np.log2(long / short) / 2 == pytest.approx(power, abs=0.02)
