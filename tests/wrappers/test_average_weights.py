"""Averages of weights: what they are, where they are found, and their norms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import psi_optax
from psi_optax import ScaleGroup, psi_sgd
from psi_optax.wrappers import average_weights, get_average
from tests.compilation import quick_jit
from tests.composition.runs import COLUMNS, SINGLE, lengths, runner, uniform
from tests.conformance.checks import assert_equal
from tests.registry import GROUPS, draw
from tests.theory.scales import powers_of_two, rescaled
from tests.theory.training import walk

GROUP = ScaleGroup(axes=0)
# A small tree: what is not compiled together is compiled for each shape.
PARAMS = {"w": SINGLE.params, "b": np.ones(4, np.float32)}
STATED = {"w": GROUP, "b": None}
GRADIENTS = [
    {"w": PARAMS["w"][::-1], "b": PARAMS["b"]},
    {"w": PARAMS["w"][::2].repeat(2, 0)[:9], "b": -PARAMS["b"]},
]


# What it is.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("decay", [0.7, uniform])
def test_the_average_is_the_weighted_mean(decay):
    tx = optax.chain(optax.sgd(0.1), average_weights(decay))
    w = {"a": jnp.ones((2, 3)), "b": jnp.zeros(2)}
    random = np.random.RandomState(0)
    gradients = [
        jax.tree.map(lambda x: random.normal(size=x.shape), w) for _ in range(9)
    ]
    path, state = walk(tx, w, gradients)
    # Shares 0.3 times 0.7^k, over their sum; or all alike.
    shares = np.ones(9) if callable(decay) else 0.7 ** np.arange(9)[::-1]
    shares /= shares.sum()
    found = get_average(state, path[-1])
    for key in w:
        expected = np.tensordot(shares, [p[key] for p in path], 1)
        # Nine steps, a rounding of numbers below 2 each.
        np.testing.assert_allclose(found[key], expected, rtol=0, atol=3e-15)
        assert np.abs(found[key] - path[-1][key]).max() > 1e-2
    alone, _ = walk(optax.sgd(0.1), w, gradients)
    assert_equal(path, alone)


def test_a_step_with_a_decay_of_one_is_left_out():
    """So an average begins late; before that, there is none."""
    begin = average_weights(lambda t: jnp.where(t < 2, 1.0, uniform(t - 2)))
    path, state = walk(begin, jnp.zeros(3), 2 * [jnp.ones(3)])
    np.testing.assert_array_equal(get_average(state, path[-1]), path[-1])
    path, state = walk(begin, jnp.zeros(3), 4 * [jnp.ones(3)])
    np.testing.assert_array_equal(get_average(state, path[-1]), np.full(3, 3.5))


def test_the_shares_of_a_long_uniform_average():
    """1 - t/(t + 1) is off by half an ulp of numbers below 1, 3e-8 of it."""
    tx, count = average_weights(lambda t: t / (t + 1)), 10**6 - 2
    state = tx.init(jnp.zeros(1))._replace(
        count=jnp.asarray(count), weight=jnp.ones([])
    )
    _, state = tx.update(jnp.ones(1), state, jnp.zeros(1))
    error = abs(float(state.average[0]) * (count + 1) - 1)
    assert 1e-3 < error < 0.03
    assert state.weight == 1


def test_before_the_first_step_it_is_the_weights():
    state = average_weights(0.9).init(PARAMS)
    assert_equal(get_average(state, PARAMS, STATED), PARAMS)


def test_narrow_weights_are_averaged_in_float32():
    # 1 and its neighbour 1 + 2^-7, in turns: the mean is no bfloat16.
    w = jnp.ones(2, "bfloat16")
    up = jnp.full(2, 2.0**-7, "bfloat16")
    path, state = walk(average_weights(uniform), w, 8 * [up, -up])
    assert state.average.dtype == jnp.float32
    np.testing.assert_array_equal(state.average, np.full(2, 1 + 2.0**-8))
    found = get_average(state, path[-1])
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, 1.0)  # To even.


def test_weights_that_stay_are_their_average():
    """Without a rounding, after any number of steps."""
    zeros = jax.tree.map(np.zeros_like, PARAMS)
    _, state = walk(average_weights(0.9), PARAMS, 20 * [zeros])
    assert_equal(get_average(state, PARAMS), PARAMS)


# Norms.


@pytest.mark.usefixtures("x64")
def test_groups_have_the_norms_of_the_weights():
    tx = optax.chain(psi_sgd(0.1, GROUP), average_weights(uniform))
    history = runner(tx, COLUMNS)(COLUMNS.params)
    params, state = history[-1]
    plain, found = get_average(state, params), get_average(state, params, GROUP)
    mean = np.mean([w for w, _ in history], axis=0)
    np.testing.assert_allclose(plain, mean, rtol=0, atol=1e-14)
    assert (lengths(plain) < 0.999).all()
    np.testing.assert_allclose(lengths(found), 1, rtol=1e-14)
    direction = mean / np.linalg.norm(mean, axis=0)
    norms = np.linalg.norm(params, axis=0)
    np.testing.assert_allclose(found, norms * direction, rtol=0, atol=1e-14)


def test_the_average_of_a_rescaled_run_is_rescaled():
    tx = optax.chain(psi_sgd(0.1, GROUP, momentum=0.9), average_weights(0.9))
    factors = powers_of_two(SINGLE.ids)

    def average(tx, start):
        params, state = runner(tx, SINGLE)(start)[-1]
        return np.asarray(get_average(state, params, GROUP))

    def equivariant(tx):
        expected = rescaled(average(tx, SINGLE.params), SINGLE.ids, factors)
        start = rescaled(SINGLE.params, SINGLE.ids, factors)
        return np.array_equal(expected, average(tx, start))

    assert equivariant(tx)
    assert not equivariant(optax.chain(optax.sgd(0.1), average_weights(0.9)))


def test_groups_without_a_direction():
    """Of norm zero, and of weights that cancel: as they are."""
    w = jnp.array([[0.0, 3.0, 0.0], [0.0, 4.0, 2.0]])
    there = jnp.array([[0.0, -6.0, 2.0], [0.0, -8.0, -2.0]])
    zeros = jnp.zeros((2, 3))
    path, state = walk(average_weights(uniform), w, [zeros, there])
    found = get_average(state, path[-1], GROUP)
    expected = np.stack([[0, 0], [-3, -4], [np.sqrt(2), np.sqrt(2)]], 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(found[:, :2], path[-1][:, :2])
    np.testing.assert_array_equal(get_average(state, path[-1])[:, 1], 0)


def test_ties_and_blocks_are_brought_to_their_norms():
    @quick_jit
    def norms(*trees):
        path, state = walk(average_weights(0.5), trees[0], trees[1:])
        found = get_average(state, path[-1], GROUPS)
        return [
            psi_optax.group_norms(tree, GROUPS)
            for tree in (found, path[-1], get_average(state, path[-1]))
        ]

    found, wanted, inside = norms(draw(0), draw(1), draw(2))
    jax.tree.map(
        # Of the norm of up to 12 weights, and of each of them, some roundings.
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6),
        found,
        wanted,
    )
    gaps = jax.tree.map(lambda x, y: np.abs(x - y).max(), wanted, inside)
    assert max(jax.tree.leaves(gaps)) > 0.1


# Where it is found.


def recipe(rate=0.1):
    return optax.chain(psi_sgd(rate, STATED), average_weights(0.5))


NESTS = {
    "named_chain": lambda: optax.named_chain(("all", recipe())),
    "accumulate": lambda: optax.MultiSteps(recipe(), 1),
    "finite": lambda: optax.apply_if_finite(recipe(), 3),
    "inject": lambda: optax.inject_hyperparams(recipe)(0.1),
    "partition": lambda: optax.partition(
        {"scale": recipe(), "ordinary": recipe()},
        {"w": "scale", "b": "ordinary"},
    ),
    "lookahead": lambda: optax.lookahead(recipe(), 100, 0.5),
    "master": lambda: psi_optax.wrappers.master_weights(recipe()),
}


@pytest.fixture(scope="module")
def expected():
    path, state = walk(recipe(), PARAMS, GRADIENTS)
    return get_average(state, path[-1], STATED)


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("name", NESTS)
def test_it_is_found_anywhere(name, expected):
    tx, params = NESTS[name](), PARAMS
    if name == "lookahead":
        params = optax.LookaheadParams.init_synced(params)

    @quick_jit
    def run(params):
        path, state = walk(tx, params, GRADIENTS)
        weights = path[-1].fast if name == "lookahead" else path[-1]
        return get_average(state, weights, STATED)

    # Another program: some roundings of weights up to 4.
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-6),
        run(params),
        expected,
    )


def test_what_a_mask_hides_is_as_it_is():
    tx = optax.masked(average_weights(uniform), {"w": True, "b": False})
    path, state = walk(tx, PARAMS, GRADIENTS)
    found = get_average(state, path[-1], STATED)
    _, state = walk(average_weights(uniform), PARAMS, GRADIENTS)
    whole = get_average(state, path[-1], STATED)
    assert_equal(found, {**whole, "b": path[-1]["b"]})
    assert not np.array_equal(whole["b"], path[-1]["b"])


class Net(nnx.Module):
    def __init__(self, w, b):
        self.w, self.b = nnx.Param(w), nnx.Param(b)


def test_nnx(expected):
    model = Net(**jax.tree.map(jnp.asarray, PARAMS))
    optimizer = nnx.Optimizer(model, recipe(), wrt=nnx.Param)
    for gradient in GRADIENTS:
        optimizer.update(model, nnx.state(Net(**gradient), nnx.Param))
    found = get_average(
        optimizer.opt_state, nnx.state(model, nnx.Param), STATED
    )
    # A state like the model's, which takes it.
    assert_equal(nnx.to_pure_dict(found), expected)
    nnx.update(model, found)
    assert_equal(model.w[...], expected["w"])


# Errors.


def test_errors():
    params, tx = PARAMS, average_weights(0.5)
    state = tx.init(params)
    with pytest.raises(ValueError, match="put average_weights"):
        get_average(optax.sgd(0.1, 0.9).init(params), params)
    with pytest.raises(ValueError, match="'b': keep one"):
        get_average((state, state), params)
    wrong = {**params, "w": jnp.ones((9, 3))}
    with pytest.raises(ValueError, match=r"'w'.*\(9, 4\).*one run"):
        get_average(state, wrong)
    seeds = jax.tree.map(lambda x: jnp.stack([x, x]), (state, params))
    with pytest.raises(ValueError, match="vmap"):
        get_average(*seeds)
    together = quick_jit(jax.vmap(lambda s, p: get_average(s, p, STATED)))(
        *seeds
    )
    assert_equal(jax.tree.map(lambda x: x[1], together), params)


@pytest.mark.parametrize("hole", [None, optax.MaskedNode()], ids=type)
def test_a_weight_without_a_gradient_is_averaged_where_it_is(hole):
    params = {"w": jnp.ones(3), "still": 2.0}
    tx = average_weights(uniform)
    updates = {"w": jnp.ones(3), "still": hole}
    _, state = tx.update(updates, tx.init(params), params)
    assert_equal(
        get_average(state, params), {"w": 2 * jnp.ones(3), "still": 2.0}
    )


def test_a_step_of_weight_zero_is_left_out_whatever_it_is():
    w = jnp.ones(3)
    tx = average_weights(lambda count: jnp.where(count == 0, 0.0, 1.0))
    _, state = tx.update(jnp.ones(3), tx.init(w), w)
    _, state = tx.update(jnp.full(3, jnp.inf), state, w)
    assert_equal(get_average(state, w), 2 * w)
