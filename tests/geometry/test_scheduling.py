"""Directions that wait for each other: the same bits, less memory."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export
from jax.sharding import AxisType

import psi_optax
from psi_optax import (
    ScaleGroup,
    geometry,
    hyperball,
    psi,
    psi_direction,
    psi_sgd,
    psi_sgdm,
    rotational,
)
from psi_optax.geometry import _scheduling
from psi_optax.groups import make_plan
from psi_optax.transforms import normalize_by_group_norm, retract
from tests.compilation import needs_bounded_memory

LEAVES, SHAPE = 8, (256, 256)


@pytest.fixture
def alone(monkeypatch):
    """As if the process had one device: tests have eight."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("done", [-1.0, 1.0, np.nan, np.inf])
def test_waiting_changes_no_bit(alone, dtype, done):
    x = jnp.asarray([0.0, -0.0, np.inf, -np.inf, 1e-3, -7, 65504], dtype)
    done = jnp.full((3,), done, jnp.float32)
    waited = jax.jit(_scheduling.after)(x, done)
    assert waited.tobytes() == x.tobytes()
    assert jnp.isnan(jax.jit(_scheduling.after)(x * jnp.nan, done)).all()


def test_waiting_has_the_derivative_of_doing_nothing(alone):
    x, done = jnp.asarray([2.0, -3.0, 1.0]), jnp.ones(2)
    slope = jax.jit(jax.jacfwd(_scheduling.after))(x, done)
    np.testing.assert_array_equal(slope, np.eye(3))


def test_only_traced_directions_that_end_with_the_step_wait(alone):
    w = {"a": jnp.ones(3), "b": jnp.ones(3)}
    plan = make_plan(GROUPS, w)
    ordered = lambda d, **options: _scheduling.measure_sequentially(  # noqa: E731
        plan, w, d, geometry.step_sums, **options
    )[0]
    assert ordered(w) is w

    @jax.jit
    def waits(d):
        alive = ordered(d, live=[d["b"]])
        assert alive["b"] is d["b"]
        assert ordered(d)["b"] is not d["b"]
        return alive

    assert waits(w)["a"].tobytes() == w["a"].tobytes()


@pytest.mark.parametrize("devices", [1, 8])
def test_the_sums_of_all_parts_are_those_of_the_whole(monkeypatch, devices):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    w = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones((4, 3))}
    tied = {"a": ScaleGroup(0), "b": ScaleGroup(0, tie="b"), "c": None}
    tied["c"] = ScaleGroup((), tie="b")
    w["c"] = jnp.asarray([1.0, -2.0, 3.0])
    plan = make_plan(tied, w)
    expected = geometry.step_sums(plan, w, w)

    @jax.jit
    def measured(d):
        return _scheduling.measure_sequentially(plan, w, d, geometry.step_sums)[
            1
        ]

    # Sums of a few small whole numbers, which are exact.
    jax.tree.map(np.testing.assert_array_equal, measured(w), expected)
    assert type(expected) is geometry.StepSums


def test_knowing_all_at_once_changes_no_bit():
    x = {"a": jnp.asarray([0.0, -0.0, np.inf, 1e-40]), "b": jnp.float16(3)}
    found = jax.jit(_scheduling.barrier)(x)
    assert found.keys() == x.keys()
    for name in x:
        assert found[name].tobytes() == x[name].tobytes()
    assert _scheduling.barrier(x) is x  # Nothing is sent outside of jit.
    slope = jax.jit(jax.jacfwd(lambda s: _scheduling.barrier({"a": s})["a"]))
    np.testing.assert_array_equal(slope(jnp.ones(2)), np.eye(2))


def temporaries(tx):
    """How many leaves' worth of temporaries a compiled step has."""
    w = {str(i): jnp.ones(SHAPE) for i in range(LEAVES)}

    def step(w, state, g):
        u, state = tx.update(g, state, w)
        return optax.apply_updates(w, u), state

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(w, tx.init(w), w)
    memory = lowered.compile().memory_analysis()
    return memory.temp_size_in_bytes / w["0"].nbytes


GROUPS = ScaleGroup(axes=0)


@needs_bounded_memory
@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("inner", [optax.sgd(0.1, 0.9), optax.adam(0.1)])
def test_an_optimizers_directions_do_not_exist_all_at_once(alone, inner):
    # One that is being used and one that is being made, and some vectors.
    assert temporaries(psi(inner, GROUPS)) < 2.5


@needs_bounded_memory
@pytest.mark.usefixtures("optax_promotion")
def test_updates_that_are_retracted_do_not_exist_all_at_once(alone):
    assert temporaries(optax.chain(optax.adam(0.1), retract(GROUPS))) < 2.5


def test_they_do_where_nothing_waits():
    assert temporaries(psi(optax.sgd(0.1, 0.9), GROUPS)) >= LEAVES
    assert temporaries(optax.chain(optax.sgd(0.1), retract(GROUPS))) > 2.5


@needs_bounded_memory
def test_momentum_is_never_copied(alone):
    assert temporaries(psi_sgd(0.1, GROUPS, momentum=0.9)) < 0.5
    # Nesterov's direction is not the buffer.
    nesterov = psi_sgd(0.1, GROUPS, momentum=0.9, nesterov=True)
    assert temporaries(nesterov) > 0.5


@needs_bounded_memory
@pytest.mark.parametrize("recipe", [rotational, hyperball])
def test_the_length_of_a_step_is_set_without_a_copy(alone, recipe):
    assert temporaries(recipe(0.1, optax.trace(0.9), GROUPS)) < 0.5
    # As a transform of its own.
    normalized = optax.chain(optax.trace(0.9), normalize_by_group_norm(GROUPS))
    assert temporaries(psi_direction(0.1, normalized, GROUPS)) > 0.5


@needs_bounded_memory
def test_the_sum_that_is_retracted_is_not_written(alone):
    # The buffer of the momentum is the step, without a copy of either.
    assert temporaries(psi_sgdm(0.1, GROUPS)) < 0.5
    # A step that is not kept is written, and the sum is not.
    alone_step = optax.chain(optax.sgd(0.1, 0.9), retract(GROUPS))
    assert 0.5 < temporaries(alone_step) < 1.5


def run(tx, steps=5):
    draw = np.random.default_rng(0)
    w = {"a": draw.normal(size=(9, 4)), "b": draw.normal(size=(5, 4))}
    w = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), w)

    @jax.jit
    def step(w, state):
        g = jax.tree.map(jnp.sin, w)
        u, state = tx.update(g, state, w)
        return optax.apply_updates(w, u), state

    state = tx.init(w)
    for _ in range(steps):
        w, state = step(w, state)
    return w


@pytest.mark.usefixtures("optax_promotion")
def test_the_step_is_the_same(monkeypatch):
    tx = psi(optax.adam(0.1), GROUPS)
    together = run(tx)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    in_turn = run(tx)
    # The compiler may contract other products and sums: a rounding a step.
    for path, x in together.items():
        np.testing.assert_allclose(in_turn[path], x, rtol=0, atol=2e-6)
    assert np.max(np.abs(run(tx, 6)["a"] - together["a"])) > 1e-3


def one_step(tx):
    """From weights to weights, with a state of their own."""

    def step(w):
        u, _ = tx.update(jax.tree.map(jnp.sin, w), tx.init(w), w)
        return optax.apply_updates(w, u)

    return step


def in_vmap(step, w):
    twice = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), w)
    return jax.tree.map(lambda x: x[0], jax.vmap(step)(twice))


def in_scan(step, w):
    return jax.lax.scan(lambda w, _: (step(w), None), w, None, length=1)[0]


def in_shard_map(step, w):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Explicit,))
    spec = jax.sharding.PartitionSpec()
    return jax.shard_map(step, mesh=mesh, in_specs=spec, out_specs=spec)(w)


def exported(step, w):
    platforms = "cpu", "cuda", "tpu"
    return export.export(jax.jit(step), platforms=platforms)(w).call(w)


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("way", [in_vmap, in_scan, in_shard_map, exported])
def test_waiting_composes(alone, way):
    draw = np.random.default_rng(0).normal(size=(2, 9, 4))
    w = {
        name: jnp.asarray(x, jnp.float32)
        for name, x in zip("ab", draw, strict=True)
    }
    step = one_step(psi(optax.adam(0.1), GROUPS))
    expected = jax.jit(step)(w)
    got = jax.jit(lambda w: way(step, w))(w)
    # Weights of less than 4, a few roundings of which may differ.
    assert_near = np.testing.assert_allclose
    jax.tree.map(lambda x, y: assert_near(x, y, atol=2e-6), got, expected)
    assert np.max(np.abs(got["b"] - w["b"])) > 0.01


def test_what_is_not_finite_stays_where_it_is(alone):
    w = {name: jnp.ones((3, 2)) for name in "abc"}
    g = {**w, "b": w["b"].at[0, 0].set(jnp.nan)}
    tx = psi(optax.sgd(0.1, 0.9), GROUPS)
    u, _ = jax.jit(tx.update)(g, tx.init(w), w)
    assert jnp.isnan(u["b"]).all(0).tolist() == [True, False]
    assert not jnp.isnan(u["a"]).any()
    assert not jnp.isnan(u["c"]).any()


SPECIAL = [0.0, -0.0, np.inf, -np.inf, 1e-3, -7, 65504]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_computing_once_changes_no_bit(dtype):
    x = jnp.asarray(SPECIAL, dtype)
    w = jnp.asarray([1, -2, 0, 3e4, 1e-4, -0.0, 5], dtype)
    once = jax.jit(_scheduling.computed_once)(x, w)
    assert once.tobytes() == x.tobytes()
    [again] = jax.jit(_scheduling.once_per_group)([x], [w])
    assert again.tobytes() == x.tobytes()
    assert jnp.isnan(jax.jit(_scheduling.computed_once)(x * jnp.nan, w)).all()


def test_computing_once_has_the_derivative_of_doing_nothing():
    x = jnp.asarray([2.0, -3.0, 0.0])
    slopes = jax.jit(jax.jacfwd(_scheduling.computed_once, (0, 1)))(x, x)
    np.testing.assert_array_equal(slopes[0], np.eye(3))
    np.testing.assert_array_equal(slopes[1], np.zeros((3, 3)))
    [slope] = jax.jit(jax.jacfwd(_scheduling.once_per_group))([x], [x])
    np.testing.assert_array_equal(slope[0], np.eye(3))


@needs_bounded_memory
@pytest.mark.parametrize("name", ["sgd_g", "adam_g"])
@jax.numpy_dtype_promotion("standard")
def test_momentum_takes_the_place_of_the_last(name):
    """No temporary array is of the size of the weights, or a tenth of it."""
    w = {"x": jnp.ones(SHAPE)}
    make = {"sgd_g": psi_optax.sgd_g, "adam_g": psi_optax.adam_g}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tx = make(1e-3, ScaleGroup(axes=0))
        state = tx.init(w)
    assert temporary_leaves(tx, w, state) < 0.1

    def twice(updates, state, params):
        """Control: the same with the update in use beside the weights."""
        updates, new = tx.update(updates, state, params)
        halved = jax.tree.map(lambda u: jnp.sort(u, axis=0), updates)
        return halved, new

    wasteful = optax.GradientTransformation(tx.init, twice)
    assert temporary_leaves(wasteful, w, state) > 0.9


def temporary_leaves(tx, w, state):
    """Temporary memory of a step in place, in arrays like the weights."""

    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(w, state, w)
    memory = lowered.compile().memory_analysis()
    return memory.temp_size_in_bytes / w["x"].nbytes
