"""The analysis through loops, branches, calls and devices."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from psi_optax import ScaleGroup, find_groups
from tests.invariance.losses import shapes, unit

X = shapes(x=(8, 4))["x"]


def groups(loss, params, *args):
    report = find_groups(loss, params, *args, method="analysis")
    return report.groups_for(params)


def test_a_scan_whose_carry_scales_from_turn_to_turn():
    def loss(params, x):
        def layer(x, w):
            return x @ w, None

        x, _ = jax.lax.scan(layer, x, params["stack"])
        return jnp.sum(jnp.tanh(unit(x, 1)))

    # Each matrix scales by itself in truth; the loop's body is one for all.
    assert groups(loss, shapes(stack=(3, 4, 4)), X)["stack"] is None


def test_a_carry_that_begins_with_zeros_scales_with_what_is_added():
    def loss(params, x):
        y = x @ params["w"]
        total, _ = jax.lax.scan(lambda c, r: (c + r, None), jnp.zeros(5), y)
        return jnp.sum(jnp.tanh(unit(total, 0)))

    assert groups(loss, shapes(w=(4, 5)), X)["w"] == ScaleGroup((0, 1))


@pytest.mark.parametrize("needed", [False, True])
def test_outputs_of_a_loop_count_where_they_are_needed(needed):
    def loss(params, x):
        def turn(c, w):
            return c + jnp.sum(jnp.tanh(unit(w, 0))), w

        total, rows = jax.lax.scan(turn, 0.0, params["w"])
        return total + jnp.sum(rows) if needed else total

    found = groups(loss, shapes(w=(3, 4)), X)["w"]
    assert found == (None if needed else ScaleGroup(1))


def test_while_loops():
    def loss(params, x, end):
        y = unit(x @ params["w"], 1)

        def body(carry):
            count, y = carry
            return count + 1, unit(y + x[:, :3], 1)

        _, y = jax.lax.while_loop(lambda c: c[0] < 3, body, (0, y))
        return jnp.sum(jnp.tanh(y)) + 0 * end

    params = shapes(w=(4, 3))
    end = jax.ShapeDtypeStruct((), jnp.float32)
    assert groups(loss, params, X, end)["w"] == ScaleGroup((0, 1))

    def until(params, x, end):
        y = x @ params["w"]
        y = jax.lax.while_loop(
            lambda y: jnp.sum(y * y) > end, lambda y: y / 2, y
        )
        return jnp.sum(jnp.tanh(unit(y, 1)))

    assert groups(until, params, X, end)["w"] is None


@pytest.mark.parametrize("same", [True, False])
def test_branches(same):
    def loss(params, x, which):
        y = x @ params["w"]
        y = jax.lax.cond(
            which > 0, lambda y: 2 * y, lambda y: y if same else y * y, y
        )
        return jnp.sum(jnp.tanh(unit(y, 1)))

    which = jax.ShapeDtypeStruct((), jnp.int32)
    found = groups(loss, shapes(w=(4, 3)), X, which)["w"]
    assert (found is not None) == same


def sharded(body, *in_specs):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.shard_map(body, mesh=mesh, in_specs=in_specs, out_specs=P())


def test_a_norm_over_shards():
    def body(w, x):
        norm = jnp.sqrt(jax.lax.psum(jnp.sum(w * w, axis=0), "d"))
        y = jax.lax.psum(x @ (w / norm[None]), "d")
        return jnp.sum(jnp.tanh(y))

    run = sharded(body, P("d"), P(None, "d"))
    found = groups(lambda p, x: run(p["w"], x), shapes(w=(4, 3)), X)
    assert found["w"] == ScaleGroup(0)

    def unshared(w, x):
        y = unit(w, 0)
        return jax.lax.psum(jnp.sum(jnp.tanh(jnp.sum(x) * y)), "d")

    # Each shard is normalized by itself: blocks, of eight rows in four.
    run = sharded(unshared, P("d"), P(None, "d"))
    found = groups(lambda p, x: run(p["w"], x), shapes(w=(8, 3)), X)
    assert found["w"] == ScaleGroup(0, blocks={0: 4})


def test_lookups_on_many_devices():
    def body(table, rows):
        mean = jax.lax.psum(jnp.mean(table[rows], axis=0), "d")
        return jnp.sum(jnp.tanh(unit(mean, 0)))

    run = sharded(body, P(), P("d"))
    rows = jax.ShapeDtypeStruct((8,), jnp.int32)
    found = groups(lambda p, r: run(p["table"], r), shapes(table=(6, 3)), rows)
    assert found["table"] == ScaleGroup((0, 1))


@pytest.mark.parametrize(
    ("axis", "expected"),
    [(2, [ScaleGroup((0, 1))] * 2), (1, [ScaleGroup(0, tie="a")] * 2)],
)
def test_stacked_parts_keep_their_own_scales(axis, expected):
    def loss(params, x):
        both = jnp.stack([x @ params["a"], x @ params["b"]], axis=1)
        return jnp.sum(jnp.tanh(unit(both, axis)))

    found = groups(loss, shapes(a=(4, 3), b=(4, 3)), X)
    assert list(found.values()) == expected
