"""Integers while tracing, and trees that do not fit each other."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.conformance.checks import one_step
from tests.faults.cases import INTEGERS, ODD_GRADIENTS
from tests.registry import ENTRIES, GROUPS, draw

each_entry = pytest.mark.parametrize("name", ENTRIES)


@pytest.mark.parametrize("name", ["psi_adam", "psi_sgdm", "sgdp", "muonh"])
def test_gradients_of_integers_while_tracing(entry):
    params = {**draw(0), "integers": INTEGERS}
    tx = entry.build({**GROUPS, "integers": None})

    def loss(params):
        return sum(
            jnp.sum(x * x)
            for x in jax.tree.leaves(params)
            if jnp.issubdtype(x.dtype, jnp.floating)
        )

    def step(params, state):
        gradient = jax.grad(loss, allow_int=True)(params)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    after, new_state = jax.eval_shape(step, params, state)
    assert jax.tree.map(of_type, after) == jax.tree.map(of_type, params)
    assert jax.tree.map(of_type, new_state) == jax.tree.map(of_type, state)


def of_type(x):
    return x.shape, x.dtype


def test_optax_itself_makes_floats_of_integers():
    # The control, and why they are hidden from what is inside.
    tx, params = optax.sgd(0.5), {"step": jnp.asarray(INTEGERS["step"])}
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = one_step(tx, params, {"step": jnp.array([4, 4, 4])})
        after = optax.apply_updates(params, updates)
    assert updates["step"].dtype == np.float32
    assert np.all(after["step"] != INTEGERS["step"])
    float0 = {"step": ODD_GRADIENTS["integers"]["step"]}
    with pytest.raises(TypeError):
        one_step(tx, params, float0)
    with pytest.raises(TypeError, match="float0"):
        optax.apply_updates(params, float0)


# Errors. Nothing is computed.


def error_of(what, *args, **kwargs):
    """What tracing a call raises."""
    with pytest.raises((ValueError, TypeError)) as error:
        jax.eval_shape(what, *args, **kwargs)
    return f"{error.type.__name__}: {error.value}"


GROUPED = [name for name, entry in ENTRIES.items() if entry.takes_groups]
each_grouped = pytest.mark.parametrize("name", GROUPED)


@each_grouped
def test_groups_of_no_real_numbers(tx):
    for dtype in "int32", "bool", "complex64":
        params = {**draw(0), "vector": jnp.ones(5, dtype)}
        says(
            error_of(tx.init, params),
            *("TypeError", "'vector'", "(5,)", "axes=(0,)", dtype, "None"),
        )


@each_grouped
def test_groups_of_another_model(tx):
    params = {"encoder": jnp.ones((3, 2)), "head": draw(0)["head"]}
    says(
        error_of(tx.init, params),
        *("ValueError", "'encoder'", "(3, 2)", "None", "'blocks'", "{1: 2}"),
    )
    less = {path: x for path, x in draw(0).items() if path != "blocks"}
    says(
        error_of(tx.init, less),
        *("ValueError", "'blocks'", "{1: 2}", "'head/", "another tree"),
    )
    params = {**draw(0), "blocks": jnp.ones((3, 7))}
    says(
        error_of(tx.init, params),
        *("ValueError", "'blocks'", "(3, 7)", "{1: 2}", "axis 1", "length 7"),
    )


def says(message, *words):
    """Require words in a message, in this order."""
    pattern = ".*".join(map(re.escape, words))
    assert re.search(pattern, message, re.DOTALL), message


REMEDY = "same structure and shapes as params"
WRONG = {
    "a group is missing": (
        lambda u: {path: x for path, x in u.items() if path != "blocks"},
        ["updates", "nothing", "'blocks'", "params", "shape (3, 8)"],
    ),
    "an ordinary one is missing": (
        lambda u: {**u, "head": {"kernel": u["head"]["kernel"]}},
        ["updates", "nothing", "'head/bias'", "params", "shape (2,)"],
    ),
    "one too many": (
        lambda u: {**u, "statistics": jnp.ones(4)},
        ["updates", "shape (4,)", "'statistics'", "params", "nothing"],
    ),
    "a group of another shape": (
        lambda u: {**u, "vector": jnp.ones((5, 1))},
        ["updates", "shape (5, 1)", "'vector'", "params", "shape (5,)"],
    ),
    "an ordinary one of another shape": (
        lambda u: {**u, "head": {**u["head"], "bias": jnp.ones(())}},
        ["updates", "shape ()", "'head/bias'", "params", "shape (2,)"],
    ),
    "of another structure": (
        lambda u: {**u, "vector": (u["vector"], u["vector"])},
        ["updates", "nothing", "'vector'", "params", "shape (5,)"],
    ),
}


@each_entry
def test_updates_that_are_not_like_params(tx):
    params = draw(0)
    state = jax.eval_shape(tx.init, params)
    for change, text in WRONG.values():
        message = error_of(tx.update, change(draw(1)), state, params)
        says(message, "ValueError", *text, REMEDY)


@pytest.mark.parametrize(
    "name", [name for name in GROUPED if not ENTRIES[name].needs_params]
)
def test_updates_that_do_not_fit_groups_without_params(tx):
    change, _ = WRONG["a group is missing"]
    state = jax.eval_shape(tx.init, draw(0))
    message = error_of(tx.update, change(draw(1)), state)
    says(message, "ValueError", "'blocks'", "{1: 2}", "another tree")


# Whose state has a number for each group.
KEEPING = [
    *("retract", "psi", "psi_whole", "psi_sgd", "psi_adam", "psi_sgdm"),
    *("sgd_g", "adam_g", "rotational"),
    *("scale_by_group_rms", "scale_by_group_adam"),
]


@pytest.mark.parametrize("name", KEEPING)
def test_a_state_of_another_model(tx):
    wider = {"kernel": jnp.ones((6, 5)), "bias": jnp.ones(5)}
    state = jax.eval_shape(tx.init, {**draw(0), "hidden": wider})
    message = error_of(tx.update, draw(1), state, draw(0))
    says(
        message,
        *("ValueError", "state", "hidden/bias", "(5,)", "(4,)", "init(params)"),
    )
