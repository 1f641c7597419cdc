"""`monitor_groups` inside shard_map sees all shards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from psi_optax import ScaleGroup
from psi_optax.diagnostics import monitor_groups, read_monitor
from tests.compilation import quick_jit
from tests.devices.meshes import make_mesh
from tests.theory.training import scan


def draw(seed):
    w = np.random.RandomState(seed).normal(size=(16, 8))
    return jnp.asarray(w * np.geomspace(0.1, 10, 8), jnp.float32)


@pytest.mark.parametrize(
    ("spec", "group"),
    [
        (PartitionSpec(None, "d"), ScaleGroup(0)),
        (PartitionSpec("d"), ScaleGroup(0, axis_name="d")),
        (PartitionSpec(), ScaleGroup(0)),
    ],
)
def test_all_shards_are_seen(spec, group):
    tx = monitor_groups(group, learning_rate=0.1, degree=-1)
    w, u = draw(0), 0.1 * draw(1)

    def two_steps(w, u):
        return scan(tx, lambda *_: u, w, length=2)[1]

    expected = read_monitor(jax.jit(two_steps)(w, u))
    sharded = jax.shard_map(
        two_steps,
        mesh=make_mesh("auto"),
        in_specs=(spec, spec),
        out_specs=PartitionSpec(),
    )
    got = read_monitor(quick_jit(sharded)(w, u))
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        # Sums of 16 and of 8 numbers, in another order.
        np.testing.assert_allclose(got[key], value, rtol=1e-5)
    # Not those of one shard.
    assert got["norm_max/"] > 20 * got["norm_min/"]
