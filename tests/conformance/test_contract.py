"""What optax asks of every transform, asked of every public one of ours."""

import inspect

import jax
import jax.numpy as jnp
import optax
import pytest
from optax._src import base

import psi_optax
from tests.conformance.checks import (
    abstract_step,
    assert_close,
    assert_differ,
    assert_dtypes_kept,
    assert_equal,
    dtypes,
    one_step,
)
from tests.registry import (
    ENTRIES,
    KINDS,
    draw,
    public_functions,
    public_transforms,
)

each_entry = pytest.mark.parametrize("name", ENTRIES)


# The registry.


def entered():
    return {entry.factory.__name__ for entry in ENTRIES.values()}


def test_every_public_transform_has_an_entry():
    assert public_transforms() == entered()
    assert len(entered()) >= 9


def test_every_public_function_says_what_it_returns():
    for name, function in public_functions().items():
        returns = inspect.signature(function).return_annotation
        assert returns is not inspect.Signature.empty, name


def named_tuples(tree):
    """The types of the named tuples that a state is made of."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if not isinstance(tree, tuple):
        return set()
    return {type(tree)}.union(*map(named_tuples, tree))


@pytest.mark.usefixtures("optax_promotion")
def test_the_kinds_have_every_kind_of_state():
    kinds = {
        name: named_tuples(jax.eval_shape(entry.build().init, draw(0)))
        for name, entry in ENTRIES.items()
    }
    assert set().union(*(kinds[name] for name in KINDS)) == set().union(
        *kinds.values()
    )


def defaults(function):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def test_nothing_decays_unless_it_is_asked_to():
    given = [defaults(f) for f in public_functions().values()]
    decays = [d["weight_decay"] for d in given if "weight_decay" in d]
    assert len(decays) > 3
    assert not any(decays)


@pytest.mark.parametrize("name", ["psi_adam", "adamp", "adamh"])
def test_moments_are_by_default_those_of_optax(name):
    ours = defaults(public_functions()[name])
    theirs = defaults(optax.adam)
    for moment in ["b1", "b2", "eps"]:
        assert ours[moment] == theirs[moment]


def test_a_transform_without_an_entry_would_be_seen(monkeypatch):
    def new() -> optax.GradientTransformation: ...

    monkeypatch.setattr(psi_optax, "new", new, raising=False)
    assert public_transforms() - entered() == {"new"}


@each_entry
def test_every_group_is_changed(entry, tx):
    """Otherwise nothing below would test anything."""
    params, gradient = draw(0), draw(1)
    state = tx.init(params)
    for _ in range(2):  # The second is when `rescale_weights` acts.
        updates, state = tx.update(gradient, state, params)
    for path in ["blocks", "vector", "hidden"]:
        if path in entry.idle:
            assert_close(updates[path], gradient[path])
        else:
            assert_differ(updates[path], gradient[path])


# The interface.


@each_entry
def test_arguments_have_the_names_of_optax(tx):
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    assert list(inspect.signature(tx.init).parameters) == ["params"]
    update = inspect.signature(tx.update).parameters
    assert list(update) == ["updates", "state", "params", "extra_args"]
    assert update["params"].default is None
    assert update["extra_args"].kind == inspect.Parameter.VAR_KEYWORD


@each_entry
def test_missing_params_are_the_error_of_optax(entry, tx):
    state = tx.init(draw(0))
    if not entry.needs_params:
        assert_equal(tx.update(draw(1), state), one_step(tx))
        return
    with pytest.raises(ValueError, match="params") as error:
        tx.update(draw(1), state)
    assert str(error.value) == base.NO_PARAMS_MSG


@each_entry
def test_unknown_extra_arguments_change_nothing(tx):
    assert_equal(one_step(tx, nobody_knows_this=jnp.ones(3)), one_step(tx))


# Types. These are known without computing anything.


@each_entry
def test_dtypes_are_kept(tx):
    # Leaf by leaf, below, there are all four.
    assert_dtypes_kept(tx, "bfloat16")


@each_entry
@pytest.mark.usefixtures("optax_promotion")
def test_wide_updates_of_narrow_weights_stay_wide(tx):
    params, state, *_ = abstract_step(tx, "bfloat16")
    gradient, *_ = abstract_step(tx, "float32")
    updates, _ = jax.eval_shape(tx.update, gradient, state, params)
    assert dtypes(updates) == dtypes(gradient)


@each_entry
@pytest.mark.usefixtures("x64")
def test_dtypes_are_kept_leaf_by_leaf(tx):
    tree = draw(0)
    tree["blocks"] = tree["blocks"].astype("bfloat16")
    tree["vector"] = tree["vector"].astype("float64")
    tree["head"]["bias"] = tree["head"]["bias"].astype("float16")
    tree["hidden"]["bias"] = tree["hidden"]["bias"].astype("float64")
    assert_dtypes_kept(tx, params=tree)


@each_entry
def test_the_state_is_named_tuples_of_arrays(tx):
    for state in tx.init(draw(0)), one_step(tx)[1]:
        assert is_named(state)
        assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))


def is_named(state):
    """Named, or a tuple of what is, as a chain's is."""
    return hasattr(state, "_fields") or (
        isinstance(state, tuple) and all(map(is_named, state))
    )


@each_entry
def test_the_state_keeps_its_type(tx):
    """Shapes, dtypes, weakness and sharding, as scan and cond demand."""
    before, after = tx.init(draw(0)), one_step(tx)[1]
    assert jax.tree.map(jax.typeof, before) == jax.tree.map(jax.typeof, after)


@each_entry
def test_scan_and_cond_take_the_state(tx):
    params, state, *_ = abstract_step(tx)

    def body(carry, flag):
        params, state = carry
        updates, state = jax.lax.cond(
            flag,
            lambda: tx.update(params, state, params),
            lambda: (params, state),
        )
        return (optax.apply_updates(params, updates), state), None

    flags = jax.ShapeDtypeStruct((3,), bool)
    carry, _ = jax.eval_shape(
        lambda *carry, flags: jax.lax.scan(body, carry, flags),
        params,
        state,
        flags=flags,
    )
    assert carry == (params, state)


def test_scan_would_not_take_a_state_that_changes():
    def scan():
        body = lambda x, _: (x.astype("float16"), None)  # noqa: E731
        return jax.lax.scan(body, jnp.ones(2), length=3)

    with pytest.raises(TypeError, match="carry"):
        jax.eval_shape(scan)


@each_entry
def test_the_state_is_known_from_shapes(tx):
    _, state, *_ = abstract_step(tx)
    assert state == jax.eval_shape(lambda: tx.init(draw(0)))


# Compilation.


@each_entry
def test_compiled_with_donated_arguments_and_not_compiled(tx):
    params = draw(0)
    state = jax.jit(tx.init)(params)
    assert_close(state, tx.init(params))
    given = jax.tree.map(jnp.copy, (draw(1), state))
    # What a monitor saw last is not read, but may be written over as well.
    update = jax.jit(tx.update, donate_argnums=(0, 1), keep_unused=True)
    compiled = update(*given, params)
    assert all(x.is_deleted() for x in jax.tree.leaves(given))
    assert_close(compiled, one_step(tx))
    assert_differ(compiled[0], one_step(tx, gradient=draw(2))[0])
