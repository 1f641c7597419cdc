"""carry_moments: a run goes on under another optimizer as under its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import psi_optax
from psi_optax import geometry, joint_groups
from psi_optax.groups import make_plan
from psi_optax.optimizers import carry_moments
from psi_optax.transforms import (
    project_to_tangent,
    retract,
    scale_by_group_norm,
)
from tests.registry import GROUPS, draw
from tests.theory.training import lenient, step, walk

RATE = 0.01
STEPS, MORE = 50, 10
ORDINARY = "head"

DIRECTIONS = {
    "adam": optax.scale_by_adam(eps=0.0),
    "momentum": optax.trace(0.9),
    "lion": optax.scale_by_lion(),
}


def gradients(count, first=1):
    return [draw(seed, "float64") for seed in range(first, first + count)]


def held_by_a_retraction(direction):
    """The steps of psi, of which the direction sees raw gradients."""
    return optax.chain(
        direction,
        project_to_tangent(GROUPS),
        scale_by_group_norm(GROUPS),
        optax.scale_by_learning_rate(RATE),
        retract(GROUPS),
    )


def gap(one, other):
    gaps = jax.tree.map(lambda x, y: np.max(np.abs(x - y)), one, other)
    return max(jax.tree.leaves(gaps))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_run_goes_on_as_if_psi_had_run_from_the_start(name):
    """Norms are constant in it, so that this is exact."""
    start, path = draw(0, "float64"), gradients(STEPS)
    rest = gradients(MORE, STEPS + 1)
    new = lenient(psi_optax.psi_direction(RATE, DIRECTIONS[name], GROUPS))
    _, whole = walk(new, start, path, move=step)
    old = lenient(held_by_a_retraction(DIRECTIONS[name]))
    places, state = walk(old, start, path, move=step)
    carried, _ = carry_moments(
        state, new.init(places[-1]), places[-1], GROUPS, count=STEPS
    )
    # Moments below 30, and second moments below 100. Norms are constant to two
    # ulp, and so r g agrees to four roundings, its square to eight.
    assert gap(carried.inner, whole.inner) < 100 * 8 * 2.0**-52
    assert carried.count == whole.count == STEPS

    def ends(state):
        return walk(new, places[-1], rest, state, step)[0][-1]

    expected = ends(whole)
    # Ten steps, each of two roundings of weights below 4.
    assert gap(ends(carried), expected) < 10 * 2 * 4 * 2.0**-52
    # A step without moments, or with those of other gradients, differs.
    for wrong in (new.init(places[-1]), carried._replace(inner=raw(state))):
        assert gap(ends(wrong), expected) > 10 * RATE


def raw(state):
    """Return the state of the direction in `held_by_a_retraction`."""
    return jax.tree.map(jnp.asarray, state[0])


def test_second_moments_are_off_by_the_change_of_norms_at_most():
    """Weights grow by a factor of 1.5 while moments are formed."""
    params, square = draw(0), jax.tree.map(np.square, draw(1))
    growth = np.linspace(1, 1.5, STEPS)
    shares = 0.9 ** np.arange(STEPS)[::-1]
    old = filled(ADAMW, params)
    nu = jax.tree.map(lambda x: np.float32(shares.sum()) * x, square)
    old = (old[0]._replace(nu=nu), *old[1:])
    # At the end, and the mean of those on the way.
    last = jax.tree.map(lambda w: np.float32(growth[-1]) * w, params)
    mean = np.average(growth**2, weights=shares) / growth[-1] ** 2
    new, _ = carry_moments(old, filled(PSI_ADAM, last), last, GROUPS)
    expected = jax.tree.map(
        lambda x, r: np.float32(mean) * x * r * r, nu, norms_of(last)
    )
    # Off by 1 / mean, and six roundings.
    assert 1.1 < 1 / mean < 1.5**2
    for key in ("hidden", "blocks", "vector"):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(
                x * mean, y, rtol=6 * 2.0**-24
            ),
            new.inner[0].nu[key],
            expected[key],
        )


def norms_of(params):
    """Return the norm of each weight's group in its place; 1 without one."""
    plan = make_plan(GROUPS, params)
    ones = jax.tree.map(jnp.ones_like, params)
    norms = geometry.norm(plan, plan.select(params))
    return plan.merge(ones, geometry.scale(plan, plan.select(ones), norms))


# What is found where. States are made of shapes, and filled with numbers.

SCHEDULE = optax.cosine_decay_schedule(RATE, 1000)
ADAMW = optax.adamw(SCHEDULE)
PSI_ADAM = psi_optax.psi_adam(SCHEDULE, GROUPS)
LABELS = {"hidden": "a", "blocks": "a", "vector": "b", "head": "b"}
CLIP = optax.clip_by_global_norm(1.0)


def filled(tx, params, count=STEPS):
    """Return a state of positive numbers, of norms, and of one count."""
    random = np.random.RandomState(3)

    def fill(path, x):
        if "radius" in jax.tree_util.keystr(path):
            return x
        if x.dtype == jnp.int32:
            return np.full(x.shape, count, x.dtype)
        return random.uniform(1, 2, x.shape).astype(x.dtype)

    return jax.tree.map_with_path(fill, jax.jit(tx.init)(params))


PAIRS = {
    "clip": (
        optax.chain(CLIP, ADAMW),
        psi_optax.psi(optax.chain(CLIP, ADAMW), GROUPS),
    ),
    "ordinary": (
        ADAMW,
        psi_optax.psi_adam(RATE, GROUPS, ordinary=optax.adamw(SCHEDULE)),
    ),
    "inject": (
        optax.inject_hyperparams(optax.adamw)(SCHEDULE),
        optax.inject_hyperparams(psi_optax.psi_adam)(SCHEDULE, groups=GROUPS),
    ),
    "accumulate": (
        optax.MultiSteps(ADAMW, 2),
        optax.MultiSteps(PSI_ADAM, 2),
    ),
    "partition": (
        optax.partition({"a": ADAMW, "b": ADAMW}, LABELS),
        optax.partition({"a": PSI_ADAM, "b": PSI_ADAM}, LABELS),
    ),
    "around": (
        ADAMW,
        optax.chain(
            psi_optax.wrappers.master_weights(PSI_ADAM),
            psi_optax.wrappers.average_weights(0.9),
        ),
    ),
    "rms": (
        optax.rmsprop(RATE, momentum=0.9),
        psi_optax.psi(optax.rmsprop(RATE, momentum=0.9), GROUPS),
    ),
    "bfloat16": (
        optax.adamw(SCHEDULE, mu_dtype="bfloat16"),
        psi_optax.psi(optax.adamw(SCHEDULE, mu_dtype="bfloat16"), GROUPS),
    ),
    "rotational": (
        optax.adamw(RATE),
        psi_optax.rotational(
            RATE, optax.scale_by_adam(), GROUPS, ordinary=optax.adamw(RATE)
        ),
    ),
}


def moments(state, field):
    """Return the moments of a field in all of optax's states, by path."""
    found = {}
    for path, tree in optax.tree.get_all_with_path(state, field):
        if "Group" not in path[-1].tuple_name:
            found |= by_path(tree)
    return found


def by_path(tree):
    pairs, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path): x for path, x in pairs}


def read_all(state, field):
    """Return the arrays of a field in all states."""
    found = optax.tree.get_all_with_path(state, field)
    return jax.tree.leaves([tree for _, tree in found])


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("name", PAIRS)
def test_moments_are_found_and_others_keep_their_bits(name):
    old_tx, new_tx = PAIRS[name]
    params = draw(0)
    old, fresh = filled(old_tx, params), filled(new_tx, params, 0)
    new, _ = carry_moments(old, fresh, params, GROUPS)
    norms = by_path(norms_of(params))
    # As of its own optimizer.
    assert types(new) == types(fresh)
    jax.eval_shape(new_tx.update, params, new, params)
    for field, power in (("mu", 1), ("nu", 2)):
        have, want = moments(new, field), moments(old, field)
        assert have.keys() >= want.keys()
        for path, x in want.items():
            is_ordinary = ORDINARY in path
            assert np.array_equal(x, have[path]) == is_ordinary
            if not is_ordinary:
                ratio = np.asarray(have[path], float) / np.asarray(x, float)
                norm = np.asarray(norms[path], float)
                # Two roundings of half an eps, and that of the norm.
                eps = float(jnp.finfo(have[path].dtype).eps)
                np.testing.assert_allclose(ratio, norm**power, rtol=4 * eps)
    own = {*map(int, read_all(new, "count"))}
    counts = {"rms": {0}, "around": {0, STEPS}, "rotational": {0, STEPS}}
    assert own == counts.get(name, {STEPS})
    if name == "accumulate":
        assert int(new.gradient_step) == STEPS
        assert int(new.mini_step) == 0


def types(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), x.dtype), tree)


def test_what_is_begun_anew_is_said():
    """It is as in the new state, to the bit."""
    params = draw(0)
    adam_g = psi_optax.adam_g(RATE, GROUPS)
    trace, adagrad = optax.sgd(RATE, 0.9), optax.adagrad(RATE)
    psi_rms = psi_optax.psi(optax.rmsprop(RATE, momentum=0.9), GROUPS)
    cases = [
        (ADAMW, adam_g, "ScaleByGroupAdamState", "scalar"),
        (trace, psi_optax.psi_sgdm(RATE, GROUPS), "PsiSgdmState", "count="),
        (trace, PSI_ADAM, "ScaleByAdamState", "ScaleByAdamState"),
        (ADAMW, psi_optax.sgd_g(RATE, GROUPS), "Transported", "transported"),
        (optax.rmsprop(RATE, momentum=0.9), psi_rms, "TraceState", "other"),
        (adagrad, psi_optax.psi(adagrad, GROUPS), "ScaleByRssState", "kind"),
    ]
    for old, new, kind, word in cases:
        fresh = filled(new, params, 0)
        state, notes = carry_moments(filled(old, params), fresh, params, GROUPS)
        found = [x for where, x in notes.items() if kind in where]
        assert found
        assert all(x.startswith("begun anew") and word in x for x in found)
        names = {"mu", "trace", "momentum", "sum_of_squares"}
        for field in names if kind != "ScaleByGroupAdamState" else ():
            for x, y in zip(
                read_all(state, field),
                read_all(fresh, field),
                strict=True,
            ):
                np.testing.assert_array_equal(x, y)


def test_moments_of_a_state_are_carried_wholly_or_not_at_all():
    """A head that is new has no moments for the count of the others."""
    params = draw(0)
    trunk = {key: x for key, x in params.items() if key != "head"}
    new = filled(PSI_ADAM, params, 0)
    state, notes = carry_moments(filled(ADAMW, trunk), new, params, GROUPS)
    note = notes["inner[0] ScaleByAdamState"]
    assert note.startswith("begun anew")
    assert "'head/kernel'" in note
    assert int(state.inner[0].count) == 0
    assert int(state.count) == STEPS
    apart = psi_optax.psi_adam(RATE, GROUPS, ordinary=ADAMW)
    state, notes = carry_moments(
        filled(ADAMW, trunk), filled(apart, params, 0), params, GROUPS
    )
    carried = [x.startswith("carried") for x in notes.values()]
    assert sorted(carried) == [False, True, True, True]


def test_psi_sgd_knows_the_radial_part_of_a_carried_momentum():
    params = draw(0)
    sgd, new = (
        optax.sgd(RATE, 0.9),
        psi_optax.psi_sgd(RATE, GROUPS, momentum=0.9),
    )
    begun = filled(new, params, 0)
    state, notes = carry_moments(filled(sgd, params), begun, params, GROUPS)
    plan = make_plan(GROUPS, params)
    w, m = plan.select(params), plan.select(state.inner.trace)
    dots, norms = plan.dot(w, m), geometry.norm(plan, w)
    for name, radial in state.known.radial.items():
        # The same sums in another program: roundings of 6e-8 of the factors.
        expected = dots[name] / norms[name]
        np.testing.assert_allclose(radial, expected, rtol=1e-5, atol=1e-6)
        assert (np.abs(radial) > 1e-3).any()
        assert (np.asarray(begun.known.radial[name]) != radial).any()
    assert not any("known" in where for where in notes)


def test_counts():
    params = draw(0)
    sgd, new = optax.sgd(RATE, 0.9), psi_optax.psi_sgd(RATE, GROUPS)
    old = filled(sgd, params)

    def count(old, **given):
        state, notes = carry_moments(
            old, filled(new, params, 0), params, GROUPS, **given
        )
        return int(state.count), notes["PsiState"]

    assert count(old)[0] == 0

    assert "count=" in count(old)[1]
    assert count(old, count=7)[0] == 7
    assert count(filled(ADAMW, params))[0] == STEPS
    assert count(filled(ADAMW, params), count=0)[0] == 0
    # Two runs in one state.
    both = filled(ADAMW, params), filled(ADAMW, params, 3)
    assert count(both)[0] == 0
    assert "[3, 50]" in count(both)[1]


def test_back_from_psi_and_from_psi_to_psi():
    params = draw(0)
    old = filled(ADAMW, params)
    inside, _ = carry_moments(old, filled(PSI_ADAM, params), params, GROUPS)
    back, _ = carry_moments(inside, filled(ADAMW, params, 0), params, GROUPS)
    for field in ("mu", "nu"):
        have, want = (getattr(x[0], field) for x in (back, old))
        # Four products of half an eps each.
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=2.4e-7),
            have,
            want,
        )
    again, _ = carry_moments(inside, filled(PSI_ADAM, params), params, GROUPS)
    jax.tree.map(np.testing.assert_array_equal, again.inner, inside.inner)
    # A group of norm zero, which never moves.
    zero = {**params, "vector": jnp.zeros_like(params["vector"])}
    radius = {**inside.radius, "vector": jnp.zeros([])}
    inside = inside._replace(radius=radius)
    back, _ = carry_moments(inside, filled(ADAMW, zero), zero, GROUPS)
    assert not np.any(back[0].mu["vector"])


def test_balls_of_whole_tensors():
    params = draw(0)
    muon = optax.contrib.muon(RATE)
    new = psi_optax.muonh(RATE, GROUPS, ordinary=optax.adamw(RATE))
    old, fresh = filled(muon, params), filled(new, params, 0)
    state, notes = carry_moments(old, fresh, params, joint_groups(GROUPS))
    ratio = (
        moments(state, "mu")["['blocks']"] / moments(old, "mu")["['blocks']"]
    )
    norm = np.linalg.norm(params["blocks"])
    np.testing.assert_allclose(ratio, np.full((3, 8), norm), rtol=4e-7)
    # Muon had the head's matrix, of which Adam now begins.
    [anew] = [x for x in notes.values() if not x.startswith("carried")]
    assert "ScaleByAdamState for 'head/kernel'" in anew
    with pytest.raises(ValueError, match=r"'blocks'.*joint_groups"):
        carry_moments(old, fresh, params, GROUPS)


def test_nnx():
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    groups = psi_optax.output_channels(params, where="kernel")
    old = nnx.Optimizer(model, optax.adamw(RATE), wrt=nnx.Param)
    old.opt_state = jax.tree.map(jnp.ones_like, old.opt_state)
    tx = psi_optax.psi_adam(RATE, groups)
    new = nnx.Optimizer(model, tx, wrt=nnx.Param)
    new.opt_state, _ = carry_moments(
        old.opt_state, new.opt_state, params, groups
    )
    norms = np.linalg.norm(model.kernel[...], axis=0)
    mu = new.opt_state.inner[0].mu
    np.testing.assert_allclose(
        mu["kernel"][...], np.tile(norms, (4, 1)), rtol=4e-7
    )
    np.testing.assert_array_equal(mu["bias"][...], np.ones(3))
    assert int(new.opt_state.count[...]) == 1


def test_wrong_arguments():
    params, new = draw(0), filled(PSI_ADAM, draw(0))
    other = {**params, "vector": jnp.ones(3)}
    with pytest.raises(
        ValueError, match=r"old_state.*\(3,\).*'vector'.*\(5,\)"
    ):
        carry_moments(filled(ADAMW, other), new, params, GROUPS)
    with pytest.raises(ValueError, match=r"new_state.*'vector'"):
        carry_moments(
            filled(ADAMW, params), filled(ADAMW, other), params, GROUPS
        )
    with pytest.raises(TypeError, match=r"old_state.*init\(params\)"):
        carry_moments(ADAMW, new, params, GROUPS)
    with pytest.raises(ValueError, match="count"):
        carry_moments(new, new, params, GROUPS, count=-1)
    with pytest.raises(TypeError, match="count"):
        carry_moments(new, new, params, GROUPS, count="all")
