"""Equivariance to the last bit.

A power of two passes through a float32 program unchanged: products, quotients
and sums of scaled numbers are the scaled results, roots too where the power is
even, and so is every rounding, as long as nothing overflows or is denormal.
What cannot pass is a constant compared with or added to a scaled number. So the
paths from W and from T_a(W), a_i = 2^k with |k| <= 20, must be T_a of one
another exactly, and one stray epsilon would show.

The network has columns in front of BatchNorm, a kernel tied to its bias in
front of LayerNorm, and blocks in front of GroupNorm, all without epsilon. With
one, `normalize` before training does the same.
"""

import jax
import numpy as np
import optax
import pytest

import psi_optax
from tests.compilation import quick_jit
from tests.theory.networks import mixed_network
from tests.theory.scales import (
    direction_error,
    powers_of_ten,
    powers_of_two,
    rescaled,
)
from tests.theory.training import (
    lenient,
    path_of,
    to_numpy,
    train,
)

INNER = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.05, momentum=0.9),
    "nesterov": optax.sgd(0.05, momentum=0.9, nesterov=True),
    "adam": lenient(optax.adam(0.01)),
    "adamw": lenient(optax.adamw(0.01, weight_decay=0.1)),
    "lion": optax.lion(0.003),
    "rmsprop": lenient(optax.rmsprop(0.003)),
    "lamb": lenient(optax.lamb(0.01)),
    "clip": optax.chain(
        optax.clip_by_global_norm(0.1), optax.sgd(0.5, momentum=0.9)
    ),
}


def psi_sgd(**options):
    return lambda g: psi_optax.psi_sgd(0.05, g, momentum=0.9, **options)


RECIPES = {
    "psi_sgd": lambda g: psi_optax.psi_sgd(0.1, g),
    "psi_sgd_momentum": psi_sgd(),
    "psi_sgdm": lambda g: psi_optax.psi_sgdm(0.05, g),
    "psi_adam": lambda g: lenient(psi_optax.psi_adam(0.01, g)),
    "exponential": psi_sgd(retraction="exponential"),
    "additive": psi_sgd(retraction=None),
    "memoryless": psi_sgd(radius=None),
    "ordinary": psi_sgd(ordinary=optax.sgd(0.02)),
    "whole": lambda g: psi_optax.psi(optax.sgd(0.05, 0.9), g, tangent=False),
    "sgd_g": lambda g: optax.chain(
        psi_optax.transforms.add_orthogonality(0.1, g), psi_optax.sgd_g(0.1, g)
    ),
    "adam_g": lambda g: lenient(psi_optax.adam_g(0.03, g)),
    "rotational": lambda g: psi_optax.rotational(
        0.02,
        optax.trace(0.9),
        g,
        centered=True,
        ordinary=optax.sgd(0.02, 0.9),
    ),
    "hyperball": lambda g: lenient(
        psi_optax.adamh(0.02, g, per_tensor=False, ordinary=optax.adam(0.02))
    ),
}

CONTROLS = {
    "sgd": lambda _: optax.sgd(0.1),
    "adam": lambda _: lenient(optax.adam(0.01)),
    "sgd_then_retract": lambda g: optax.chain(
        optax.sgd(0.1), psi_optax.transforms.retract(g)
    ),
}


def same_bits(one, other):
    """Whether two trees are equal, and hold numbers."""
    return all(
        np.array_equal(x, y) and np.isfinite(x).all()
        for x, y in zip(
            jax.tree.leaves(one), jax.tree.leaves(other), strict=True
        )
    )


def pair(tx, *, optimized=False):
    """T_a of the path from W with the state, and the same from T_a(W)."""
    problem = mixed_network(300, dtype=np.float32)
    factors = powers_of_two(problem.ids)
    start = rescaled(problem.params, problem.ids, factors)
    path, state = train(tx, problem, optimized=optimized)
    expected = rescaled(path, problem.ids, factors), state
    return expected, train(tx, problem, start, optimized=optimized)


@pytest.mark.parametrize("name", INNER)
def test_psi_around_an_optimizer(name):
    groups = mixed_network(300, dtype=np.float32).groups
    expected, actual = pair(psi_optax.psi(INNER[name], groups))
    assert same_bits(expected[0], actual[0])
    # All that the inner optimizer keeps is of degree 0.
    assert same_bits(expected[1].inner, actual[1].inner)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_and_options(name):
    groups = mixed_network(300, dtype=np.float32).groups
    expected, actual = pair(RECIPES[name](groups))
    assert same_bits(expected[0], actual[0])


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_as_users_compile(name):
    # The other tests have the compiler hurry; the bits are not to depend on it.
    groups = mixed_network(300, dtype=np.float32).groups
    expected, actual = pair(psi_optax.psi(INNER[name], groups), optimized=True)
    assert same_bits(expected[0], actual[0])


@pytest.mark.parametrize("name", CONTROLS)
def test_optimizers_that_see_the_scale(name):
    problem = mixed_network(300, dtype=np.float32)
    expected, actual = pair(CONTROLS[name](problem.groups))
    assert not same_bits(expected[0], actual[0])
    assert direction_error(expected[0], actual[0], problem.ids) > 1e-2


def test_what_becomes_subnormal_is_the_end_of_it():
    # 1.5 times the smallest normal number: halved twice it is subnormal, which
    # XLA takes for zero on a CPU. The others are what they are.
    tiny = np.finfo(np.float32).tiny
    w = np.array([1.0, 3 * tiny, 0.5], np.float32)
    g = np.array([0.0, 0.0, 1.0], np.float32)
    tx = psi_optax.psi_sgd(0.1, psi_optax.ScaleGroup(axes=0))
    half, quarter = np.float32(0.5), np.float32(0.25)
    move = quick_jit(lambda w, g: w + tx.update(g, tx.init(w), w)[0])
    new = np.asarray(move(w, g))
    assert np.array_equal(move(half * w, g / half), half * new)
    after = np.asarray(move(quarter * w, g / quarter))
    assert np.array_equal(after[[0, 2]], quarter * new[[0, 2]])
    assert new[1] > 0
    assert after[1] == 0


def normalized(problem, *trees):
    tx = quick_jit(lambda tree: psi_optax.normalize(tree, problem.groups))
    return [to_numpy(tx(tree)) for tree in trees]


def test_normalized_weights_are_the_same_bits():
    # With the epsilon that Flax takes unless told otherwise.
    blurred = mixed_network(300, epsilon=1e-5, dtype=np.float32)
    tx = RECIPES["psi_sgd_momentum"](blurred.groups)
    other = rescaled(blurred.params, blurred.ids, powers_of_two(blurred.ids))
    starts = normalized(blurred, blurred.params, other)
    assert same_bits(*starts)
    assert same_bits(*(path_of(tx, blurred, start) for start in starts))
    # The control: an epsilon breaks it otherwise.
    paths = path_of(tx, blurred), path_of(tx, blurred, other)
    assert direction_error(*paths, blurred.ids) > 1e-2


@pytest.mark.usefixtures("x64")
def test_normalized_weights_for_arbitrary_factors():
    # Normalizing rounds the norm and the quotient, some 5e-16; 300 steps of
    # training amplify that, as they do in `test_equivariance.py`.
    problem = mixed_network(300, epsilon=1e-5)
    factors = powers_of_ten(problem.ids, span=6)
    other = rescaled(problem.params, problem.ids, factors)
    tx = RECIPES["psi_sgd_momentum"](problem.groups)
    starts = normalized(problem, problem.params, other)
    paths = [path_of(tx, problem, start) for start in starts]
    assert direction_error(*starts, problem.ids) < 1e-15
    assert direction_error(*paths, problem.ids) < 1e-12
    paths = path_of(tx, problem), path_of(tx, problem, other)
    assert direction_error(*paths, problem.ids) > 1e-2
