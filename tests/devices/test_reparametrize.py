"""Reparametrizations of sharded parameters equal those of one device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from psi_optax import ScaleGroup, normalize
from psi_optax.reparametrize import (
    centered,
    orthogonal,
    spectral,
    standardized,
    unit,
)
from tests.devices.meshes import AXES, AXIS_TYPES, make_mesh, spec_of

pytestmark = pytest.mark.usefixtures("x64")

COLUMNS = ScaleGroup(0)
FUNCTIONS = {
    "unit": unit,
    "centered": centered,
    "standardized": standardized,
    "normalize": lambda w, g: normalize(w, g, centered=True),
}
# Sums of 16 numbers of about one, in another order.
CLOSE = {"rtol": 0, "atol": 50 * 2.3e-16}


def kernel():
    w = np.random.RandomState(0).normal(size=(16, 24))
    w[:, 3], w[:, 5] = 0, 0.1
    return jnp.asarray(w)


def value_and_gradient(function, group):
    def loss(w):
        moved = function(w, group)
        return jnp.sum(jnp.sin(moved)), moved

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def check_equal(found, expected):
    (_, moved), gradient = found
    (_, one), one_gradient = expected
    np.testing.assert_allclose(moved, one, **CLOSE)
    np.testing.assert_allclose(gradient, one_gradient, **CLOSE)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("axis_type", AXIS_TYPES)
def test_a_named_sharding(name, axis, axis_type):
    function = FUNCTIONS[name]
    expected = value_and_gradient(function, COLUMNS)(kernel())
    mesh = make_mesh(axis_type)
    with jax.set_mesh(mesh):
        spec = spec_of(kernel(), AXES[axis], axis_type)
        w = jax.device_put(kernel(), NamedSharding(mesh, spec))
        found = value_and_gradient(function, COLUMNS)(w)
    check_equal(found, expected)
    assert found[1].sharding.is_equivalent_to(w.sharding, 2)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_inside_shard_map(name):
    """Groups that are cut into shards, and say over which axis."""
    function = FUNCTIONS[name]
    expected = value_and_gradient(function, COLUMNS)(kernel())[0][1]
    named = dataclasses.replace(COLUMNS, axis_name="d")
    spec = PartitionSpec("d", None)

    def mapped(group):
        return jax.jit(
            jax.shard_map(
                lambda w: function(w, group),
                mesh=make_mesh("auto"),
                in_specs=spec,
                out_specs=spec,
            )
        )(kernel())

    np.testing.assert_allclose(mapped(named), expected, **CLOSE)
    # Without the name each shard is a group of its own.
    assert np.abs(mapped(COLUMNS) - expected).max() > 0.1


@pytest.mark.parametrize("function", [orthogonal, spectral])
def test_those_of_a_whole_matrix(function):
    named = dataclasses.replace(COLUMNS, axis_name="d")
    with pytest.raises(NotImplementedError, match="axis_name"):
        function(kernel()[:, 8:16], named)
    expected = value_and_gradient(function, COLUMNS)(kernel()[:, 8:16])
    mesh = make_mesh("auto")
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, PartitionSpec(None, "d"))
        w = jax.device_put(kernel()[:, 8:16], sharding)
        found = value_and_gradient(function, COLUMNS)(w)
    (_, moved), gradient = found
    # Twenty-five steps of products, in another order.
    np.testing.assert_allclose(moved, expected[0][1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=1e-11)
