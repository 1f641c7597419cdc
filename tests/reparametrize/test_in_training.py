"""Runs on raw weights: where a reparametrization matters, and where psi."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, joint_groups, normalize, psi_sgd
from psi_optax.reparametrize import (
    Reparametrized,
    centered,
    orthogonal,
    standardized,
    unit,
    weight_normalization,
)
from psi_optax.transforms import rescale_weights
from tests.reparametrize.problem import COLUMNS, draw

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")

STEPS = 20


def start():
    return {"k": draw(6, 5), "head": draw(5, 3, seed=1)}


def inputs():
    return draw(16, 6, seed=2), jnp.arange(16) % 3


def cross_entropy(logits):
    labels = inputs()[1]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()


def plain(params):
    return cross_entropy(
        jax.nn.relu(inputs()[0] @ params["k"]) @ params["head"]
    )


def with_batch_norm(params):
    h = inputs()[0] @ params["k"]
    h = h - h.mean(axis=0, keepdims=True)
    h = h / jnp.sqrt(jnp.mean(h * h, axis=0, keepdims=True))
    return cross_entropy(jax.nn.relu(h) @ params["head"])


def run(loss, params, tx):
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        gradient = jax.grad(loss)(params)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(STEPS):
        params, state = step(params, state)
    return params


def difference(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(jnp.abs(x - y).max()) for x, y in pairs)


SGD = optax.sgd(0.1, momentum=0.9)


def test_weight_normalization_changes_nothing_in_front_of_batch_norm():
    groups = {"k": COLUMNS, "head": None}
    wn = weight_normalization(groups)
    raw = wn.init(start())
    last = run(lambda r: with_batch_norm(wn.apply(r)), raw, SGD)
    expected = run(with_batch_norm, start(), SGD)
    # Twenty steps of momentum, which grows the rounding of each.
    assert difference(last.weights, expected) < 1e-12
    assert difference(last.gains, raw.gains) < 1e-13
    assert difference(expected, start()) > 0.1
    # Without that layer gains and directions move otherwise.
    last = run(lambda r: plain(wn.apply(r)), raw, SGD)
    assert difference(last.gains, raw.gains) > 0.01
    assert difference(wn.apply(last), run(plain, start(), SGD)) > 0.01


FUNCTIONS = {
    "unit": (unit, COLUMNS),
    "centered": (centered, COLUMNS),
    "standardized": (standardized, COLUMNS),
    "orthogonal": (
        orthogonal,
        joint_groups(COLUMNS).groups_for(draw(6, 5))[""],
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_scale_of_raw_weights_has_no_effect_on_psi(name):
    function, group = FUNCTIONS[name]
    groups = {"k": COLUMNS, "head": None}

    def loss(params):
        return plain(function(params, groups))

    def changed(tx):
        small, large = start(), {**start(), "k": 8 * start()["k"]}
        ends = [function(run(loss, p, tx), groups) for p in (small, large)]
        assert difference(ends[0], function(small, groups)) > 0.01
        return difference(*ends)

    tx = psi_sgd(0.1, {"k": group, "head": None}, ordinary=SGD)
    assert changed(tx) == 0
    assert changed(SGD) > 1e-3


def test_a_mean_of_raw_weights_slows_centered_ones():
    """Of n weights: by 1 + n mean^2 / |rest|^2, the square of the radius."""
    groups = {"k": COLUMNS, "head": None}
    tx = psi_sgd(0.1, groups, ordinary=SGD)

    def changed(prepare):
        shifted = {**start(), "k": start()["k"] + 2}
        ends = [
            run(lambda p: plain(centered(p, groups)), prepare(p), tx)
            for p in (start(), shifted)
        ]
        return difference(*[centered(end, groups) for end in ends])

    assert changed(lambda p: p) > 0.01
    prepared = changed(lambda p: normalize(p, groups, centered=True))
    # Rounding of the means at the start, after twenty steps.
    assert prepared < 1e-12


def test_projection_based_weight_normalization():
    """Weights are divided by their norms after each step, as in EDM2."""
    groups = {"k": COLUMNS, "head": None}
    tx = optax.chain(optax.sgd(0.1), rescale_weights(groups, radius=1.0))
    first = normalize(start(), groups)

    def loss(params):
        return plain(unit(params, groups))

    got, by_hand = run(loss, first, tx), first
    for _ in range(STEPS):
        gradient = jax.grad(loss)(by_hand)
        moved = jax.tree.map(lambda w, g: w - 0.1 * g, by_hand, gradient)
        norms = jnp.linalg.norm(moved["k"], axis=0, keepdims=True)
        by_hand = {**moved, "k": moved["k"] / norms}
    assert difference(got, by_hand) < 1e-14
    free = run(loss, first, optax.sgd(0.1))
    assert np.linalg.norm(free["k"], axis=0).max() > 1.001
    assert difference(got, free) > 1e-4


def test_raw_weights_are_a_tree_like_any_other():
    """They pass through jit, vmap and checkpoints of trees."""
    wn = weight_normalization(ScaleGroup(0))
    raw = wn.init(draw(6, 5))
    leaves, structure = jax.tree.flatten(raw)
    assert isinstance(jax.tree.unflatten(structure, leaves), Reparametrized)
    stacked = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), raw)
    both = jax.jit(jax.vmap(wn.apply))(stacked)
    assert difference(both[0], wn.apply(raw)) < 1e-15
    assert difference(both[1], 2 * wn.apply(raw)) < 1e-15
