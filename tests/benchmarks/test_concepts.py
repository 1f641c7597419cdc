"""The pictures of docs/concepts.md show what the page says of them."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from benchmarks import concepts

pytestmark = pytest.mark.usefixtures("optax_promotion")

NORMS = np.array([1.0, 4.0])


@pytest.mark.parametrize(
    ("tx", "power"),
    [
        (optax.sgd(1e-3), -2),
        (optax.adam(1e-3), -1),
        (psi_optax.psi_sgd(1e-3, concepts.GROUPS), 0),
        (psi_optax.psi_adam(1e-3, concepts.GROUPS), 0),
    ],
    ids=["sgd", "adam", "psi_sgd", "psi_adam"],
)
def test_the_angle_is_a_power_of_the_norm(tx, power):
    """Of small angles a: arctan(a) is a (1 - a²/3), 2e-5 less for 8e-3.

    Adam's steps have a radial part of about their own length over √64, by which
    the norm, and the angle with it, changes by 8e-3; float32 adds 1e-5.
    """
    short, long = concepts.angles(tx, NORMS)
    assert 1e-5 < short < 0.01
    assert np.log2(long / short) / 2 == pytest.approx(power, abs=0.02)


def test_a_step_of_psi_keeps_the_norm_and_sgds_lengthens():
    w, slope = jnp.array([2.0, 0.0]), jnp.array([0.0, -0.7])
    turned = concepts.moved(psi_optax.psi_sgd(1.0, concepts.GROUPS), w, slope)
    lengthened = concepts.moved(optax.sgd(1.0), w, slope)
    # Two roundings of float32.
    assert jnp.linalg.norm(turned) == pytest.approx(2.0, rel=2.4e-7)
    assert jnp.linalg.norm(lengthened) > 2.02


def test_the_script_writes_both_pictures(tmp_path):
    concepts.main(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"concepts-step.png", "concepts-angles.png"}
    assert all(
        path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir()
    )
