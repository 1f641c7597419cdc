"""Weights whose direction is zero keep every bit while A is rounding."""

import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax.geometry import one_sum

EPS = 2.0**-23


def every_number(dtype):
    """All normal numbers of 16 bits, of either sign, as one group."""
    bits = np.arange(2**16, dtype=np.uint16)
    x = np.asarray(jnp.asarray(bits).view(dtype).astype(jnp.float32))
    with np.errstate(invalid="ignore"):
        normal = np.isfinite(x) & (np.abs(x) >= float(jnp.finfo(dtype).tiny))
    return jnp.asarray(x[normal], dtype)


def moved(w, fall):
    """Return how many weights move in a direction of zeros."""
    one = jnp.ones(1, jnp.float32)
    u = one_sum._rounded_move(w, jnp.zeros_like(w), one, fall * one, -one)
    return int(jnp.sum(u != 0))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("roundings", [-4, 4])
def test_they_stay(dtype, roundings):
    numbers = every_number("bfloat16" if dtype == "float32" else dtype)
    assert moved(numbers.astype(dtype), roundings * EPS) == 0


@pytest.mark.parametrize("roundings", [-5, 5])
def test_they_move_beyond_rounding(roundings):
    numbers = every_number("bfloat16").astype(jnp.float32)
    # All but those near the least, whose products XLA flushes to zero.
    assert moved(numbers, roundings * EPS) > 0.9 * numbers.size


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits_move_by_half_their_spacing(dtype):
    # The spacing is between half an eps of the dtype and one, relative to the
    # weight.
    numbers, eps = every_number(dtype), float(jnp.finfo(dtype).eps)
    assert moved(numbers, 0.24 * eps) == 0
    assert moved(numbers, -1.01 * eps) > 0.9 * numbers.size
