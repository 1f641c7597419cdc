"""The analysis through loops, branches, calls and devices."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from psi_optax import ScaleGroup, find_groups

X = jax.ShapeDtypeStruct((8, 4), jnp.float32)


def shapes(**params):
    return {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in params.items()}


def groups(loss, params, *args):
    report = find_groups(loss, params, *args, method="analysis")
    return report.groups_for(params)


def unit(x, axis):
    return x / jnp.sqrt(jnp.sum(x * x, axis=axis, keepdims=True))


def test_a_scan_over_stacked_layers():
    def loss(params, x):
        def layer(x, w):
            return unit(jnp.maximum(x @ w, 0), 1), None

        x, _ = jax.lax.scan(layer, x, params["stack"])
        return jnp.sum(jnp.tanh(x))

    params = shapes(stack=(3, 4, 4))
    assert groups(loss, params, X)["stack"] == ScaleGroup((1, 2))


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


def test_outputs_of_a_loop_that_nobody_needs_do_not_count():
    def loss(params, x):
        def turn(c, w):
            return c + jnp.sum(jnp.tanh(unit(w, 0))), w

        total, _ = jax.lax.scan(turn, 0.0, params["w"])
        return total

    assert groups(loss, shapes(w=(3, 4)), X)["w"] == ScaleGroup(1)

    # The control: it does where it is needed.
    def needing(params, x):
        total, all_ = jax.lax.scan(
            lambda c, w: (c + jnp.sum(jnp.tanh(unit(w, 0))), w),
            0.0,
            params["w"],
        )
        return total + jnp.sum(all_)

    assert groups(needing, shapes(w=(3, 4)), X)["w"] is None


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


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, jax.vmap])
def test_calls(wrap):
    def loss(params, x):
        def per_row(r):
            return jnp.tanh(unit(r @ params["w"], -1))

        rows = wrap(per_row) if wrap is jax.vmap else jax.vmap(wrap(per_row))
        return jnp.sum(rows(x))

    assert groups(loss, shapes(w=(4, 3)), X)["w"] == ScaleGroup((0, 1))


def test_custom_derivatives():
    @jax.custom_jvp
    def f(x):
        return jnp.maximum(x, 0)

    f.defjvp(lambda x, t: (f(*x), t[0]))

    @jax.custom_vjp
    def g(x):
        return 2 * x

    g.defvjp(lambda x: (g(x), None), lambda _, t: (t,))

    def loss(params, x):
        return jnp.sum(jnp.tanh(unit(g(f(x @ params["w"])), 1)))

    assert groups(loss, shapes(w=(4, 3)), X)["w"] == ScaleGroup((0, 1))


def sharded(body, in_specs):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    return functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=in_specs,
        out_specs=P(),
    )(body)


def test_a_norm_over_shards():
    def body(w, x):
        norm = jnp.sqrt(jax.lax.psum(jnp.sum(w * w, axis=0), "d"))
        y = jax.lax.psum(x @ (w / norm[None]), "d")
        return jnp.sum(jnp.tanh(y))

    run = sharded(body, (P("d"), P(None, "d")))
    found = groups(lambda p, x: run(p["w"], x), shapes(w=(4, 3)), X)
    assert found["w"] == ScaleGroup(0)

    def unshared(w, x):
        y = unit(w, 0)
        return jax.lax.psum(jnp.sum(jnp.tanh(jnp.sum(x) * y)), "d")

    # Each shard is normalized by itself: blocks, of eight rows in four.
    run = sharded(unshared, (P("d"), P(None, "d")))
    found = groups(lambda p, x: run(p["w"], x), shapes(w=(8, 3)), X)
    assert found["w"] == ScaleGroup(0, blocks={0: 4})


def test_lookups_on_many_devices():
    def body(table, rows):
        mean = jax.lax.psum(jnp.mean(table[rows], axis=0), "d")
        return jnp.sum(jnp.tanh(unit(mean, 0)))

    run = sharded(body, (P(), P("d")))
    rows = jax.ShapeDtypeStruct((8,), jnp.int32)
    found = groups(lambda p, r: run(p["table"], r), shapes(table=(6, 3)), rows)
    assert found["table"] == ScaleGroup((0, 1))


def test_stacked_parts_keep_their_own_scales():
    def loss(params, x):
        both = jnp.stack([x @ params["a"], x @ params["b"]], axis=1)
        return jnp.sum(jnp.tanh(unit(both, 2)))

    found = groups(loss, shapes(a=(4, 3), b=(4, 3)), X)
    assert found == {"a": ScaleGroup((0, 1)), "b": ScaleGroup((0, 1))}

    def joint(params, x):
        both = jnp.stack([x @ params["a"], x @ params["b"]], axis=1)
        return jnp.sum(jnp.tanh(unit(both, 1)))

    found = groups(joint, shapes(a=(4, 3), b=(4, 3)), X)
    assert found["a"] == found["b"] == ScaleGroup(0, tie="a")
