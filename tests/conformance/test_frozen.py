"""Trajectories of every transform, as they were.

    python -m tests.conformance.test_frozen

compares to the bit with what is stored, which holds on one machine with one
version of JAX, and stores the trajectories of entries that have none. To begin
a change that must not be noticed: remove the file, run this, change, run it.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.conformance.archive import named, read, write
from tests.registry import ENTRIES, KINDS, draw

STORED = pathlib.Path(__file__).parent / "data" / "trajectories.npz"
DTYPES = "float32", "bfloat16"
STEPS = 4


def trajectory(name, dtype):
    """Weights and state after some steps, compiled, by name of their place.

    Arrays of bfloat16, which NumPy cannot store, are widened.
    """
    tx = ENTRIES[name].build()
    params = draw(0, dtype)

    @jax.jit
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for seed in range(1, STEPS + 1):
        params, state = step(params, state, draw(seed, dtype))
    found = named((params, state))
    return {
        f"{name}/{dtype}{place}": np.asarray(
            x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
        )
        for place, x in found.items()
    }


def tolerance(dtype, x):
    """What another processor, or version of JAX, may round otherwise.

    20 roundings in float32, as of states that are stored; in bfloat16 weights
    that are rounded to the other side at each of the steps.
    """
    largest = np.max(np.abs(x), initial=0)
    if dtype == "float32":
        return 20 * 2.0**-24 * max(8, largest)
    return STEPS * 2.0**-8 * max(1, largest)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in ENTRIES),
        *((name, "bfloat16") for name in KINDS),
    ],
)
def test_trajectories_are_as_they_were(entry, name, dtype):
    found = trajectory(name, dtype)
    expected = {
        place: x
        for place, x in read(STORED).items()
        if place.partition("[")[0] == f"{name}/{dtype}"
    }
    assert found.keys() == expected.keys()
    for place, x in found.items():
        assert x.dtype == expected[place].dtype
        if jnp.issubdtype(x.dtype, jnp.floating):
            atol = tolerance(dtype, expected[place])
            np.testing.assert_allclose(x, expected[place], rtol=0, atol=atol)
        else:
            np.testing.assert_array_equal(x, expected[place])


def compare():
    """Print which arrays differ in a bit, and store those that are new."""
    stored, differ = read(STORED), []
    for name in ENTRIES:
        for dtype in DTYPES:
            with jax.numpy_dtype_promotion("standard"):
                for place, x in trajectory(name, dtype).items():
                    if not np.array_equal(stored.setdefault(place, x), x, True):
                        differ.append(place)
    write(STORED, stored)
    print("\n".join(differ) or "all are equal to the bit")


if __name__ == "__main__":
    compare()
