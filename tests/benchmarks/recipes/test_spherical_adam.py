"""AdamSRT and SGD-MRT against the published updates, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.recipes.spherical_adam import adamsrt, sgd_mrt
from psi_optax import ScaleGroup

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")

GROUPS = {"kernel": ScaleGroup(axes=0), "small": ScaleGroup(0), "head": None}
STEPS, RATE, B1, B2 = 100, 0.02, 0.9, 0.99


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def loss(params):
    x, y = draw(0, 20, 8), draw(1, 20)
    hidden = jax.nn.standardize(x @ params["kernel"], axis=0, epsilon=0.0)
    hidden = jax.nn.standardize(
        jnp.tanh(hidden) @ params["small"], axis=0, epsilon=0.0
    )
    return jnp.mean((jnp.tanh(hidden) @ params["head"] - y) ** 2)


gradients = jax.jit(jax.grad(loss))


def weights():
    return {"kernel": draw(2, 8, 6), "small": draw(3, 6, 4), "head": draw(4, 4)}


def run(tx, params):
    update = jax.jit(tx.update)
    state = tx.init(params)
    for _ in range(STEPS):
        updates, state = update(gradients(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


def dot(a, b):
    return (a * b).sum(0, keepdims=True)


def follow(m, before, after):
    """Return a first moment of degree -1 after a step, rescaled and moved."""
    numerator = dot(before, after) * m - dot(m, after) * before
    return numerator / dot(after, after)


def published(step, params, *, moved=follow):
    """Return the last weights; step(m, s, g, t) returns moments and a step."""
    m = jax.tree.map(jnp.zeros_like, params)
    s = jax.tree.map(jnp.zeros_like, params)
    for t in range(1, STEPS + 1):
        g, after = gradients(params), {}
        for name, w in params.items():
            grouped = name != "head"
            m[name], s[name], u = step(m[name], s[name], g[name], t, grouped)
            after[name] = w - u
            if grouped:
                m[name] = moved(m[name], w, after[name])
                s[name] = s[name] * dot(w, w) / dot(after[name], after[name])
        params = after
    return params


def adam(m, s, g, t, grouped):
    m = B1 * m + (1 - B1) * g
    s = B2 * s + (1 - B2) * (dot(g, g) if grouped else g * g)
    root = jnp.sqrt(s / (1 - B2**t))
    size = len(g) ** 0.5 if grouped else 1.0
    epsilon = 0.0 if grouped else 1e-8
    return m, s, RATE * size * (m / (1 - B1**t)) / (root + epsilon)


def sgd(m, s, g, t, grouped):
    m = 0.9 * m + g
    return m, s, 5 * RATE * m


def difference(a, b):
    return max(
        float(jnp.abs(x - y).max())
        for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


def test_adamsrt_is_four_existing_parts():
    params = weights()
    expected = published(adam, params)
    found = run(adamsrt(RATE, GROUPS, B1, B2), params)
    # 100 steps of rounding that training amplifies.
    assert difference(found, expected) < 1e-11
    # The controls: projected moments, moments that stay, and Adam.
    other = run(adamsrt(RATE, GROUPS, B1, B2, transport="projection"), params)
    assert difference(other, expected) > 1e-4
    stay = published(adam, params, moved=lambda m, *_: m)
    assert difference(stay, expected) > 1e-2
    assert difference(run(optax.adam(RATE, B1, B2), params), expected) > 0.1


def test_sgd_mrt():
    params = weights()
    expected = published(sgd, params)
    found = run(sgd_mrt(5 * RATE, GROUPS), params)
    assert difference(found, expected) < 1e-11
    # The control: momentum that stays.
    other = run(optax.sgd(5 * RATE, 0.9), params)
    assert difference(other, expected) > 1e-3


def test_neither_keeps_norms():
    params = weights()
    for tx in (adamsrt(RATE, GROUPS, B1, B2), sgd_mrt(5 * RATE, GROUPS)):
        after = run(tx, params)
        ratios = jnp.linalg.norm(after["kernel"], axis=0) / jnp.linalg.norm(
            params["kernel"], axis=0
        )
        assert np.all(ratios > 1.001)
