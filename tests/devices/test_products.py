"""Transforms that multiply matrices, with weights in shards.

A product of a sharded kernel with itself has no sharding that follows from the
types: the compiler is to choose one, and what comes out is sharded like what
went in.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from tests.compilation import quick_jit
from tests.devices.meshes import AXES, AXIS_TYPES, make_mesh, spec_of
from tests.devices.network import GROUPS, make_params
from tests.registry import ENTRIES

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")

NAMES = [name for name, entry in ENTRIES.items() if entry.multiplies]


def gradient():
    random = np.random.RandomState(3)
    return jax.tree.map(
        lambda x: jnp.asarray(random.normal(size=x.shape)),
        make_params("float64"),
    )


# Muon takes long to compile; where axes are automatic there is nothing of ours
# in it.
CASES = [
    (name, axis, axis_type)
    for name in NAMES
    for axis in AXES
    for axis_type in AXIS_TYPES
    if name != "muonh" or axis_type == "explicit"
]


@pytest.mark.parametrize(("name", "axis", "axis_type"), CASES)
def test_an_update_in_shards_is_the_update(name, axis, axis_type):
    tx = ENTRIES[name].build(GROUPS)
    params = make_params("float64")
    expected, _ = tx.update(gradient(), tx.init(params), params)
    mesh = make_mesh(axis_type)

    def place(x):
        spec = spec_of(x, AXES[axis], axis_type)
        return jax.device_put(x, NamedSharding(mesh, spec))

    with jax.set_mesh(mesh):
        params, slope = jax.tree.map(place, (params, gradient()))
        updates, _ = quick_jit(tx.update)(slope, tx.init(params), params)
    for got, there, param in zip(
        *map(jax.tree.leaves, (updates, expected, params)), strict=True
    ):
        # Newton-Schulz iterations amplify roundings of 1e-16 by 3.4^5.
        np.testing.assert_allclose(got, there, atol=1e-12)
        if axis_type == "explicit":
            assert got.sharding == param.sharding


def test_without_that_the_types_do_not_allow_it():
    mesh = make_mesh("explicit")
    x = jnp.ones((16, 16))
    with jax.set_mesh(mesh):
        x = jax.device_put(x, NamedSharding(mesh, spec_of(x, -1)))
        with pytest.raises(Exception, match="shard"):
            jax.jit(lambda x: x.T @ x)(x)
