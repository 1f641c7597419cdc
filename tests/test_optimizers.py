"""psi and its recipes: what the inner optimizer sees, and what it may be."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import (
    ScaleGroup,
    psi,
    psi_adam,
    psi_direction,
    psi_sgd,
    psi_sgdm,
)
from tests.theory.training import walk

GROUPS = {"w": ScaleGroup(0), "o": None}


def draw(seed):
    random = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(random.normal(size=(9, 5)), jnp.float32),
        "o": jnp.asarray(random.normal(size=3), jnp.float32),
    }


def spy(seen):
    """An inner optimizer that shows what it was shown."""

    def init_fn(params):
        seen.setdefault("init", params)  # A trial of the sign follows.
        return optax.EmptyState()

    def update_fn(updates, state, params=None, **extra_args):
        seen.update(updates=updates, params=params, extra_args=extra_args)
        return jax.tree.map(lambda g: -0.1 * g, updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def test_inner_sees_directions_and_gradients_of_degree_zero():
    seen, w, g = {}, draw(0), draw(1)
    tx = psi(spy(seen), GROUPS)
    tx.update(g, tx.init(w), w, value=3.0)
    r = np.linalg.norm(w["w"], axis=0, keepdims=True)
    # A few roundings of 6e-8 in a norm and a product.
    close = {"rtol": 4e-7}
    np.testing.assert_allclose(seen["updates"]["w"], g["w"] * r, **close)
    np.testing.assert_allclose(seen["params"]["w"], w["w"] / r, **close)
    np.testing.assert_allclose(seen["init"]["w"], w["w"] / r, **close)
    for shown, own in [("updates", g), ("params", w), ("init", w)]:
        np.testing.assert_array_equal(seen[shown]["o"], own["o"])
    assert seen["extra_args"] == {"value": 3.0}


def one_step(tx, params=None, gradient=None):
    w = draw(0) if params is None else params
    g = draw(1) if gradient is None else gradient
    return tx.update(g, tx.init(w), w)


def test_an_optimizer_and_its_direction_with_a_rate_agree():
    whole, _ = one_step(psi(optax.sgd(0.1, momentum=0.9), GROUPS))
    split, _ = one_step(psi_direction(0.1, optax.trace(0.9), GROUPS))
    recipe, _ = one_step(psi_sgd(0.1, GROUPS, momentum=0.9, nesterov=True))
    nesterov = optax.trace(0.9, nesterov=True)
    same, _ = one_step(psi_direction(0.1, nesterov, GROUPS))
    # The rate is multiplied in before or after the sums: a few roundings of
    # weights that are about 1.
    np.testing.assert_allclose(whole["w"], split["w"], atol=5e-7)
    np.testing.assert_array_equal(whole["o"], split["o"])
    jax.tree.map(np.testing.assert_array_equal, same, recipe)


@pytest.mark.usefixtures("optax_promotion")
def test_an_optimizer_of_their_own_for_ordinary_parameters():
    own = optax.adam(0.3)
    for tx in [
        psi(optax.sgd(0.1), GROUPS, ordinary=own),
        psi_direction(0.1, optax.identity(), GROUPS, ordinary=own),
        psi_sgd(0.1, GROUPS, ordinary=own),
        psi_adam(0.05, GROUPS, ordinary=own),
        psi_optax.sgd_g(0.1, GROUPS, ordinary=own),
        psi_optax.adam_g(0.1, GROUPS, ordinary=own),
        psi_optax.rotational(0.1, optax.trace(0.9), GROUPS, ordinary=own),
        psi_optax.adamh(0.1, GROUPS, ordinary=own),
        psi_optax.adamh(0.1, GROUPS, ordinary=own, equivariant=False),
    ]:
        u, _ = one_step(tx)
        expected, _ = own.update(draw(1), own.init(draw(0)), draw(0))
        np.testing.assert_array_equal(u["o"], expected["o"])
    for tx in psi(optax.sgd(0.1), GROUPS), psi_optax.sgd_g(0.1, GROUPS):
        alone, _ = one_step(tx)
        np.testing.assert_allclose(alone["o"], -0.1 * draw(1)["o"], rtol=1e-6)


def test_clipping_inside_does_not_see_parameters_that_have_their_own():
    clip = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    huge = {"w": draw(1)["w"], "o": jnp.full(3, 1e6)}
    tx = psi(clip, GROUPS, ordinary=optax.sgd(0.1))
    quiet, _ = one_step(tx)
    loud, _ = one_step(tx, gradient=huge)
    np.testing.assert_array_equal(quiet["w"], loud["w"])
    shared, _ = one_step(psi(clip, GROUPS), gradient=huge)
    assert np.any(shared["w"] != loud["w"])


def test_schedules_count_from_zero():
    rates = [0.5, 0.0, 0.25]
    tx = psi_sgd(lambda count: jnp.asarray(rates)[count], GROUPS)
    w, state = draw(0), tx.init(draw(0))
    g = draw(1)
    for i, rate in enumerate(rates):
        u, state = tx.update(g, state, w)
        np.testing.assert_allclose(u["o"], -rate * g["o"], rtol=1e-6)
        expected, _ = one_step(psi_sgd(rate, GROUPS), w, g)
        np.testing.assert_array_equal(u["w"], expected["w"])
        assert u["w"].any() == (rate > 0)
        assert state.count == i + 1


@pytest.mark.usefixtures("optax_promotion")
def test_psi_adam_decays_ordinary_parameters_only():
    plain, _ = one_step(psi_adam(0.05, GROUPS))
    decayed, _ = one_step(psi_adam(0.05, GROUPS, weight_decay=0.01))
    np.testing.assert_array_equal(plain["w"], decayed["w"])
    np.testing.assert_allclose(
        decayed["o"] - plain["o"], -0.05 * 0.01 * draw(0)["o"], atol=3e-8
    )
    assert np.any(decayed["o"] != plain["o"])


def test_psi_sgdm_rescales_its_buffer_with_the_weights():
    tx = psi_sgdm(0.1, GROUPS, momentum=0.9)
    w, state = draw(0), tx.init(draw(0))
    for seed in range(1, 4):
        before = state.momentum["w"]
        r = np.linalg.norm(w["w"], axis=0, keepdims=True)
        g = draw(seed)
        u, state = tx.update(g, state, w)
        step = 0.9 * before - 0.1 * r * r * g["w"]
        norm = np.linalg.norm(w["w"] + step, axis=0, keepdims=True)
        factor = r / norm
        np.testing.assert_allclose(
            state.momentum["w"], factor * step, rtol=2e-6, atol=1e-6
        )
        w = optax.apply_updates(w, u)
    assert np.max(np.abs(1 - factor)) > 0.05  # The factor is not idle.


def test_the_momentum_of_psi_sgdm_is_scaled_like_the_weights():
    # A step that also shortens the group, as far as bfloat16 allows.
    w = (1000 * np.eye(2)[:1].T).astype(jnp.bfloat16)
    g = np.array([[0.0], [-0.001]], jnp.bfloat16)
    tx = psi_sgdm(0.25, ScaleGroup(0), momentum=0.5, radius=1.0)
    _, state = tx.update(g, tx.init(w), w)
    # u is a quarter of 1000, |w + u| is sqrt(17/16) of 1000, and that becomes
    # 1000/16; all of it rounded to 2^-8, a few times.
    expected = 0.25 * 1000 / 16 / np.sqrt(17 / 16)
    got = np.asarray(state.momentum, np.float64)[1, 0]
    np.testing.assert_allclose(got, expected, rtol=4 * 2.0**-8)


def test_psi_sgdm_is_sgd_for_ordinary_parameters():
    sgd = optax.sgd(0.1, momentum=0.9)
    for groups in [GROUPS, None]:
        paths = [
            walk(tx, draw(0), map(draw, range(1, 4)))[0]
            for tx in (psi_sgdm(0.1, groups), sgd)
        ]
        for ours, theirs in zip(*paths, strict=True):
            np.testing.assert_allclose(ours["o"], theirs["o"], rtol=1e-6)


@pytest.mark.usefixtures("optax_promotion")
def test_without_groups_psi_is_its_inner_optimizer():
    inner = optax.adamw(0.1)
    u, _ = one_step(psi(inner, None))
    expected, _ = one_step(inner)
    jax.tree.map(np.testing.assert_array_equal, u, expected)


def quadratic(params):
    return jnp.sum(params["w"] ** 2) + jnp.sum(params["o"] ** 2)


UNSUPPORTED = {
    "schedule_free": lambda: optax.contrib.schedule_free_sgd(0.1),
    "sam": lambda: optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)),
    "lbfgs": optax.lbfgs,
    "line search": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10)
    ),
    "nested": lambda: optax.chain(
        optax.MultiSteps(
            optax.contrib.schedule_free_sgd(0.1), 2
        ).gradient_transformation()
    ),
}


@pytest.mark.parametrize("which", UNSUPPORTED)
def test_optimizers_that_a_retraction_would_leave_behind(which):
    tx = psi(UNSUPPORTED[which](), GROUPS)
    with pytest.raises(ValueError, match=r"psi .*\w+State"):
        tx.init(draw(0))


def test_lookahead_is_refused():
    fast = optax.LookaheadParams.init_synced(draw(0))
    tx = psi(optax.lookahead(optax.sgd(0.1), 5, 0.5), None)
    with pytest.raises(ValueError, match="LookaheadState"):
        tx.init(fast)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: psi(optax.sgd(0.1), GROUPS, radius=1.0, retraction=None),
        lambda: psi_sgdm(0.1, GROUPS, radius=1.0, retraction=None),
        lambda: psi(
            optax.sgd(0.1), GROUPS, retraction="exponential", tangent=False
        ),
    ],
)
def test_options_that_exclude_each_other(wrong):
    with pytest.raises(ValueError, match="retraction="):
        wrong()


def test_derivatives_do_not_stop_at_a_step_of_zero():
    w, g = jnp.array([3.0, 4.0]), jnp.array([-0.8, 0.6])

    def moved(rate, g):
        tx = psi_sgd(rate, ScaleGroup(0))
        return tx.update(g, tx.init(w), w)[0]

    # w' = w - rate |w|² g to first order, where either is zero.
    by_rate = jax.jacobian(moved, 0)(0.0, g)
    np.testing.assert_allclose(by_rate, -25 * g, rtol=1e-6)
    by_gradient = jax.jacobian(moved, 1)(0.1, jnp.zeros(2))
    tangent = jnp.eye(2) - jnp.outer(w, w) / 25
    np.testing.assert_allclose(by_gradient, -2.5 * tangent, atol=1e-6)


def test_a_wrong_inner_optimizer_is_told_apart():
    def lose(updates, state, params=None):
        return {"o": updates["o"]}, state

    inner = optax.GradientTransformation(optax.init_empty_state, lose)
    with pytest.raises(
        ValueError, match=r"'w' of shape \(9, 5\).*inner optimizer"
    ):
        one_step(psi(inner, GROUPS))


def test_additive_psi_keeps_no_radius():
    tx = psi_sgd(0.1, GROUPS, retraction=None)
    assert tx.init(draw(0)).radius is None
    u, _ = one_step(tx)
    w = draw(0)
    r = psi_optax.group_norms(w, GROUPS)["w"]
    g = psi_optax.transforms.project_to_tangent(GROUPS).update(draw(1), (), w)[
        0
    ]["w"]
    # The product of three numbers of size one and of nine in a sum.
    np.testing.assert_allclose(u["w"], -0.1 * r[None] ** 2 * g, atol=2e-6)
