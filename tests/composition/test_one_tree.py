"""Several recipes in one tree, and parts of it that do not train."""

import jax
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from psi_optax._compat import enable_x64
from tests.registry import normal
from tests.theory.training import lenient, step, walk

pytestmark = pytest.mark.usefixtures("x64")

GROUPS = {
    "conv/kernel": ScaleGroup(axes=(0, 1, 2)),
    "attention/query": ScaleGroup(axes=0, tie="heads"),
    "attention/key": ScaleGroup(axes=0, tie="heads"),
    "norm": None,
    "head": None,
}
SHAPES = {
    "conv": {"kernel": (3, 3, 2, 4)},
    "attention": {"query": (6, 8), "key": (5, 8)},
    "norm": (4,),
    "head": (4, 3),
}


def draw(seed):
    return normal(seed, SHAPES)


START = draw(0)


def path(tx, params=START, pick=lambda tree: tree):
    """The weights after four steps along the same random gradients."""
    gradients = [pick(draw(seed)) for seed in range(1, 5)]
    return walk(tx, params, gradients, move=step)[0]


def assert_same(one, other):
    # Weights below 4, moved by steps below 1, four times, in another program:
    # thirty roundings of 4e-16 at the most.
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=3e-14),
        one,
        other,
    )


def apart(one, other):
    gaps = jax.tree.map(lambda x, y: np.abs(x - y).max(), one, other)
    return max(jax.tree.leaves(gaps))


# By label.

RECIPES = {
    "conv": psi_optax.psi_sgd(0.1, GROUPS, momentum=0.9),
    "attention": psi_optax.rotational(0.05, optax.trace(0.9), GROUPS),
    "rest": lenient(optax.adamw(0.01, weight_decay=0.1)),
}
LABELS = {
    "conv": "conv",
    "attention": "attention",
    "norm": "rest",
    "head": "rest",
}


def test_three_recipes_in_one_tree_are_three_trees():
    """All of them are given the groups of the whole."""
    together = path(optax.partition(RECIPES, LABELS))
    for label in RECIPES:
        keys = [key for key, value in LABELS.items() if value == label]

        def pick(tree, keys=keys):
            return {key: tree[key] for key in keys}

        groups = {
            name: group
            for name, group in GROUPS.items()
            if name.split("/")[0] in keys
        }
        recipe = {
            "conv": lambda g: psi_optax.psi_sgd(0.1, g, momentum=0.9),
            "attention": lambda g: psi_optax.rotational(
                0.05, optax.trace(0.9), g
            ),
            "rest": lambda _: RECIPES["rest"],
        }[label](groups)
        alone = path(recipe, pick(START), pick)
        for ours, theirs in zip(together, alone, strict=True):
            assert_same(pick(ours), theirs)
    # Labels the other way round: another run.
    other = {**LABELS, "conv": "attention", "attention": "conv"}
    assert apart(together[-1], path(optax.partition(RECIPES, other))[-1]) > 1e-2


# Parts that do not train.

MASK = {"conv": True, "attention": False, "norm": True, "head": False}
SGD = psi_optax.psi_sgd(0.1, GROUPS, momentum=0.9)
DECAYED = lenient(psi_optax.psi_adam(0.05, GROUPS, weight_decay=0.2))
FROZEN = {
    "behind": optax.chain(SGD, optax.freeze(MASK)),
    "in front": optax.chain(optax.freeze(MASK), SGD),
    "selective": optax.selective_transform(SGD, freeze_mask=MASK),
    "partition": optax.partition({True: optax.set_to_zero(), False: SGD}, MASK),
}


def frozen(tree):
    return {key: x for key, x in tree.items() if MASK[key]}


def trained(tree):
    return {key: x for key, x in tree.items() if not MASK[key]}


@pytest.fixture(scope="module")
def free():
    with enable_x64(True):
        return path(SGD)


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_weights_keep_every_bit_and_others_do_not_notice(name, free):
    for found, expected in zip(path(FROZEN[name]), free, strict=True):
        jax.tree.map(
            np.testing.assert_array_equal, frozen(found), frozen(START)
        )
        assert_same(trained(found), trained(expected))
    assert apart(frozen(free[-1]), frozen(START)) > 1e-2


def test_decay_moves_what_is_frozen_in_front():
    """A gradient of zero stops groups, not ordinary parameters with decay."""
    behind = path(optax.chain(DECAYED, optax.freeze(MASK)))[-1]
    front = path(optax.chain(optax.freeze(MASK), DECAYED))[-1]
    np.testing.assert_array_equal(
        front["conv"]["kernel"], START["conv"]["kernel"]
    )
    np.testing.assert_allclose(front["norm"], 0.99**4 * START["norm"])
    np.testing.assert_array_equal(behind["norm"], START["norm"])


def test_a_head_that_is_not_trained():
    tx = psi_optax.psi_sgd(
        0.1, GROUPS, momentum=0.9, ordinary=optax.set_to_zero()
    )
    found = path(tx)[-1]
    for key in ("norm", "head"):
        np.testing.assert_array_equal(found[key], START[key])
    assert apart(found["conv"], START["conv"]) > 1e-2
