"""Noise before the gradient: its center, its size, and where it fits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import psi_optax
from psi_optax import ScaleGroup, group_norms, psi, psi_sgd
from psi_optax.transforms.floating import upcast_half
from psi_optax.wrappers import get_center, perturb_weights
from tests.compilation import quick_jit
from tests.composition.runs import scales_exactly
from tests.conformance.checks import assert_equal
from tests.registry import GROUPS as REGISTERED, draw
from tests.theory.perturbed import (
    FACTORS,
    GROUPS,
    distance,
    grad_fn,
    make_params,
    times,
    train,
)
from tests.theory.training import step, walk

ORDINARY = {"kernel": None, "head": None}
STEPS = 30


def recorded(tx, params, steps=STEPS):
    """Params and centers from the first to the last."""

    @quick_jit
    def step(params, state):
        updates, state = tx.update(grad_fn(params), state, params)
        return optax.apply_updates(params, updates), state

    history = [(params, tx.init(params))]
    for _ in range(steps):
        history.append(step(*history[-1]))
    seen, states = zip(*history, strict=True)
    return seen, [getattr(state, "center", None) for state in states]


def noises(seen, centers):
    return [
        jax.tree.map(jnp.subtract, x, z)
        for x, z in zip(seen, centers, strict=True)
    ]


# Identities.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("groups", [GROUPS, ORDINARY], ids=["scale", "none"])
def test_it_is_noise_before_the_gradient_and_anticorrelated_after(groups):
    rate, params = 0.05, make_params()
    tx = perturb_weights(
        optax.sgd(rate), 0.1, groups, key=9, ordinary_sigma=0.1
    )
    seen, centers = recorded(tx, params)
    noise = noises(seen, centers)
    assert distance(noise[0], jax.tree.map(jnp.zeros_like, params)) == 0
    # Of 18 weights; a sum over the steps would be five times as large.
    deviations = [np.std(x["head"]) for x in noise[1:]]
    assert 0.04 < min(deviations) < max(deviations) < 0.2
    gradient = jax.jit(grad_fn)
    for t in range(STEPS):
        slope = gradient(seen[t])
        before = jax.tree.map(lambda z, g: z - rate * g, centers[t], slope)
        after = jax.tree.map(
            lambda x, g, new, old: x - rate * g + new - old,
            *(seen[t], slope, noise[t + 1], noise[t]),
        )
        # Each step is one or two roundings of weights up to 4.
        assert distance(centers[t + 1], before) < 1e-15
        assert distance(seen[t + 1], after) < 2e-15
        white = jax.tree.map(
            lambda x, g, new: x - rate * g + new, seen[t], slope, noise[t + 1]
        )
        assert t == 0 or distance(seen[t + 1], white) > 1e-2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_noise_it_is_the_inner_run(dtype):
    params = jax.tree.map(lambda x: x.astype(dtype), make_params())
    inner = optax.sgd(0.1, momentum=0.9)

    def run(tx):
        # Operation by operation: a compiled program may not round to bfloat16.
        return walk(tx, params, [params, times(2, params)])

    expected = run(inner)[0][-1]
    path, state = run(perturb_weights(inner, 0.0, GROUPS, 0))
    assert_equal(path[-1], expected)
    assert_equal(get_center(state), expected)
    path, _ = run(perturb_weights(inner, 0.1, GROUPS, 0))
    assert distance(*upcast_half((path[-1], expected))) > 1e-2


# Scale.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("layers", ["all", "one"])
def test_a_relative_sigma_sees_no_powers_of_two(layers):
    def center(factor):
        inner = psi_sgd(0.05, GROUPS, momentum=0.9)
        tx = perturb_weights(inner, 0.1, GROUPS, 0, layers=layers)
        _, _, state = train(tx, times(factor, make_params()))
        return get_center(state)

    expected = center(1.0)
    for factor in 8.0, FACTORS:
        assert distance(times(factor, expected), center(factor)) == 0
    norms = group_norms(expected, GROUPS)["kernel"]
    first = group_norms(make_params(), GROUPS)["kernel"]
    np.testing.assert_allclose(norms, first, rtol=1e-15)


@pytest.mark.usefixtures("x64")
def test_an_absolute_sigma_sees_them():
    def center(factor):
        inner = psi_sgd(0.05, GROUPS, momentum=0.9)
        tx = perturb_weights(inner, 0.0, ORDINARY, 0, ordinary_sigma=0.1)
        _, _, state = train(tx, times(factor, make_params()))
        return get_center(state)

    # 1.6 was measured with the numbers of another key.
    assert distance(times(8.0, center(1.0)), center(8.0)) > 0.5


def test_a_float32_run_is_rescaled_to_the_bit():
    group = ScaleGroup(0)
    read = {"read": lambda params: params}
    inside = perturb_weights(psi_sgd(0.05, group, momentum=0.9), 0.1, group, 0)
    assert scales_exactly(inside, **read)
    plain = perturb_weights(optax.sgd(0.05), 0.1, group, 0)
    assert not scales_exactly(plain, **read)


# The noise.


def test_its_size_is_that_of_each_group():
    """2,000 draws, of groups of at least 5 weights and of single ones."""
    key, params = jax.random.key(0), draw(0)
    zeros = jax.tree.map(jnp.zeros_like, params)

    @quick_jit
    @jax.vmap
    def squares(key):
        tx = perturb_weights(
            optax.sgd(0.1), 0.3, REGISTERED, key, ordinary_sigma=0.2
        )
        noise, _ = tx.update(zeros, tx.init(params), params)
        return group_norms(noise, REGISTERED), noise["head"]

    found, ordinary = squares(jax.random.split(key, 2_000))
    norms = group_norms(params, REGISTERED)

    def close(x, r):
        root = np.sqrt(np.mean(np.square(x), 0))
        # A deviation is 1 / sqrt(2 * 2,000 * 5), 0.7 %.
        np.testing.assert_allclose(root, 0.3 * r, rtol=0.03)

    jax.tree.map(close, found, norms)
    for x in jax.tree.leaves(ordinary):
        # A deviation is 1.6 %, and 0.2 / sqrt(2,000) of the mean.
        np.testing.assert_allclose(x.std(0), 0.2, rtol=0.08)
        np.testing.assert_allclose(x.mean(0), 0, atol=0.02)


def test_one_layer_is_one_name_at_a_time():
    params = draw(0)
    zeros = jax.tree.map(jnp.zeros_like, params)
    tx = perturb_weights(optax.sgd(0.1), 0.1, REGISTERED, 0, layers="one")
    path, _ = walk(tx, params, 20 * [zeros], move=step)
    moved = [
        {name for name in x if distance(x[name], params[name]) > 1e-3}
        for x in path
    ]
    assert all(len(names) == 1 for names in moved)
    assert set.union(*moved) == {"hidden", "blocks", "vector"}
    hidden = next(x for x, y in zip(path, moved, strict=True) if "hidden" in y)
    for leaf in "kernel", "bias":
        assert distance(hidden["hidden"][leaf], params["hidden"][leaf]) > 0


def test_one_layer_is_never_one_without_noise():
    params = {"gains": jnp.ones(3), "a": jnp.ones(3), "b": jnp.ones(3)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    single, several = ScaleGroup(()), ScaleGroup(0)

    def path(b):
        groups = {"gains": single, "a": several, "b": b}
        tx = perturb_weights(optax.sgd(0.1), 0.1, groups, 0, layers="one")
        return walk(tx, params, 20 * [zeros], move=step)[0]

    def moves(x):
        return distance(x["a"], params["a"]) > 0

    assert all(map(moves, path(single)))
    # The control: another layer of several weights takes its turn.
    assert 0 < sum(map(moves, path(several))) < 20


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("layers", ["all", "one"])
def test_the_layers_of_a_linear_network_explode_together(layers):
    r"""E|W2' W1' x - y|^2, with m = 40 hidden units, and a term in sigma^4."""
    random = np.random.RandomState(0)
    sigma, m, k = 0.1, 40, 3
    one, two = random.normal(size=(m, 6)) / 6**0.5, random.normal(size=(k, m))
    two = two / m**0.5
    x, y = random.normal(size=6), random.normal(size=k)
    params = {"one": jnp.asarray(one), "two": jnp.asarray(two)}
    groups = dict.fromkeys(params, ScaleGroup((0, 1)))
    # Of one size in each weight, whatever the norm of the layer is.
    unit = {
        path: w / jnp.linalg.norm(w) * w.size**0.5 for path, w in params.items()
    }
    zeros = jax.tree.map(jnp.zeros_like, params)

    @jax.vmap
    def value(key):
        tx = perturb_weights(optax.sgd(0.1), sigma, groups, key, layers=layers)
        noise, _ = tx.update(zeros, tx.init(unit), unit)
        w = jax.tree.map(jnp.add, params, noise)
        return jnp.sum((w["two"] @ (w["one"] @ x) - y) ** 2)

    keys = jax.random.split(jax.random.key(0), (10, 1000))
    found = np.asarray(quick_jit(lambda keys: jax.lax.map(value, keys))(keys))
    parts = sigma**2 * np.array(
        [np.sum(two**2) * x @ x, k * np.sum((one @ x) ** 2)]
    )
    explosion = sigma**4 * k * m * (x @ x)
    base = np.sum((two @ one @ x - y) ** 2)
    expected = base + (
        parts.sum() + explosion if layers == "all" else parts.sum() / 2
    )
    error = 4 * found.std() / found.size**0.5
    assert abs(found.mean() - expected) < error < (expected - base) / 4


def test_keys_and_steps_draw_other_noise():
    params = draw(0)
    zeros = jax.tree.map(jnp.zeros_like, params)

    def noise(key, steps=1):
        tx = perturb_weights(optax.sgd(0.1), 0.1, REGISTERED, key)
        return walk(tx, params, steps * [zeros], move=step)[0][-1]

    assert_equal(noise(0), noise(jax.random.key(0)))
    assert distance(noise(0), noise(1)) > 1e-2
    assert distance(noise(0, 1), noise(0, 2)) > 1e-2
    tx = perturb_weights(optax.sgd(0.1), 0.1, None, 0, ordinary_sigma=0.1)
    twins = {"a": jnp.zeros(4), "b": jnp.zeros(4)}
    path, _ = walk(tx, twins, [twins], move=step)
    assert distance(path[0]["a"], path[0]["b"]) > 1e-2


def test_groups_without_a_direction_stay():
    params = {"w": jnp.array([[0.0, 3.0], [0.0, 4.0]]), "one": jnp.ones(1)}
    groups = dict.fromkeys(params, ScaleGroup(0))
    zeros = jax.tree.map(jnp.zeros_like, params)
    tx = perturb_weights(psi(optax.sgd(0.1), groups), 0.5, groups, 0)
    path, _ = walk(tx, params, 3 * [zeros], move=step)
    assert not path[-1]["w"][:, 0].any()
    assert distance(path[-1]["w"][:, 1], params["w"][:, 1]) > 0.1
    assert_equal(path[-1]["one"], params["one"])


# Where the center is found.


def recipe(rate=0.1):
    return perturb_weights(psi_sgd(rate, GROUPS), 0.1, GROUPS, 0)


@quick_jit
def gradients(params):
    return grad_fn(params)


NESTS = {
    "chain": lambda: optax.chain(optax.clip(1e3), recipe()),
    "accumulate": lambda: optax.MultiSteps(recipe(), 1),
    "finite": lambda: optax.apply_if_finite(recipe(), 3),
    "inject": lambda: optax.inject_hyperparams(recipe)(0.1),
    "master": lambda: psi_optax.wrappers.master_weights(recipe()),
    "partition": lambda: optax.partition(
        {"a": recipe(), "b": recipe()},
        {"kernel": "a", "head": "b"},
    ),
}


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("name", NESTS)
def test_it_is_found_anywhere(name):
    params = make_params()

    def run(tx):
        step = quick_jit(tx.update)
        return step(gradients(params), tx.init(params), params)[1]

    expected = get_center(run(recipe()))
    assert distance(params, expected) > 1e-2
    # Other programs: some roundings of weights up to 4.
    assert distance(get_center(run(NESTS[name]()), params), expected) < 2e-6


def test_a_center_has_the_other_leaves_of_params():
    tx = perturb_weights(optax.sgd(0.1), 0.1, None, 0, ordinary_sigma=0.1)
    params = {"w": jnp.ones(3), "steps": jnp.asarray(7), "none": None}
    updates = {"w": jnp.ones(3), "steps": jnp.asarray(0), "none": None}
    path, state = walk(tx, params, [updates])
    found = get_center(state, path[-1])
    assert_equal(found, {**params, "w": jnp.full(3, 0.9)})
    assert get_center(state)["steps"] is None


class Net(nnx.Module):
    def __init__(self, params):
        self.kernel = nnx.Param(params["kernel"])
        self.head = nnx.Param(params["head"])


def test_nnx():
    params = make_params()
    tx = perturb_weights(psi_sgd(0.1, GROUPS), 0.1, GROUPS, 0)
    model = Net(params)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    gradient = gradients(params)
    optimizer.update(model, nnx.state(Net(gradient), nnx.Param))
    _, state = tx.update(gradient, tx.init(params), params)
    center = get_center(optimizer.opt_state)
    assert_equal(nnx.to_pure_dict(center), get_center(state))
    nnx.update(model, center)
    assert_equal(model.kernel[...], get_center(state)["kernel"])


def test_params_and_state_can_be_donated_together():
    params = make_params()
    tx = perturb_weights(psi_sgd(0.1, GROUPS), 0.1, GROUPS, 0)
    step = jax.jit(tx.update, donate_argnums=(1, 2))
    updates, _ = step(gradients(params), tx.init(params), params)
    assert np.isfinite(updates["kernel"]).all()


# Errors.


def test_errors():
    params = make_params()
    with pytest.raises(ValueError, match="sigma=-0.1"):
        perturb_weights(optax.sgd(0.1), -0.1, GROUPS, 0)
    with pytest.raises(TypeError, match="key"):
        perturb_weights(optax.sgd(0.1), 0.1, GROUPS, None)
    one = perturb_weights(optax.sgd(0.1), 0.1, None, 0, layers="one")
    with pytest.raises(ValueError, match='layers="one".*groups'):
        one.init(params)
    gains = perturb_weights(
        optax.sgd(0.1), 0.1, ScaleGroup(()), 0, layers="one"
    )
    with pytest.raises(ValueError, match='layers="one".*several weights'):
        gains.init(params)
    ahead = optax.lookahead(optax.sgd(0.1), 5, 0.5)
    pairs = optax.LookaheadParams.init_synced(params)
    with pytest.raises(ValueError, match="perturb_weights.*LookaheadState"):
        perturb_weights(ahead, 0.1, None, 0).init(pairs)


def test_errors_of_get_center():
    params = make_params()
    with pytest.raises(ValueError, match="perturb_weights"):
        get_center(optax.sgd(0.1, 0.9).init(params))
    state = recipe().init(params)
    with pytest.raises(ValueError, match="2 centers.*params"):
        get_center((state, state))
    with pytest.raises(ValueError, match="two centers of 'head'"):
        get_center((state, state), params)
    wrong = {**params, "kernel": jnp.ones((3, 7))}
    with pytest.raises(ValueError, match=r"center of 'kernel'.*\(8, 6\)"):
        get_center(state, wrong)
    seeds = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    with pytest.raises(ValueError, match="vmap"):
        get_center(seeds)


def test_it_is_refused_inside_of_what_moves_weights():
    inner = perturb_weights(optax.sgd(0.1), 0.1, GROUPS, 0)
    for tx in psi(inner, GROUPS), psi_optax.weight_rescaling(inner, GROUPS):
        with pytest.raises(ValueError, match="PerturbWeightsState.* inside"):
            tx.init(make_params())
