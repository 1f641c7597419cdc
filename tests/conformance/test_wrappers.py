"""optax's own wrappers around every public transform."""

import jax
import jax.numpy as jnp
import optax
import pytest

from psi_optax import psi_sgd
from tests.conformance.checks import (
    abstract_step,
    assert_close,
    assert_differ,
    assert_dtypes_kept,
    assert_equal,
    one_step,
)
from tests.registry import ENTRIES, GROUPS, KINDS, draw

each_entry = pytest.mark.parametrize("name", ENTRIES)
each_kind = pytest.mark.parametrize("name", KINDS)

# Wrappers are the same for all: their numbers are looked at for these.
some_entries = pytest.mark.parametrize(
    "name", ["retract", "rescale_weights", "psi_adam", "psi_sgdm"]
)

MASK = {"hidden": True, "blocks": True, "vector": False, "head": False}


def kept(tree):
    return {path: x for path, x in tree.items() if MASK[path]}


def with_holes(tree, hole):
    return {path: x if MASK[path] else hole for path, x in tree.items()}


def assert_same(entry):
    """Equality, as far as other leaves do not change the rounding of one."""
    return assert_close if entry.whole else assert_equal


# Holes.


@each_kind
def test_masked(entry, tx):
    updates, _ = one_step(optax.masked(tx, MASK))
    assert_same(entry)(updates, {**draw(1), **kept(one_step(tx)[0])})


@each_kind
def test_partition(entry, tx):
    labels = {path: "ours" if ours else "sgd" for path, ours in MASK.items()}
    both = optax.partition({"ours": tx, "sgd": optax.sgd(0.5)}, labels)
    updates, _ = one_step(both)
    halved = jax.tree.map(lambda x: -0.5 * x, draw(1))
    assert_same(entry)(updates, {**halved, **kept(one_step(tx)[0])})


@each_kind
@pytest.mark.parametrize("hole", [optax.MaskedNode(), None], ids=type)
def test_masked_nodes_and_none(entry, tx, hole):
    params, gradient = with_holes(draw(0), hole), with_holes(draw(1), hole)
    updates, _ = one_step(tx, params, gradient)
    assert_same(entry)(updates, with_holes(one_step(tx)[0], hole))


# Hyperparameters.


@each_entry
def test_inject_hyperparams(entry, tx):
    updates, state = one_step(entry.injected())
    expected, expected_state = one_step(tx)
    # A number that became an array is rounded before it is used.
    assert_close(updates, expected)
    assert_close(state.inner_state, expected_state)


@each_entry
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_injected_hyperparams_keep_dtypes(entry, dtype):
    assert_dtypes_kept(entry.injected(), dtype)


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize(
    "name", [name for name, entry in ENTRIES.items() if entry.by_leaf]
)
def test_injected_hyperparams_keep_dtypes_leaf_by_leaf(entry):
    tree = draw(0)
    tree["blocks"] = tree["blocks"].astype("bfloat16")
    tree["head"]["bias"] = tree["head"]["bias"].astype("bfloat16")
    assert_dtypes_kept(entry.injected(), params=tree)


def test_an_injected_rate_is_the_rate():
    tx = optax.inject_hyperparams(psi_sgd)(0.1, GROUPS, momentum=0.9)
    state = tx.init(draw(0))
    state.hyperparams["learning_rate"] = jnp.asarray(0.3)
    updates, _ = tx.update(draw(1), state, draw(0))
    assert_close(updates, one_step(psi_sgd(0.3, GROUPS, momentum=0.9))[0])
    assert_differ(updates, one_step(psi_sgd(0.1, GROUPS, momentum=0.9))[0])


# Accumulation and errors.


@each_kind
@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_multi_steps_and_apply_if_finite_keep_types(tx, dtype):
    for wrapped in optax.MultiSteps(tx, 2), optax.apply_if_finite(tx, 2):
        assert_dtypes_kept(wrapped, dtype)


@some_entries
@pytest.mark.usefixtures("optax_promotion")
def test_multi_steps(tx):
    many = optax.MultiSteps(tx, every_k_schedule=2)
    params, state = draw(0), many.init(draw(0))
    update = jax.jit(many.update)
    updates, state = update(draw(1), state, params)
    assert_equal(updates, jax.tree.map(jnp.zeros_like, params))
    updates, state = update(draw(2), state, params)
    mean = jax.tree.map(lambda x, y: (x + y) / 2, draw(1), draw(2))
    assert_close(updates, one_step(tx, gradient=mean)[0])
    assert_close(state.inner_opt_state, one_step(tx, gradient=mean)[1])
    assert_differ(updates, one_step(tx, gradient=draw(2))[0])


@some_entries
def test_apply_if_finite(tx):
    wrapped = optax.apply_if_finite(tx, max_consecutive_errors=2)
    params, state = draw(0), wrapped.init(draw(0))
    update = jax.jit(wrapped.update)
    bad = {**draw(1), "vector": jnp.full(5, jnp.nan)}
    updates, state = update(bad, state, params)
    assert_equal(updates, jax.tree.map(jnp.zeros_like, params))
    assert_equal(state.inner_state, tx.init(params))
    updates, state = update(draw(1), state, params)
    assert_close(updates, one_step(tx)[0])
    assert_close(state.inner_state, one_step(tx)[1])


# State.


@each_kind
def test_map_params_of_nothing_changes_nothing(tx):
    _, state = one_step(tx)
    assert_equal(optax.tree.map_params(tx, lambda x: x, state), state)


@each_entry
def test_map_params_finds_what_is_like_params(entry, tx):
    params, state, *_ = abstract_step(tx)
    found = optax.tree.map_params(
        tx,
        lambda _, spec: spec,
        state,
        jax.tree.map(lambda x: f"like {x.shape}", params),
        transform_non_params=lambda _: "other",
        is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )
    kinds = jax.tree.leaves(found)
    like = [kind for kind in kinds if kind != "other"]
    assert len(like) == entry.trees * len(jax.tree.leaves(params))
    if entry.trees:
        assert set(like) == {"like (6, 4)"} | {
            f"like {x.shape}" for x in jax.tree.leaves(params)
        }


@each_kind
def test_named_chain(tx):
    named = optax.named_chain(("halve", optax.scale(0.5)), ("ours", tx))
    updates, state = one_step(named)
    half = jax.tree.map(lambda x: 0.5 * x, draw(1))
    expected, expected_state = one_step(tx, gradient=half)
    assert_equal(updates, expected)
    assert_equal(state["ours"], expected_state)
