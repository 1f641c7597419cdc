"""Curvature of sharded weights: the answer of one device, and its shardings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from psi_optax import ScaleGroup
from psi_optax.landscape import (
    dataset_hessian,
    eigenpairs,
    gradient_noise,
    hessian,
    loss_surface,
    tangent_space,
    trace,
)
from tests.devices.meshes import make_mesh

pytestmark = pytest.mark.usefixtures("x64")

GROUPS = {"kernel": ScaleGroup(0), "head": None}
SPECS = {
    "kernel": {"fan_in": ("d", None), "outputs": (None, "d")},
    "head": {"fan_in": ("d", None), "outputs": ("d", None)},
}
KEY = jax.random.key(3)


def loss(params, x):
    z = x @ params["kernel"]
    z = z / jnp.sqrt((z * z).mean(0, keepdims=True))
    return ((jnp.tanh(z) @ params["head"] - 1) ** 2).mean()


def draw(*shape):
    return jnp.array(np.random.RandomState(len(shape)).normal(size=shape))


@pytest.mark.parametrize("axis", ["fan_in", "outputs"])
def test_sharded_weights_have_the_curvature_of_one_device(axis):
    params = {"kernel": draw(16, 8), "head": draw(8, 2)}
    x = jnp.array(np.random.RandomState(0).normal(size=(32, 16)))
    mesh = make_mesh("auto")
    placed = {
        name: jax.device_put(
            w, NamedSharding(mesh, PartitionSpec(*SPECS[name][axis]))
        )
        for name, w in params.items()
    }

    def top(params):
        curvature = hessian(loss, params, x, groups=GROUPS)
        return eigenpairs(curvature, KEY, num_matvecs=10)

    def measures(params):
        curvature = hessian(loss, params, x, groups=GROUPS)
        space = tangent_space(params, GROUPS)
        data = dataset_hessian(loss, params, [(x,)], groups=GROUPS)
        u = space.random(KEY)
        yield jax.jit(top)(params).values
        yield top(params).residuals
        yield eigenpairs(data, KEY, num_matvecs=10).values
        yield trace(curvature, KEY, num_probes=2).value
        yield loss_surface(
            loss, params, x, directions=[u], steps=[0.1], groups=GROUPS
        )
        yield gradient_noise(loss, params, [(x,), (2 * x,)], groups=GROUPS)
        yield space.size

    # Sums over devices are rounded in another order.
    for one, many in zip(measures(params), measures(placed), strict=True):
        np.testing.assert_allclose(many, one, rtol=1e-9, atol=1e-12)
    curvature = hessian(loss, placed, x, groups=GROUPS)
    u = curvature.space.random(KEY)
    kernel = curvature.matvec(u)["kernel"]
    assert kernel.sharding.is_equivalent_to(placed["kernel"].sharding, 2)
    # The control: other weights have another curvature.
    other = {**placed, "kernel": jnp.roll(placed["kernel"], 1, axis=0)}
    assert abs(top(other).values[0] / top(placed).values[0] - 1) > 0.01
