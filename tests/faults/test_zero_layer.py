"""Layers that begin at zero, in front of BatchNorm and of GroupNorm.

The weights of such a layer have no direction, and its gradient is of degree -1:
a recipe that divides by norms makes NaN of it, and of everything at the next
step. Here it stays what it is, and the rest of the network trains.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.registry import ENTRIES, KINDS, draw
from tests.theory.training import gradient_of, step

ZERO = ("hidden", "blocks")
STEPS = 4
# The whole optimizers. These are not on a sphere: two let a group of norm zero
# move, and one brings it back at every second step.
OPTIMIZERS = [
    name
    for name, entry in ENTRIES.items()
    if entry.factory.__module__.startswith("psi_optax.optimizers")
]
MOVING = ("sgdp", "adamp")
RETURNING = ("weight_rescaling",)
ON_SPHERES = [n for n in OPTIMIZERS if n not in MOVING + RETURNING]
# Single faults in all of them: test_values.py.
OF_EACH_KIND = [name for name in ON_SPHERES if name in KINDS]


def params():
    """Those of the registry, with two layers at zero."""
    return {
        name: jax.tree.map(jnp.zeros_like, item) if name in ZERO else item
        for name, item in draw(0).items()
    }


def normalized(x, divide):
    """Over the batch, or the rows of each block: the first axis."""
    x = x - x.mean(0, keepdims=True)
    return divide(x, (x * x).mean(0, keepdims=True))


def with_epsilon(x, variance):
    return x / jnp.sqrt(variance + jnp.float32(1e-5))


def guarded(x, variance):
    """Zero where there is no variance, and so is the gradient."""
    flat = variance == 0
    return jnp.where(flat, 0, x / jnp.sqrt(jnp.where(flat, 1, variance)))


def bare(x, variance):
    return x / jnp.sqrt(variance)


def loss(divide, w, batch):
    x, target = batch
    hidden = x @ w["hidden"]["kernel"] + w["hidden"]["bias"][None]
    # GroupNorm of two groups of channels, example by example.
    blocks = (x[:, :3] @ w["blocks"]).reshape(-1, 4).T
    vector = x[:, :5] @ w["vector"]
    x = jnp.tanh(normalized(hidden, divide))
    x += normalized(blocks, divide).T.reshape(-1, 2, 4).sum(1)
    x += normalized(vector, divide)[:, None]
    x = x @ w["head"]["kernel"] + w["head"]["bias"][None]
    return jnp.mean((x - target) ** 2)


# One function each, which is compiled once for all optimizers.
LOSSES = {
    divide: functools.partial(loss, divide)
    for divide in (with_epsilon, guarded, bare)
}


def batches():
    random = np.random.RandomState(2)
    for _ in range(STEPS):
        x, target = random.normal(size=(16, 6)), random.normal(size=(16, 2))
        yield x.astype(np.float32), target.astype(np.float32)


def path_of(tx, divide, move=step, steps=STEPS):
    """The weights after each step, and the last state."""
    w, path = params(), []
    state = tx.init(w)
    for batch in itertools.islice(batches(), steps):
        gradient = gradient_of(LOSSES[divide], w, batch)
        w, state = move(tx, gradient, state, w)
        path.append(w)
    return path, state


def finite(tree):
    return all(np.isfinite(x).all() for x in jax.tree.leaves(tree))


def numbers(w, names):
    leaves = jax.tree.leaves([w[name] for name in names])
    return np.concatenate([np.ravel(x) for x in leaves])


def stayed(w):
    """Whether what began at zero is zero, to the last bit."""
    return not any(numbers(w, ZERO).tobytes())


def trained(w):
    """Whether every other number is another one."""
    rest = [name for name in w if name not in ZERO]
    return np.all(numbers(w, rest) != numbers(params(), rest))


def test_the_gradient_would_move_them():
    # Otherwise it would be no wonder that they stay.
    batch = next(batches())
    slope = gradient_of(LOSSES[with_epsilon], params(), batch)
    assert np.abs(slope["hidden"]["kernel"]).max() > 1
    assert np.abs(slope["blocks"]).max() > 1
    slope = gradient_of(LOSSES[guarded], params(), batch)
    assert not numbers(slope, ZERO).any()
    slope = gradient_of(LOSSES[bare], params(), batch)
    assert not np.isfinite(numbers(slope, slope)).any()


@pytest.mark.parametrize("divide", [with_epsilon, guarded])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.usefixtures("entry")
def test_a_layer_at_zero_stays_and_the_others_train(name, tx, divide):
    path, state = path_of(tx, divide)
    assert finite((path, state))
    assert trained(path[-1])
    if name in ON_SPHERES:
        assert all(map(stayed, path))
    elif divide is with_epsilon:
        assert not stayed(path[0])
        assert stayed(path[-1]) == (name in RETURNING)


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_a_gradient_that_is_nan_everywhere_does_not_move_it(tx):
    # Without an epsilon the loss itself is NaN: nothing can train then.
    path, _ = path_of(tx, bare)
    assert stayed(path[-1])
    assert not np.isfinite(path[-1]["vector"]).any()


def not_compiled(tx, gradient, state, w):
    updates, state = tx.update(gradient, state, w)
    return jax.tree.map(jnp.add, w, updates), state


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_a_layer_at_zero_stays_outside_of_jit(tx):
    path, state = path_of(tx, with_epsilon, not_compiled, steps=2)
    assert finite((path, state))
    assert trained(path[-1])
    assert all(map(stayed, path))


def test_the_copied_recipe_makes_nan_of_everything():
    # The control: w <- R N(w - 0.1 R N(g)), with N(x) = x / |x|.
    def unit(x):
        return x / jnp.linalg.norm(x)

    def move(x, g):
        radius = jnp.linalg.norm(x)
        return radius * unit(x - 0.1 * radius * unit(g))

    w, (first, second, *_) = params(), batches()
    for batch, alive in (first, ("vector", "head")), (second, ()):
        slope = gradient_of(LOSSES[with_epsilon], w, batch)
        w = jax.tree.map(move, w, slope)
        spoiled = [name for name in w if name not in alive]
        assert all(finite(w[name]) for name in alive)
        assert not np.isfinite(numbers(w, spoiled)).any()
