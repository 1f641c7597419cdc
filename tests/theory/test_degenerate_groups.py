"""Steps of length zero move nothing: a rule, as r w/|w| is not w in floats.

First steps of all transforms, and groups without a direction: `tests.faults`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.theory.training import first_update, step, to_numpy, walk

MAKE = {
    "psi_sgd": lambda g: psi_optax.psi_sgd(0.1, g),
    "memoryless": lambda g: psi_optax.psi_sgd(0.1, g, radius=None),
    "exponential": lambda g: psi_optax.psi_sgd(
        0.1, g, retraction="exponential"
    ),
    "additive": lambda g: psi_optax.psi_sgd(0.1, g, retraction=None),
    "retract": psi_optax.transforms.retract,
    "retract_memoryless": lambda g: psi_optax.transforms.retract(
        g, radius=None
    ),
    "retract_exponential": lambda g: psi_optax.transforms.retract(
        g, retraction="exponential"
    ),
}


def leaf(size, dtype, seed=0):
    """Two groups of norms 1.99 and 0.3."""
    w = np.random.RandomState(seed).normal(size=(size, 2))
    w *= np.array([1.99, 0.3]) / np.linalg.norm(w, axis=0)
    return w.astype(dtype)


def leaves(seed=0):
    """Such groups of few and of many weights, of three dtypes."""
    return {
        "single": leaf(25_000, np.float32, seed),
        "brain": leaf(25_000, jnp.bfloat16, seed),
        "half": leaf(3, np.float16, seed),
    }


def like_zeros(tree):
    return jax.tree.map(np.zeros_like, tree)


def moved(tree):
    """Whether any weight of any leaf has an update other than zero."""
    return any(np.any(x != np.zeros_like(x)) for x in jax.tree.leaves(tree))


def random_walk(tx, params, steps=3):
    """Weights and state after some steps, which leave rounding in norms."""
    gradients = map(leaves, range(1, 1 + steps))
    path, state = walk(tx, params, gradients, move=step)
    return path[-1], state


def every_leaf(make, **options):
    return make(jax.tree.map(lambda _: ScaleGroup(0), leaves()), **options)


@pytest.mark.parametrize("name", MAKE)
def test_zero_step_is_exactly_zero_after_rounding(name):
    # Now the norms are off their radii, by rounding.
    tx = every_leaf(MAKE[name])
    params, state = random_walk(tx, leaves())
    after, _ = step(tx, like_zeros(params), state, params)
    assert jax.tree.all(jax.tree.map(np.array_equal, after, params))
    # A step that is hardly one is not zero.
    tiny = jax.tree.map(lambda x: (x * 0.1).astype(x.dtype), leaves(9))
    assert moved(
        jax.tree.map(np.subtract, step(tx, tiny, state, params)[0], params)
    )


@pytest.mark.parametrize("name", ["psi_sgd", "exponential", "retract"])
def test_a_zero_step_keeps_all_but_the_sign_of_a_zero(name):
    w = np.array([1.0, -0.0, 0.0, -2.0], np.float32)
    tx = MAKE[name](ScaleGroup(axes=0))
    update = np.asarray(first_update(tx, np.zeros_like(w), w))
    # Added to -0.0, only -0.0 keeps it: the update is 0.0.
    assert np.array_equal(update, np.zeros(4))
    assert not np.signbit(update).any()
    after = w + update
    assert np.array_equal(after, w)
    assert np.array_equal(np.signbit(after), [False, False, False, True])


def test_putting_weights_on_their_spheres_is_not_the_identity():
    # The control: why there is a rule. The same weights, put on the spheres
    # that they are on but for rounding, change.
    tx = every_leaf(psi_optax.transforms.retract)
    params, state = random_walk(tx, leaves())
    w, radius = params["single"], state.radius["single"]
    wide = w.astype(np.float64)
    again = (wide * (radius / np.linalg.norm(wide, axis=0))).astype(np.float32)
    assert not np.array_equal(again, w)


@pytest.mark.parametrize(
    "make",
    [
        psi_optax.transforms.retract,
        lambda g, **o: psi_optax.psi_sgd(0.1, g, **o),
    ],
)
def test_zero_step_on_the_sphere_of_a_number(make):
    # bfloat16 is off it by up to 2^-9 a weight, and stays.
    groups = jax.tree.map(lambda _: ScaleGroup(0), leaves())
    params = to_numpy(psi_optax.normalize(leaves(), groups, 1.99))
    tx = make(groups, radius=1.99)
    assert not moved(first_update(tx, like_zeros(params), params))
    assert moved(first_update(tx, like_zeros(params), leaves()))
