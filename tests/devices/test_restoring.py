"""A state on another mesh, as in docs/fine-tuning.md: the run goes on."""

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from psi_optax import psi_adam, psi_direction
from psi_optax.diagnostics import monitor_groups, read_monitor
from psi_optax.optimizers import carry_moments
from psi_optax.transforms import scale_by_group_adam
from tests.compilation import quick_jit
from tests.devices.network import (
    GROUPS,
    distance,
    loss,
    make_batch,
    make_params,
    step,
    tolerance,
)

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")

STEPS = 3
TX = optax.chain(
    psi_direction(0.03, scale_by_group_adam(GROUPS), GROUPS),
    monitor_groups(GROUPS),
)
MESHES = {(4,): ("column",), (2, 2): ("row", "column")}


def shardings_of(tx, params, mesh):
    """As in the page."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda x: x.sharding if x.committed else everywhere, tx.init(params)
    )


def make_mesh(shape, axis_type=AxisType.Auto):
    names = MESHES[shape]
    return jax.make_mesh(
        *(shape, names),
        axis_types=(axis_type,) * len(names),
        devices=jax.devices()[: np.prod(shape)],
    )


def spread(params, mesh):
    """Weights with their last axis on columns, the others on rows, if any."""

    def sharding(x):
        rows = [None] * (x.ndim - 1)
        if rows and "row" in mesh.axis_names:
            rows[0] = "row"
        return NamedSharding(mesh, PartitionSpec(*rows, "column"))

    return jax.device_put(params, jax.tree.map(sharding, params))


@quick_jit
def move(params, state, batch):
    return step(TX)(jax.grad(loss)(params, batch), state, params)


def train(params, state):
    batch = jax.device_get(make_batch("float64"))
    for _ in range(STEPS):
        params, state = jax.block_until_ready(move(params, state, batch))
    return params, state


def through_orbax(state, shardings, folder):
    """Restore a state into shardings, from which it did not come."""
    target = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=sharding
        ),
        state,
        shardings,
    )
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state", target)


def test_a_run_goes_on_from_one_device_to_four_to_two_by_two(tmp_path):
    params = make_params("float64")
    alone = moved = train(params, TX.init(params))
    for shape in MESHES:
        mesh = make_mesh(shape)
        params = spread(jax.device_get(moved[0]), mesh)
        shardings = shardings_of(TX, params, mesh)
        if len(shape) == 1:
            state = through_orbax(moved[1], shardings, tmp_path)
        else:
            state = jax.device_put(moved[1], shardings)
        check_places(state, params)
        jax.tree.map(np.testing.assert_array_equal, state, moved[1])
        anew = train(params, jax.device_put(TX.init(params), shardings))
        alone, moved = train(*alone), train(params, state)
        # Fewer steps than those of this tolerance, on as many devices or fewer.
        assert distance(moved[0], jax.device_get(alone[0])) < tolerance(
            "float64"
        )
        # Without the moments.
        assert distance(anew[0], jax.device_get(alone[0])) > 1e-3
        for name, value in read_monitor(alone[1]).items():
            found = read_monitor(moved[1])[name]
            # In float32: two roundings of each.
            assert found == pytest.approx(value, rel=4 * 2.0**-24, abs=1e-12)


def check_places(state, params):
    """Moments are where weights are, radii where columns are."""
    psi = state[0]
    moments = psi.inner.inner_states["scale"].inner_state.mu
    for x, w in zip(
        jax.tree.leaves(moments["batch"]),
        jax.tree.leaves(params["batch"]),
        strict=True,
    ):
        assert x.sharding.is_equivalent_to(w.sharding, x.ndim)
        assert not x.sharding.is_fully_replicated
    assert psi.radius["batch/kernel"].sharding.spec == PartitionSpec("column")
    kernel = params["batch"]["kernel"]
    for x in jax.tree.leaves(state):
        assert x.sharding.device_set == kernel.sharding.device_set


def test_scalars_that_are_left_on_one_device_are_refused():
    """They must go everywhere, as the page says."""
    params = make_params("float64")
    mesh = make_mesh((4,))
    spread_out = spread(params, mesh)
    state = jax.tree.map(
        lambda old, new: jax.device_put(old, new.sharding),
        TX.init(params),
        TX.init(spread_out),
    )
    with pytest.raises(ValueError, match="incompatible devices"):
        train(spread_out, state)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_moments_of_one_device_continue_on_four(axis_type):
    params, tx = make_params("float64"), psi_adam(0.01, GROUPS)
    old = jax.tree.map(np.ones_like, optax.adamw(0.01).init(params))
    expected, _ = carry_moments(old, tx.init(params), params, GROUPS)
    there = spread(params, make_mesh((2, 2), axis_type))
    fresh = tx.init(there)
    found, _ = carry_moments(old, fresh, there, GROUPS)
    pairs = zip(*map(jax.tree.leaves, (found, fresh)), strict=True)
    assert all(x.sharding == like.sharding for x, like in pairs)
    # Squares of norms, which are sums of up to 792 terms in another order.
    assert distance(found.inner[0].nu, expected.inner[0].nu) < 792 * 2.0**-53
    assert distance(expected.inner[0].nu, old[0].nu) > 0.5
