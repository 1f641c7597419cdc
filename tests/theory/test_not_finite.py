"""A gradient that is not finite spoils its own group and no other.

Only the inner optimizer may carry it further, as clipping by a global norm
does: those here treat every element, or every group, by itself.
"""

import functools

import jax
import numpy as np
import optax
import pytest

import psi_optax
from tests.theory.networks import mixed_network
from tests.theory.training import first_update, lenient

SEPARATE = {
    "sgd": lambda g: psi_optax.psi(optax.sgd(0.1), g),
    "momentum": lambda g: psi_optax.psi_sgd(0.1, g, momentum=0.9),
    "exponential": lambda g: psi_optax.psi_sgd(
        0.1, g, retraction="exponential"
    ),
    "additive": lambda g: psi_optax.psi_sgd(0.1, g, retraction=None),
    "adam": lambda g: lenient(psi_optax.psi_adam(0.1, g)),
    "psi_sgdm": lambda g: psi_optax.psi_sgdm(0.1, g),
    "sgd_g": lambda g: psi_optax.sgd_g(0.1, g),
    "adam_g": lambda g: lenient(psi_optax.adam_g(0.1, g)),
    "rotational": lambda g: psi_optax.rotational(0.1, optax.trace(0.9), g),
    "hyperball": lambda g: psi_optax.hyperball(
        0.1, optax.trace(0.9), g, per_tensor=False
    ),
    "sgdp": lambda g: psi_optax.sgdp(0.1, g),
    "parts": lambda g: optax.chain(
        psi_optax.scale_by_group_norm(g),
        psi_optax.clip_by_group_norm(g, 1.0),
        optax.sgd(0.1),
        psi_optax.scale_by_group_norm(g),
        psi_optax.project_to_tangent(g),
        psi_optax.retract(g),
    ),
}
# Path, index and group of an element of a column, of a kernel and a bias that
# are tied, and of a block.
PLACES = [
    (("batch",), (3, 5), 5),
    (("layer", "kernel"), (2, 2), 16),
    (("layer", "bias"), (4,), 16),
    (("group",), (0, 7), 18),
]


def places():
    for place in PLACES:
        for value in (np.nan, np.inf, -np.inf):
            yield *place, value


def spoiled(tree, path, index, value):
    """A copy of the tree with one element replaced."""
    tree = jax.tree.map(np.copy, tree)
    leaf = functools.reduce(lambda node, key: node[key], path, tree)
    leaf[index] = value
    return tree


def clean_gradient(problem):
    random = np.random.RandomState(0)
    return jax.tree.map(
        lambda x: (0.1 * random.normal(size=x.shape)).astype(x.dtype),
        problem.params,
    )


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("name", SEPARATE)
def test_only_its_own_group_is_spoiled(name):
    problem = mixed_network(1, dtype=np.float32)
    tx, clean = SEPARATE[name](problem.groups), clean_gradient(problem)
    expected = flat(first_update(tx, clean, problem.params))
    numbers = flat(problem.ids)
    assert np.isfinite(expected).all()
    for path, index, group, value in places():
        gradient = spoiled(clean, path, index, value)
        updates = flat(first_update(tx, gradient, problem.params))
        own = numbers == group
        assert np.array_equal(updates[~own], expected[~own])
        assert not np.isfinite(updates[own]).all()
        assert not np.any(updates[own] == expected[own])


def test_every_weight_of_the_group_is_spoiled():
    # By psi: the norm of the step is a sum over the tied leaves.
    problem = mixed_network(1, dtype=np.float32)
    clean = clean_gradient(problem)
    numbers = flat(problem.ids)
    tx = SEPARATE["momentum"](problem.groups)
    for path, index, group, value in places():
        gradient = spoiled(clean, path, index, value)
        updates = flat(first_update(tx, gradient, problem.params))
        assert not np.isfinite(updates[numbers == group]).any()


def test_ordinary_gradient_spoils_no_group():
    problem = mixed_network(1, dtype=np.float32)
    tx, clean = SEPARATE["momentum"](problem.groups), clean_gradient(problem)
    gradient = spoiled(clean, ("head", "kernel"), (0, 0), np.nan)
    expected = flat(first_update(tx, clean, problem.params))
    updates = flat(first_update(tx, gradient, problem.params))
    grouped = flat(problem.ids) >= 0
    assert np.isnan(updates[~grouped]).sum() == 1
    assert np.array_equal(updates[grouped], expected[grouped])


def test_global_clip_inside_spoils_everything():
    # The control: here the inner optimizer mixes the groups.
    problem = mixed_network(1, dtype=np.float32)
    tx = psi_optax.psi(
        optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1)),
        problem.groups,
    )
    gradient = spoiled(clean_gradient(problem), ("batch",), (3, 5), np.nan)
    updates = flat(first_update(tx, gradient, problem.params))
    assert not np.isfinite(updates).any()
