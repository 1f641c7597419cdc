"""Errors that docs/faq.md quotes: each is provoked, and its text compared."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

import psi_optax
from psi_optax import ScaleGroup, find_groups

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "faq.md"

ERRORS = ValueError, TypeError, UserWarning

PARAMS = {"kernel": jnp.eye(4) + 1.0, "head": jnp.ones((4, 2))}
GROUPS = {"kernel": ScaleGroup(axes=0), "head": None}
X = jax.random.normal(jax.random.key(0), (8, 4))
GENERATOR = np.random.default_rng(0)


def loss_fn(params, x):
    x = jnp.tanh(jax.nn.standardize(x @ params["kernel"], axis=0))
    return jnp.mean((x @ params["head"] - 1) ** 2)


def noisy_loss(params, x):
    """Return a loss that a call of numpy changes, as unfixed dropout does."""
    shape = jax.ShapeDtypeStruct((), x.dtype)
    noise = jax.pure_callback(
        lambda: np.asarray(GENERATOR.normal(), x.dtype), shape
    )
    return loss_fn(params, x) + noise


def joint_report():
    """Return a report with a kernel and a bias that are tied."""
    params = {"kernel": jnp.eye(4) + 1.0, "bias": jnp.ones(4)}

    def loss(params, x):
        x = jax.nn.standardize(x @ params["kernel"] + params["bias"], axis=1)
        return jnp.mean(jnp.tanh(x) @ jnp.arange(4.0))

    return find_groups(loss, params, X)


def update(tx, updates, state=None):
    """Take a step of a transform, at PARAMS."""
    return tx.update(updates, state or tx.init(PARAMS), PARAMS)


SGD = optax.sgd(0.1)
PSI = psi_optax.psi(SGD, GROUPS)
MISNAMED = {"kernels": ScaleGroup(0), "kernel": None, "head": None}

# In the order of the table, which does not count.
PROVOCATIONS = (
    lambda: psi_optax.psi_adam(0.5, GROUPS).init(PARAMS),
    lambda: psi_optax.psi(SGD, {"kernel": None, "head": None}).init(PARAMS),
    lambda: psi_optax.psi(optax.trace(0.9), GROUPS).init(PARAMS),
    lambda: psi_optax.psi_direction(0.1, SGD, GROUPS).init(PARAMS),
    lambda: psi_optax.psi(SGD, {"kernel": ScaleGroup(0)}).init(PARAMS),
    lambda: psi_optax.psi(SGD, MISNAMED).init(PARAMS),
    lambda: psi_optax.psi(GROUPS, SGD),
    lambda: find_groups(loss_fn, linen.Dense(4), X),
    lambda: find_groups(loss_fn, PARAMS, X, has_aux=True),
    lambda: find_groups(noisy_loss, PARAMS, X),
    lambda: find_groups(loss_fn, PARAMS, X * jnp.nan),
    lambda: psi_optax.check_groups(
        loss_fn, PARAMS, {"kernel": ScaleGroup(1), "head": None}, X
    ),
    lambda: psi_optax.psi(SGD, find_groups(loss_fn, PARAMS, X)).init(
        {**PARAMS, "kernel": jnp.ones((4, 5))}
    ),
    lambda: joint_report().select("kernel"),
    lambda: joint_report().select("kern"),
    lambda: PSI.update(PARAMS, PSI.init(PARAMS)),
    lambda: update(PSI, {**PARAMS, "head": jnp.ones(3)}),
    lambda: psi_optax.rotational(0.01, optax.trace(0.9), GROUPS).init(PARAMS),
    lambda: psi_optax.psi(optax.contrib.cocob(), GROUPS).init(PARAMS),
    lambda: psi_optax.psi_adam(0.01, GROUPS, ordinary=SGD, weight_decay=0.1),
    lambda: update(PSI, PARAMS, optax.adam(0.1).init(PARAMS)),
    lambda: psi_optax.diagnostics.read_monitor(PSI.init(PARAMS)),
)


def quoted(text):
    """Return the quotations in the table of a page."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def begins_with(quotation):
    """Return a pattern of messages; `...` stands for any text."""
    parts = map(re.escape, quotation.split("..."))
    return re.compile(".*?".join(parts), re.DOTALL)


def message_of(provocation):
    """Return the text of an error or a warning, which the tests make one."""
    with pytest.raises(ERRORS) as caught:
        provocation()
    return str(caught.value)


def unmatched(quotations, messages):
    """Return what has no partner: of messages, and of quotations."""
    pairs = [
        (quotation, message)
        for quotation in quotations
        for message in messages
        if begins_with(quotation).match(message)
    ]
    return (
        [x for x in messages if [m for _, m in pairs].count(x) != 1],
        [x for x in quotations if [q for q, _ in pairs].count(x) != 1],
    )


@pytest.fixture(scope="module")
def messages():
    with jax.numpy_dtype_promotion("standard"):
        return [message_of(provocation) for provocation in PROVOCATIONS]


def test_each_error_of_the_table_has_the_text_that_it_quotes(messages):
    quotations = quoted(PAGE.read_text(encoding="utf-8"))
    assert len(quotations) > 15
    assert unmatched(quotations, messages) == ([], [])


def test_a_stale_quotation_is_found(messages):
    quotations = quoted(PAGE.read_text(encoding="utf-8"))
    stale = "an old text, " + quotations[0]
    found = unmatched([stale, *quotations[1:]], messages)
    assert found[1] == [stale]
    assert len(found[0]) == 1


def test_three_dots_stand_for_any_text_and_nothing_stands_in_front():
    assert begins_with("a=... is `b").match("a={'x': 1} is `b` of c")
    assert not begins_with("is `b").match("a={'x': 1} is `b` of c")
