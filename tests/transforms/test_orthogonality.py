"""The penalty on groups that are not orthogonal, against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from tests.columns import COLUMNS, unit
from tests.compilation import quick_jit
from tests.theory.networks import (
    bn_mlp,
    mixed_network,
)
from tests.theory.training import first_update, step, walk

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("make", [bn_mlp, mixed_network])
def test_orthogonality_is_the_gradient_of_its_penalty(make):
    problem = make(1)
    tx = psi_optax.transforms.add_orthogonality(0.3, problem.groups)
    zeros = jax.tree.map(np.zeros_like, problem.params)
    got = first_update(tx, zeros, problem.params)
    gradient = quick_jit(jax.grad(lambda p: 0.3 * penalty(p, problem.ids)))
    expected = gradient(problem.params)
    # Sums of up to 160 products of numbers of about 1.
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-14),
        got,
        expected,
    )
    assert max(np.abs(x).max() for x in jax.tree.leaves(got)) > 0.01


def penalty(params, ids):
    """1/2 |Y'Y - I|^2 layer by layer, from the numbers of the groups."""
    total = 0.0
    for layer in ("first", "second", "batch", "layer", "group"):
        if layer not in params:
            continue
        w = [x.ravel() for x in jax.tree.leaves(params[layer])]
        numbers = [i.ravel() for i in jax.tree.leaves(ids[layer])]
        w, numbers = jnp.concatenate(w), np.concatenate(numbers)
        # The elements of each group in order, one column a group.
        order = [np.flatnonzero(numbers == n) for n in np.unique(numbers)]
        y = jnp.stack([w[i] for i in order], axis=1)
        y = y / jnp.sqrt((y**2).sum(0, keepdims=True))
        total += ((y.T @ y - jnp.eye(y.shape[1])) ** 2).sum() / 2
    return total


def test_orthogonality_makes_columns_orthogonal():
    w = np.random.RandomState(0).normal(size=(8, 4))
    tx = optax.chain(
        psi_optax.transforms.add_orthogonality(0.1, COLUMNS),
        psi_optax.psi_sgd(1.0, COLUMNS),
    )
    path, _ = walk(tx, w, 100 * [np.zeros_like(w)], move=step)
    v = unit(path[-1])
    off = np.abs(v.T @ v - np.eye(4)).max()
    # Linear convergence, by 1 - 4 * 0.1 a step near the end.
    assert off < 1e-12
    assert np.abs(unit(w).T @ unit(w) - np.eye(4)).max() > 0.3


def test_orthogonality_of_nothing():
    params = {"none": np.zeros((3, 0)), "w": np.ones((3, 2))}
    tx = psi_optax.transforms.add_orthogonality(
        1.0, dict.fromkeys(params, COLUMNS)
    )
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["none"].shape == (3, 0)
    assert np.isfinite(updates["w"]).all()
