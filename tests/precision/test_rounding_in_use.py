"""Stochastic rounding around psi and in optax's company.

Its bits depend on key, step and place alone: compiled or not, on one device or
eight, after a checkpoint, at any scale of the weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from psi_optax import ScaleGroup, psi_sgd
from psi_optax.wrappers import master_weights, stochastic_rounding
from tests.compilation import quick_jit
from tests.conformance.checks import assert_equal
from tests.theory.training import scan, to_numpy

# Two leaves of the same weights, of which neither dtype nor place is the same
# as that of any other; and what is not rounded.
GROUPS = {
    "first": ScaleGroup(axes=0),
    "second": ScaleGroup(axes=0),
    "half": ScaleGroup(axes=0),
    "single": ScaleGroup(axes=0),
    "ordinary": None,
}
NARROW = ("first", "second", "half")
SHAPE = (16, 8)
# A group has a norm of about 4, and so has its gradient: it turns by 16 times
# this in a step, and with momentum by 160 times in four. Spacings of bfloat16
# are 4e-3 to 8e-3 of a weight, those of float16 an eighth of that.
RATE = 3e-6


def tree(seed):
    """Weights, or gradients."""
    random = np.random.RandomState(seed)
    same, half, single = random.normal(size=(3, *SHAPE))
    return {
        "first": same.astype(jnp.bfloat16),
        "second": same.astype(jnp.bfloat16),
        "half": half.astype(np.float16),
        "single": single.astype(np.float32),
        "ordinary": random.normal(size=5).astype(np.float32),
    }


def around_psi(key=0):
    """Steps that hardly any weight is moved by when rounded to nearest."""
    return stochastic_rounding(psi_sgd(RATE, GROUPS, momentum=0.9), key)


def gradients(count=4):
    return jax.tree.map(lambda *x: np.stack(x), *map(tree, range(1, 1 + count)))


def run(tx, params, state, gradients):
    """Weights and state after all steps."""
    return scan(
        tx, lambda _, gradient: gradient, params, gradients, state=state
    )


quick_run = quick_jit(run, static_argnums=0)
TX = around_psi()

each_wrapper = pytest.mark.parametrize(
    "wrap", [lambda tx: stochastic_rounding(tx, 0), master_weights]
)


def start(tx, params):
    return jax.tree.map(jnp.asarray, (params, tx.init(params)))


def differ(a, b):
    return np.mean(np.asarray(a) != np.asarray(b))


def test_steps_that_are_lost_to_nearest_are_taken():
    after, _ = quick_run(TX, *start(TX, tree(0)), gradients())
    nearest = psi_sgd(RATE, GROUPS, momentum=0.9)
    rounded, _ = quick_run(nearest, *start(nearest, tree(0)), gradients())
    for name in NARROW:
        assert after[name].dtype == tree(0)[name].dtype
        # Weights that are small beside their steps move in any case.
        moved = differ(after[name], tree(0)[name])
        assert moved > 0.1
        assert differ(rounded[name], tree(0)[name]) < moved / 2
    # Leaves of the same weights and gradients are drawn apart.
    assert differ(after["first"], after["second"]) > 0.05
    assert_equal(rounded["first"], rounded["second"])
    # Other leaves are the inner optimizer's.
    for name in "single", "ordinary":
        assert_equal(after[name], rounded[name])


def test_the_state_is_of_float32():
    state = TX.init(tree(0))
    kinds = {x.dtype.name for x in jax.tree.leaves(state.inner)}
    assert kinds == {"float32", "int32"}  # The latter is a counter.


def test_bits_depend_on_key_and_step_alone():
    def step(seed, count):
        tx = stochastic_rounding(optax.scale(1e-3), seed)
        state = tx.init(tree(0))._replace(count=count)
        return tx.update(tree(1), state, tree(0))[0]["first"]

    step = quick_jit(jax.vmap(step))
    drawn = np.asarray(
        step(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 0])), np.float32
    )
    assert np.array_equal(drawn[0], drawn[1])
    # A step is about a sixth of a spacing: one draw in four is another.
    assert differ(drawn[0], drawn[2]) > 0.1
    assert differ(drawn[0], drawn[3]) > 0.1


def test_a_seed_and_its_key_are_the_same():
    params, gradient = tree(0)["first"], tree(1)["first"]

    @quick_jit
    def steps(seed, key):
        wraps = [stochastic_rounding(optax.scale(1e-3), k) for k in (seed, key)]
        return [tx.update(gradient, tx.init(params), params) for tx in wraps]

    by_seed, by_key = steps(3, jax.random.key(3))
    assert_equal(by_key, by_seed)
    other, _ = steps(np.uint8(4), jax.random.key(3))
    assert differ(other[0], by_key[0]) > 0.1


def test_eight_devices_draw_what_one_draws():
    # One step of an inner optimizer that sums nothing: the same to the bit.
    tx = stochastic_rounding(optax.scale(1e-3), 0)
    params, gradient = {"w": tree(0)["first"]}, {"w": tree(1)["first"]}
    state = tx.init(params)
    one, _ = jax.jit(tx.update)(gradient, state, params)
    for axis_type in jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit:
        mesh = Mesh(np.array(jax.devices()), ("d",), axis_types=(axis_type,))
        with jax.set_mesh(mesh):
            sharded = NamedSharding(mesh, PartitionSpec("d"))
            args = jax.device_put((gradient, params), sharded)
            update = jax.jit(lambda g, w: tx.update(g, state, w)[0])
            compiled = update.lower(*args).compile()
            assert_equal(jax.device_get(compiled(*args)), jax.device_get(one))
        # Each device makes the bits of its own shard.
        text = compiled.as_text()
        assert f"u32[{SHAPE[0] // 8},{SHAPE[1]}]" in text
        assert f"u32[{SHAPE[0]},{SHAPE[1]}]" not in text
        assert "all-gather" not in text


def test_shards_draw_alike_unless_told_not_to():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    shards = PartitionSpec("d")
    w = jnp.ones((8 * 64,), jnp.bfloat16)

    def step(w):
        key, place = jax.random.key(0), jax.lax.axis_index("d")
        alike = stochastic_rounding(optax.scale(1e-3), key)
        apart = stochastic_rounding(
            optax.scale(1e-3), jax.random.fold_in(key, place)
        )
        return [tx.update(w, tx.init(w), w)[0] for tx in (alike, apart)]

    alike, apart = quick_jit(
        jax.shard_map(step, mesh=mesh, in_specs=shards, out_specs=shards)
    )(w)
    first, *others = np.split(np.asarray(alike), 8)
    assert np.any(first)
    assert all(np.array_equal(first, other) for other in others)
    first, *others = np.split(np.asarray(apart), 8)
    assert not any(np.array_equal(first, other) for other in others)


def scaled(params, power):
    """Groups multiplied by powers of two; the ordinary parameter is not."""
    factors = 2.0 ** np.array(power)
    return {
        name: (x * factors.astype(x.dtype)).astype(x.dtype)
        if GROUPS[name]
        else x
        for name, x in params.items()
    }


def test_scales_do_not_matter_to_the_last_bit():
    # float16 has no room for more.
    power = np.array([-6, -3, -1, 0, 1, 2, 3, 5])
    last, _ = quick_run(TX, *start(TX, tree(0)), gradients())
    others = [scaled(tree(s), -power) for s in range(1, 5)]
    others = jax.tree.map(lambda *x: np.stack(x), *others)
    moved, _ = quick_run(TX, *start(TX, scaled(tree(0), power)), others)
    assert_equal(to_numpy(moved), scaled(to_numpy(last), power))
    # The control: without psi, a step depends on the scale.
    plain = stochastic_rounding(optax.sgd(1e-3), 0)
    last, _ = quick_run(plain, *start(plain, tree(0)), gradients())
    moved, _ = quick_run(plain, *start(plain, scaled(tree(0), power)), others)
    assert differ(moved["first"], scaled(to_numpy(last), power)["first"]) > 0.1


def test_norms_stay_where_rounding_leaves_them():
    # Nothing adds up: psi corrects the norm at each step, in float32, and what
    # is left is the rounding of one step. A spacing is up to 2^-7 of a weight
    # (bfloat16) or 2^-10 (float16), and rounding up or down has a deviation of
    # up to half of it; of 16 independent weights, the norm's is a fourth of a
    # weight's. Five of those, for 8 groups at 20 times.
    first = tree(0)
    last, _ = quick_run(TX, *start(TX, first), gradients(20))
    for name in NARROW:
        eps = float(jnp.finfo(first[name].dtype).eps)
        begun = np.linalg.norm(first[name].astype(np.float64), axis=0)
        norm = np.linalg.norm(np.asarray(last[name], np.float64), axis=0)
        assert np.all(np.abs(norm / begun - 1) < 5 * eps / 2 / 4)


# In the company of optax.


def test_injected_hyperparams_inside_and_around():
    inside = stochastic_rounding(
        optax.inject_hyperparams(psi_sgd, static_args="groups")(
            RATE, GROUPS, momentum=0.9
        ),
        0,
    )
    last, state = quick_run(inside, *start(inside, tree(0)), gradients())
    assert set(state.inner.hyperparams) == {"learning_rate", "momentum"}
    # Of bfloat16 and float16, optax knows no wider one.
    around = optax.inject_hyperparams(
        stochastic_rounding, hyperparam_dtype=jnp.float32
    )(psi_sgd(RATE, GROUPS, momentum=0.9), key=0)
    other, state = quick_run(around, *start(around, tree(0)), gradients())
    # The key is a number like others; there it may be changed.
    assert state.hyperparams["key"].dtype == jnp.int32
    expected, _ = quick_run(TX, *start(TX, tree(0)), gradients())
    assert_equal(other, expected)
    # A rate that is an array is rounded to the same float32.
    for name in NARROW:
        assert differ(last[name], expected[name]) < 0.02


@each_wrapper
def test_steps_are_accumulated_in_float32_inside(wrap):
    # Of 1 and three times 2^-10, which bfloat16 cannot add to it.
    values = np.array([[1], [2**-10], [2**-10], [2**-10]], jnp.bfloat16)
    params = np.zeros(1, jnp.bfloat16)
    inside = optax.MultiSteps(optax.trace(0.0), 4).gradient_transformation()
    inside, around = wrap(inside), optax.MultiSteps(wrap(optax.trace(0.0)), 4)

    @quick_jit
    def states(values):
        return [
            run(tx, *start(tx, params), values)[1] for tx in (inside, around)
        ]

    with jax.numpy_dtype_promotion("standard"):
        inner, outer = states(values)
    mean = (1 + 3 * 2**-10) / 4
    # The running mean is rounded to 2^-24 four times.
    found = inner.inner.inner_opt_state.trace.item()
    assert abs(found - mean) < 4 * 2.0**-24
    lost = outer.inner_opt_state.inner.trace.item()
    assert abs(lost - mean) > 2.0**-12


# Errors.


@each_wrapper
@pytest.mark.parametrize("hole", [None, optax.MaskedNode()], ids=type)
def test_weights_without_a_gradient_stay(wrap, hole):
    tx, params = wrap(optax.sgd(0.5)), {"a": tree(0)["first"], "b": 2.0}
    gradient = {"a": hole, "b": jnp.float32(1.0)}
    updates, _ = tx.update(gradient, tx.init(params), params)
    assert updates == {"a": hole, "b": -0.5}
    gradient = {"a": tree(1)["first"], "b": hole}
    updates, _ = tx.update(gradient, tx.init(params), params)
    assert updates["b"] is hole
    assert np.any(updates["a"] != 0)


@each_wrapper
def test_lookahead_inside_is_refused(wrap):
    tx = wrap(optax.lookahead(optax.sgd(0.1), 2, 0.5))
    pair = optax.LookaheadParams.init_synced({"a": tree(0)["first"]})
    with pytest.raises(ValueError, match="LookaheadState"):
        tx.init(pair)
