"""Steps of length zero, leaves of several dtypes, runs beside each other.

A step of exactly zero moves nothing, by a rule, since r w/|w| is not w in
floats. Groups that have no direction: `tests.faults`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.compilation import quick_jit
from tests.theory.networks import rayleigh
from tests.theory.training import first_update, lenient, path_of, step, to_numpy

GROUPS = {"w": ScaleGroup(axes=0), "b": None}

WHOLE = {
    "psi_sgd": lambda g: psi_optax.psi_sgd(0.1, g),
    "momentum": lambda g: psi_optax.psi_sgd(0.1, g, momentum=0.9),
    "memoryless": lambda g: psi_optax.psi_sgd(0.1, g, radius=None),
    "exponential": lambda g: psi_optax.psi_sgd(
        0.1, g, momentum=0.9, retraction="exponential"
    ),
    "additive": lambda g: psi_optax.psi_sgd(0.1, g, retraction=None),
    "psi_sgdm": lambda g: psi_optax.psi_sgdm(0.1, g),
    "psi_sgdm_additive": lambda g: psi_optax.psi_sgdm(0.1, g, retraction=None),
    # In float16 the usual epsilon is 0, and Adam's first step from it 0/0.
    "psi_adam": lambda g: lenient(psi_optax.psi_adam(0.1, g, eps=1e-4)),
    "lion": lambda g: psi_optax.psi(optax.lion(0.1, weight_decay=0.0), g),
    "sgd_g": lambda g: psi_optax.sgd_g(0.5, g),
    "adam_g": lambda g: lenient(psi_optax.adam_g(0.1, g)),
    "rotational": lambda g: psi_optax.rotational(0.1, optax.trace(0.9), g),
    "hyperball": lambda g: psi_optax.hyperball(
        0.1, optax.trace(0.9), g, per_tensor=False
    ),
    "hyperball_of_raw_gradients": lambda g: psi_optax.hyperball(
        0.1, optax.identity(), g, per_tensor=False, equivariant=False
    ),
}
PARTS = {
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


def dtypes(tree):
    return jax.tree.map(lambda x: x.dtype, tree)


def like_zeros(tree):
    return jax.tree.map(np.zeros_like, tree)


def moved(tree):
    """Whether any weight of any leaf has an update other than zero."""
    return any(np.any(x != np.zeros_like(x)) for x in jax.tree.leaves(tree))


def random_walk(tx, params, steps=3):
    """Weights and state after some steps, which leave rounding in norms."""
    state = tx.init(params)
    for seed in range(1, 1 + steps):
        params, state = step(tx, leaves(seed), state, params)
    return params, state


def every_leaf(make, **options):
    return make(jax.tree.map(lambda _: ScaleGroup(0), leaves()), **options)


@pytest.mark.parametrize("name", [*WHOLE, *PARTS])
def test_zero_step_is_exactly_zero(name):
    tx, params = every_leaf({**WHOLE, **PARTS}[name]), leaves()
    update = first_update(tx, like_zeros(params), params)
    assert not moved(update)
    assert dtypes(update) == dtypes(params)


WITHOUT_MOMENTUM = [
    "psi_sgd",
    "memoryless",
    "additive",
    "retract",
    "retract_memoryless",
    "retract_exponential",
]


@pytest.mark.parametrize("name", WITHOUT_MOMENTUM)
def test_zero_step_is_exactly_zero_after_rounding(name):
    # Now the norms are off their radii, by rounding.
    tx = every_leaf({**WHOLE, **PARTS}[name])
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
    tx = {**WHOLE, **PARTS}[name](ScaleGroup(axes=0))
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


@pytest.mark.parametrize("name", ["psi_sgd", "psi_sgdm", "retract"])
def test_zero_step_of_one_group_among_others(name):
    # Not even by luck of the compiler may its neighbour's step touch it.
    w, u = leaf(64, np.float32), leaf(64, np.float32, 1)
    u[:, 0] = 0
    update = first_update({**WHOLE, **PARTS}[name](ScaleGroup(0)), u, w)
    assert not moved(update[:, 0])
    assert np.all(update[:, 1] != 0)


def test_zero_step_off_the_sphere_goes_to_it():
    w = leaf(64, np.float32)
    tx = psi_optax.transforms.retract(ScaleGroup(0), radius=1.0)
    w = w + first_update(tx, np.zeros_like(w), w)
    norms = np.linalg.norm(np.asarray(w, np.float64), axis=0)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)


@pytest.mark.parametrize("name", WHOLE)
def test_leaves_keep_their_dtype(name):
    # One leaf of low precision, and an ordinary one of single precision; state
    # leaves keep what init gave them.
    params = {"w": leaf(64, jnp.bfloat16), "b": np.ones(2, np.float32)}
    updates = {"w": leaf(64, jnp.bfloat16, 1), "b": np.ones(2, np.float32)}
    tx = WHOLE[name](GROUPS)
    before = tx.init(params)
    after, state = step(tx, updates, before, params)
    assert dtypes(after) == dtypes(params)
    assert dtypes(state) == dtypes(before)
    # The step is computed in single precision: its norm is right to the
    # rounding of weights, 2^-9 each and far less together.
    if name not in ("additive", "psi_sgdm_additive"):
        norms = np.linalg.norm(np.asarray(after["w"], np.float64), axis=0)
        np.testing.assert_allclose(norms, [1.99, 0.3], rtol=2e-3)
    assert np.all(np.any(after["w"] != params["w"], axis=0))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["momentum", "psi_sgdm", "psi_adam"])
def test_vmap_over_seeds_is_a_loop(name):
    problem = rayleigh(20)
    tx = WHOLE[name](problem.groups)
    random = np.random.RandomState(2)
    seeds = random.normal(size=(3, *problem.params.shape))

    def last(params):
        def body(carry, matrix):
            params, state = carry
            gradient = jax.grad(problem.loss)(params, matrix)
            updates, state = tx.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        carry = (params, tx.init(params))
        return jax.lax.scan(body, carry, problem.batches)[0][0]

    together = quick_jit(jax.vmap(last))(seeds)
    apart = [path_of(tx, problem, seed)[-1] for seed in seeds]
    # Batching reorders sums: 20 steps, 1e-16 each, of weights up to 4.
    np.testing.assert_allclose(together, apart, atol=1e-13)
    assert np.abs(apart[0] - apart[1]).max() > 1e-3
