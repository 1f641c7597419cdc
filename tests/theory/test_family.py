"""What each method of the family says of itself, by arithmetic.

Equality with other libraries is in `tests/oracles/test_ours.py`, equivariance
in `test_equivariance.py`; here are the invariants of each rule.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.theory.networks import (
    bn_mlp,
    mixed_network,
    rayleigh,
    rayleigh_gradient,
    rayleigh_with_gains,
)
from tests.theory.scales import norms
from tests.theory.training import lenient, path_of, quick_jit, step, train

pytestmark = pytest.mark.usefixtures("x64")

COLUMNS = ScaleGroup(axes=0)

# 300 steps, each of a few operations on numbers of about 1, rounded to 1e-16.
ROUNDING = 1e-12


def unit(w):
    return w / np.linalg.norm(w, axis=-2, keepdims=True)


def angles(path, start):
    """By which every column turns in every step."""
    before = unit(np.concatenate([start[None], path[:-1]]))
    after = unit(path)
    apart = np.linalg.norm(after - before, axis=1)
    return 2 * np.arcsin(apart / 2)


# SGD-G and Adam-G.


def test_momentum_of_sgd_g_is_tangent_and_as_long_as_the_step():
    problem = rayleigh()
    tx = psi_optax.sgd_g(0.1, COLUMNS, max_norm=None)
    params, state = problem.params, tx.init(problem.params)
    for matrix in problem.batches[:20]:
        before = unit(params)
        gradient = rayleigh_gradient(before, matrix) / np.linalg.norm(
            params, axis=0
        )
        params, state = step(tx, gradient, state, params)
        after, tau = unit(params), np.asarray(state.inner[-1].trace)
        # Where it stands it is tangent still to where the step began.
        assert np.abs((before * tau).sum(0)).max() < 1e-14
        turned = 2 * np.arcsin(np.linalg.norm(after - before, axis=0) / 2)
        np.testing.assert_allclose(
            np.linalg.norm(tau, axis=0), turned, rtol=1e-13
        )
        # And along the great circle: in the plane of both.
        normal = after - before * (before * after).sum(0)
        cosine = (normal * tau).sum(0) / np.linalg.norm(normal, axis=0)
        np.testing.assert_allclose(
            cosine, np.linalg.norm(tau, axis=0), rtol=1e-13
        )
    np.testing.assert_allclose(
        norms(params, problem.ids),
        norms(problem.params, problem.ids),
        rtol=1e-15,
    )


def test_a_turn_of_360_degrees_returns():
    w = np.random.RandomState(0).normal(size=(5, 3))
    gradient = np.random.RandomState(1).normal(size=(5, 3))
    radius = np.linalg.norm(w, axis=0)
    gradient -= w * (w * gradient).sum(0) / radius**2
    gradient /= radius * np.linalg.norm(gradient, axis=0)
    for turn, returns in [(2 * np.pi, True), (np.pi, False)]:
        tx = psi_optax.sgd_g(turn, COLUMNS, max_norm=None)
        after, _ = step(tx, gradient, tx.init(w), w)
        # sin(2 pi) is 2e-16 in floats, and the norms of gradients are rounded.
        np.testing.assert_allclose(after, w if returns else -w, atol=1e-14)


def test_clipping_bounds_what_enters_the_momentum():
    problem = rayleigh(100)
    bound, rate, decay = 0.05, 0.2, 0.9
    tx = psi_optax.sgd_g(rate, COLUMNS, decay, max_norm=bound)
    turns = angles(path_of(tx, problem), problem.params)
    assert turns.max() <= rate * bound / (1 - decay) * (1 + 1e-9)
    loose = psi_optax.sgd_g(rate, COLUMNS, decay, max_norm=None)
    assert angles(path_of(loose, problem), problem.params).max() > 0.2


def test_adam_g_has_one_second_moment_a_group():
    problem = mixed_network(3)
    _, state = train(lenient(psi_optax.adam_g(0.1, problem.groups)), problem)
    adam = state.inner[1].inner_states["scale"].inner_state
    shapes = jax.tree.map(jnp.shape, adam.nu)
    assert shapes == {"batch": (16,), "layer/bias": (), "group": (2,)}


@pytest.mark.parametrize(
    ("scale", "rotates"),
    [
        (lambda: psi_optax.scale_by_group_adam(COLUMNS), True),
        (
            lambda: psi_optax.scale_by_group_adam(
                COLUMNS, transport="parallel"
            ),
            True,
        ),
        (lambda: psi_optax.scale_by_group_rms(COLUMNS), True),
        (optax.scale_by_adam, False),
    ],
)
def test_one_second_moment_a_group_sees_no_axes(scale, rotates):
    # Rotate weights and gradients, and updates are rotated: by an orthogonal
    # matrix, whose products round a few times, 1e-16 each.
    tx = lenient(scale())
    random = np.random.RandomState(0)
    rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]
    w = unit(random.normal(size=(6, 4)))
    state = turned_state = tx.init(jnp.asarray(w))
    update = quick_jit(tx.update)
    for _ in range(5):
        gradient = random.normal(size=(6, 4))
        plain, state = update(gradient, state, w)
        turned, turned_state = update(
            rotation @ gradient, turned_state, rotation @ w
        )
        error = np.abs(rotation @ plain - turned).max()
        w = unit(w - 0.1 * plain)
    assert error < 1e-14 if rotates else error > 0.1


def test_momentum_with_parallel_transport_keeps_its_length():
    w = unit(np.random.RandomState(0).normal(size=(6, 4)))
    there = unit(np.random.RandomState(1).normal(size=(6, 4)))
    g = np.random.RandomState(2).normal(size=(6, 4))
    g -= w * (w * g).sum(0)
    lengths = {}
    for transport in ("parallel", "projection"):
        tx = psi_optax.transported_trace(COLUMNS, 1.0, transport=transport)
        _, state = tx.update(g, tx.init(w), w)
        m, _ = tx.update(np.zeros_like(g), state, there)
        # Tangent at the new place, both of them.
        np.testing.assert_allclose((m * there).sum(0), 0, atol=1e-15)
        lengths[transport] = np.linalg.norm(m, axis=0)
    np.testing.assert_allclose(
        lengths["parallel"], np.linalg.norm(g, axis=0), rtol=1e-14
    )
    assert (lengths["projection"] < 0.99 * lengths["parallel"]).any()


# The penalty on what is not orthogonal.


@pytest.mark.parametrize("make", [bn_mlp, mixed_network])
def test_orthogonality_is_the_gradient_of_its_penalty(make):
    problem = make(1)
    tx = psi_optax.add_orthogonality(0.3, problem.groups)
    zeros = jax.tree.map(np.zeros_like, problem.params)
    got, _ = tx.update(zeros, tx.init(problem.params), problem.params)
    expected = jax.grad(lambda p: 0.3 * penalty(p, problem.ids))(
        jax.tree.map(jnp.asarray, problem.params)
    )
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
        psi_optax.add_orthogonality(0.1, COLUMNS),
        psi_optax.psi_sgd(1.0, COLUMNS),
    )
    state, zeros, last = tx.init(w), np.zeros_like(w), w
    for _ in range(100):
        last, state = step(tx, zeros, state, last)
    off = np.abs(unit(last).T @ unit(last) - np.eye(4)).max()
    # Linear convergence, by 1 - 4 * 0.1 a step near the end.
    assert off < 1e-12
    assert np.abs(unit(w).T @ unit(w) - np.eye(4)).max() > 0.3


# SGDP and AdamP.


@pytest.mark.parametrize("name", ["sgdp", "adamp"])
def test_steps_are_orthogonal_to_weights_and_norms_grow_by_pythagoras(name):
    problem = rayleigh(50)
    tx = lenient(getattr(psi_optax, name)(0.05, COLUMNS))
    path = path_of(tx, problem)
    before = np.concatenate([problem.params[None], path[:-1]])
    change = path - before
    radial = (change * before).sum(1) / np.linalg.norm(before, axis=1)
    assert np.abs(radial).max() < 1e-15
    square = (before**2).sum(1) + (change**2).sum(1)
    np.testing.assert_allclose((path**2).sum(1), square, rtol=1e-14)
    plain = path_of(optax.sgd(0.05, momentum=0.9), problem)
    change = np.diff(plain, axis=0)
    assert np.abs((change * plain[:-1]).sum(1)).max() > 1e-2


def test_groups_decay_less_than_ordinary_parameters():
    params = {"w": np.ones((3, 2)), "b": np.ones(2)}
    groups = {"w": COLUMNS, "b": None}
    zeros = jax.tree.map(np.zeros_like, params)
    tx = psi_optax.sgdp(0.1, groups, 0.5, weight_decay=0.2, wd_ratio=0.25)
    updates, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_allclose(updates["b"], -0.1 * 0.2 / 0.5, rtol=1e-15)
    np.testing.assert_allclose(updates["w"], -0.01, rtol=1e-15)


# Weight rescaling and joint groups.


def test_weight_rescaling_layer_by_layer_keeps_ratios_within_a_layer():
    problem = bn_mlp(50)
    layers = psi_optax.joint_groups(problem.groups)
    tx = psi_optax.weight_rescaling(
        optax.sgd(0.1), layers, every=5, radius="init"
    )
    path = path_of(tx, problem)
    plain = path_of(optax.sgd(0.1), problem)
    for layer in ("first", "second"):
        whole = np.linalg.norm(path[layer], axis=(1, 2))
        due = np.arange(1, 51) % 5 == 0
        start = np.linalg.norm(problem.params[layer])
        np.testing.assert_allclose(whole[due], start, rtol=1e-15)
        assert np.all(np.abs(whole[~due] / start - 1) > 1e-6)
        # Until the first rescaling nothing is different; it is by one factor.
        now, then = path[layer][4], plain[layer][4]
        np.testing.assert_array_equal(path[layer][:4], plain[layer][:4])
        factor = now / then
        np.testing.assert_allclose(factor, factor[0, 0], rtol=1e-13)


def test_the_sphere_of_a_whole_network():
    """Training at a fixed effective learning rate, as Kodryan et al. do.

    SGD with the rate ELR |W|^2, then all weights are rescaled together to the
    norm that they had together.
    """
    problem, rate = bn_mlp(100), 0.02
    sphere = psi_optax.joint_groups(problem.groups, tie="network")
    tx = psi_optax.psi_sgd(rate, sphere, ordinary=optax.sgd(0.1))
    path = path_of(tx, problem)

    gradient = quick_jit(jax.grad(problem.loss))
    params = problem.params
    kernels = ("first", "second")
    radius = np.sqrt(sum((params[k] ** 2).sum() for k in kernels))
    for time in range(100):
        batch = jax.tree.map(lambda x, t=time: x[t], problem.batches)
        slope = gradient(params, batch)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, slope) | {
            k: params[k] + (0.1 - 0.1 - rate * radius**2) * slope[k]
            for k in kernels
        }
        norm = np.sqrt(sum((params[k] ** 2).sum() for k in kernels))
        params |= {k: params[k] * radius / norm for k in kernels}
    for k in params:
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x[-1], y, atol=1e-10),
            path[k],
            params[k],
        )
    # Filters exchange norm, which the spheres of filters do not allow.
    moved = norms(path, problem.ids)[-1] / norms(problem.params, problem.ids)
    assert np.ptp(moved) > 0.05


def test_joint_groups_keep_ties_and_need_the_groups_to_fit():
    problem = mixed_network(1)
    found = psi_optax.joint_groups(problem.groups).groups_for(problem.params)
    assert found["batch"] == ScaleGroup((0, 1))
    assert found["layer/kernel"] == ScaleGroup((0, 1), tie="layer")
    assert found["layer/bias"] == ScaleGroup(0, tie="layer")
    assert found["group"] == ScaleGroup((0, 1))
    assert found["head/kernel"] is None
    assert (
        psi_optax.group_norms(
            problem.params, psi_optax.joint_groups(problem.groups, tie="all")
        )["batch"].shape
        == ()
    )
    wrong = psi_optax.joint_groups({"other": COLUMNS})
    with pytest.raises(ValueError, match="groups say nothing of 'batch'"):
        psi_optax.group_norms(problem.params, wrong)


@pytest.mark.parametrize("groups", [COLUMNS, {"a": COLUMNS, "c": COLUMNS}])
def test_a_mask_may_not_cut_a_joint_group(groups):
    params = {"a": np.ones((3, 2)), "c": np.ones((3, 2))}
    for tie in ("network", None):
        joint = psi_optax.joint_groups(groups, tie=tie)
        for hidden in ("a", "c"):
            mask = {"a": True, "c": True, hidden: False}
            tx = optax.masked(psi_optax.psi_sgd(0.1, joint), mask)
            if tie is None:
                tx.init(params)
                continue
            with pytest.raises(ValueError, match="what a mask hides"):
                tx.init(params)


# Rotation under control.


@pytest.mark.parametrize("direction", [optax.trace(0.9), optax.scale_by_adam()])
def test_rotational_turns_every_group_by_the_rate(direction):
    problem = rayleigh(300, noise=2.0)
    tx = lenient(psi_optax.rotational(0.01, direction, COLUMNS))
    turns = angles(path_of(tx, problem), problem.params)[50:]
    # A running mean over about 10 steps of squares that vary by their own size
    # is right on average: E q^2 over its estimate, 250 steps, four groups.
    mean = np.sqrt((turns**2).mean(0))
    np.testing.assert_allclose(mean, np.arctan(0.01), rtol=0.1)
    plain = lenient(psi_optax.psi(direction, COLUMNS, learning_rate=0.01))
    turns = angles(path_of(plain, problem), problem.params)[50:]
    assert np.abs(np.sqrt((turns**2).mean(0)) / 0.01 - 1).min() > 0.2


def test_every_step_of_a_hyperball_is_as_long_as_it_is_told():
    # Without a radial part in the direction: an angle of arctan(rate).
    problem, rate = rayleigh(50), 0.02
    tx = psi_optax.hyperball(rate, optax.identity(), COLUMNS, per_tensor=False)
    path = path_of(tx, problem)
    turns = angles(path, problem.params)
    np.testing.assert_allclose(turns, np.arctan(rate), rtol=1e-12)
    np.testing.assert_allclose(
        norms(path, problem.ids),
        np.broadcast_to(norms(problem.params, problem.ids), (50, 4)),
        rtol=1e-15,
    )


def test_a_radial_part_shortens_the_step_of_a_hyperball():
    w, rate = np.array([2.0, 0.0]), 0.5
    u = np.array([3.0, -4.0])  # The step is rate times this over 5.
    tx = psi_optax.hyperball(rate, optax.identity(), COLUMNS)
    after = w + tx.update(u, tx.init(w), w)[0]
    expected = np.array([1 - 0.3, 0.4])
    expected *= 2 / np.linalg.norm(expected)
    np.testing.assert_allclose(after, expected, rtol=1e-15)


@pytest.mark.parametrize("equivariant", [True, False])
@pytest.mark.parametrize("make", [psi_optax.adamh, psi_optax.muonh])
def test_zero_weights_and_zero_directions_stay(make, equivariant):
    params = {"a": np.zeros((4, 3)), "b": np.ones((4, 3)), "c": np.ones((4, 3))}
    groups = dict.fromkeys(params, COLUMNS)
    gradient = {
        "a": np.ones((4, 3)),
        "b": np.zeros((4, 3)),
        "c": np.eye(4)[:, :3],
    }
    tx = lenient(make(0.1, groups, equivariant=equivariant))
    after, state = step(tx, gradient, tx.init(params), params)
    assert np.array_equal(after["a"], params["a"])
    assert np.array_equal(after["b"], params["b"])
    assert not np.array_equal(after["c"], params["c"])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after, state)))


# Decay, and means of zero.


def test_decay_of_either_kind_alone():
    params = {"w": np.full((3, 2), 2.0), "b": np.full(2, 2.0)}
    groups = {"w": COLUMNS, "b": None}
    zeros = jax.tree.map(np.zeros_like, params)
    for kind, decays in [("scale", "w"), ("ordinary", "b")]:
        tx = psi_optax.add_weight_decay(0.25, groups, of=kind)
        updates, _ = tx.update(zeros, tx.init(params), params)
        for path, x in updates.items():
            assert np.all(x == (0.5 if path == decays else 0))


@pytest.mark.parametrize(
    "make",
    [
        lambda g: psi_optax.psi(
            optax.chain(optax.trace(0.9), psi_optax.project_to_zero_mean(g)),
            g,
            learning_rate=0.05,
        ),
        lambda g: psi_optax.rotational(
            0.02, optax.trace(0.9), g, centered=True
        ),
        lambda g: optax.chain(
            psi_optax.scale_by_group_norm(g),
            optax.sgd(0.05),
            psi_optax.scale_by_group_norm(g),
            psi_optax.project_to_tangent(g, centered=True),
            psi_optax.retract(g),
        ),
    ],
)
def test_centered_weights_stay_centered(make):
    problem = rayleigh()
    start = psi_optax.normalize(
        problem.params, COLUMNS, radius=2.0, centered=True
    )
    assert np.abs(start.mean(0)).max() < 1e-15
    path = path_of(make(COLUMNS), problem, start)
    assert np.abs(path.mean(1)).max() < ROUNDING
    assert np.abs(path[-1] - start).max() > 0.5
    free = path_of(psi_optax.psi_sgd(0.05, COLUMNS, 0.9), problem, start)
    assert np.abs(free.mean(1)).max() > 0.01


def test_centered_descent_finds_the_minimum_among_centered_weights():
    # The least eigenvalue of the matrix between projections to mean zero.
    problem = rayleigh(300, noise=0.0)
    matrix = problem.batches[0]
    center = np.eye(9) - 1 / 9
    least = np.linalg.eigvalsh(center @ matrix @ center + 9 * np.ones((9, 9)))[
        0
    ]
    start = psi_optax.normalize(problem.params, COLUMNS, centered=True)
    tx = psi_optax.psi(
        optax.chain(optax.identity(), psi_optax.project_to_zero_mean(COLUMNS)),
        COLUMNS,
        learning_rate=0.4,
    )
    v = unit(path_of(tx, problem, start)[-1])
    found = (v * (matrix @ v)).sum(0)
    # Convergence like (1 - 0.8 gap)^2 a step, with a gap of about 0.1.
    np.testing.assert_allclose(found, least, rtol=1e-9)
    assert least > 1.01 * np.linalg.eigvalsh(matrix)[0]


def test_ordinary_parameters_follow_the_direction_or_their_own_optimizer():
    problem = rayleigh_with_gains(20)
    own = optax.sgd(0.01)
    expected = {
        "sgd_g": psi_optax.sgd_g(0.1, problem.groups, ordinary=own),
        "adam_g": lenient(psi_optax.adam_g(0.1, problem.groups, ordinary=own)),
        "rotational": psi_optax.rotational(
            0.1, optax.trace(0.9), problem.groups, ordinary=own
        ),
        "adamh": lenient(psi_optax.adamh(0.1, problem.groups, ordinary=own)),
        "raw": lenient(
            psi_optax.adamh(
                0.1, problem.groups, ordinary=own, equivariant=False
            )
        ),
    }
    gradient = {"w": np.ones((9, 4)), "gains": np.full(4, 3.0)}
    for tx in expected.values():
        after, _ = step(tx, gradient, tx.init(problem.params), problem.params)
        np.testing.assert_allclose(after["gains"], 1 - 0.03, rtol=1e-15)
    followed = psi_optax.sgd_g(0.1, problem.groups)
    after, _ = step(
        followed, gradient, followed.init(problem.params), problem.params
    )
    np.testing.assert_allclose(after["gains"], 1 - 0.3, rtol=1e-15)


# Mistakes.


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: psi_optax.sgd_g(None, COLUMNS), TypeError),
        (lambda: psi_optax.sgd_g(0.1, COLUMNS, max_norm=0.0), ValueError),
        (lambda: psi_optax.adam_g("fast", COLUMNS), TypeError),
        (lambda: psi_optax.sgdp(None, COLUMNS), TypeError),
        (lambda: psi_optax.rotational(0.1, 0.9, COLUMNS), TypeError),
        (lambda: psi_optax.psi_sgd(0.1, COLUMNS, optax.sgd(0.1)), TypeError),
        (lambda: psi_optax.psi_sgdm(0.1, COLUMNS, "high"), TypeError),
        (lambda: psi_optax.hyperball(0.1, None, COLUMNS), TypeError),
        (lambda: psi_optax.weight_rescaling(0.1, COLUMNS), TypeError),
        (
            lambda: psi_optax.transported_trace(COLUMNS, transport=""),
            ValueError,
        ),
        (
            lambda: psi_optax.scale_by_group_adam(COLUMNS, transport="exact"),
            ValueError,
        ),
        (lambda: psi_optax.add_orthogonality(0.0, COLUMNS), ValueError),
        (lambda: psi_optax.add_weight_decay(0.1, COLUMNS, of="bn"), ValueError),
        (
            lambda: psi_optax.project_by_cosine(optax.trace(0.9), channels="c"),
            ValueError,
        ),
        (
            lambda: psi_optax.psi(
                optax.sgd(0.1), COLUMNS, retraction="exponential", tangent=False
            ),
            ValueError,
        ),
    ],
)
def test_wrong_options_are_refused_at_once(make, error):
    with pytest.raises(
        error, match="choose|positive|give|transformation|leave|is no number"
    ):
        make()


def test_decay_may_be_a_schedule():
    params = {"w": np.ones((3, 2)), "b": np.ones(2)}
    groups = {"w": COLUMNS, "b": None}
    zeros = jax.tree.map(np.zeros_like, params)
    schedule = optax.linear_schedule(0.2, 0.0, 2)
    tx = lenient(psi_optax.sgdp(0.1, groups, 0.5, weight_decay=schedule))
    state = tx.init(params)
    for decay in (0.2, 0.1, 0.0):
        updates, state = tx.update(zeros, state, params)
        # The schedule is float32.
        np.testing.assert_allclose(updates["b"], -0.2 * decay, rtol=1e-6)
        np.testing.assert_allclose(updates["w"], -0.02 * decay, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: psi_optax.sgdp(0.1, COLUMNS, momentum=1.0),
        lambda: psi_optax.scale_by_group_rms(COLUMNS, decay=1.0),
        lambda: psi_optax.adam_g(0.1, COLUMNS, b2=-0.1),
    ],
)
def test_a_decay_of_one_or_more_is_refused(make):
    with pytest.raises(ValueError, match=r"is not in \[0, 1\)"):
        make()


def test_orthogonality_of_nothing():
    params = {"none": np.zeros((3, 0)), "w": np.ones((3, 2))}
    tx = psi_optax.add_orthogonality(1.0, dict.fromkeys(params, COLUMNS))
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["none"].shape == (3, 0)
    assert np.isfinite(updates["w"]).all()


def test_normalizing_what_is_its_mean():
    w = np.array([[0.1, 1.0, 1.0], [0.1, 2.0, 1.0], [0.1, 6.0, 1.0]])
    got = psi_optax.normalize(w, COLUMNS, 2.0, centered=True)
    np.testing.assert_array_equal(got[:, [0, 2]], w[:, [0, 2]])
    expected = np.array([-2.0, -1.0, 3.0])
    expected *= 2 / np.linalg.norm(expected)
    np.testing.assert_allclose(got[:, 1], expected, rtol=1e-15)
    one = psi_optax.normalize(np.ones((1, 2)), COLUMNS, centered=True)
    np.testing.assert_array_equal(one, 1.0)


def test_dimension_numbers_of_muonh():
    # As a tree and as a function, beside what is no matrix.
    numbers = optax.contrib.MuonDimensionNumbers(1, 0)
    random = np.random.RandomState(0)
    shapes = {"w": (4, 3), "v": (5,), "head": (3, 2)}
    params = {k: random.normal(size=s) for k, s in shapes.items()}
    gradient = {k: random.normal(size=s) for k, s in shapes.items()}
    groups = {"w": COLUMNS, "v": COLUMNS, "head": None}
    found = []
    for given in (
        {"w": numbers, "v": None, "head": None},
        lambda tree: jax.tree.map(lambda _: numbers, tree),
        None,
    ):
        tx = psi_optax.muonh(0.1, groups, weight_dimension_numbers=given)
        found.append(step(lenient(tx), gradient, tx.init(params), params)[0])
    np.testing.assert_array_equal(found[0]["w"], found[1]["w"])
    # Newton-Schulz does not see which side is which, but for rounding.
    np.testing.assert_allclose(found[0]["w"], found[2]["w"], atol=1e-10)
