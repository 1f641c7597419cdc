"""psi_sgd by one sum per group: the steps of three sums, and when it measures.

Three sums are those of `psi_direction`, which measures |w|, <w, d> and |d|.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi_direction, psi_sgd
from tests.theory.training import lenient

GROUPS = {"kernel": ScaleGroup(axes=0), "blocks": ScaleGroup(0, blocks={0: 2})}
SHAPES = {"kernel": (16, 5), "blocks": (12, 3), "head": (4,)}
GROUPS |= {"head": None}
RATE, MOMENTUM, STEPS = 0.02, 0.9, 40

LEAF = ScaleGroup(axes=0)

# Each step of either form is off by a few roundings of 1.1e-16, and 40 steps
# carry them on.
CLOSE = 1e-13


def three_sums(rate=RATE, momentum=MOMENTUM):
    direction = optax.identity() if momentum is None else optax.trace(momentum)
    return psi_direction(rate, direction, GROUPS)


def one_sum(rate=RATE, momentum=MOMENTUM):
    return psi_sgd(rate, GROUPS, momentum=momentum)


def draw(seed, scale=1.0):
    random = np.random.RandomState(seed)
    return {k: scale * random.normal(size=s) for k, s in SHAPES.items()}


def by_group(name, x):
    """Columns of groups: (weights, groups)."""
    if name == "blocks":
        return np.moveaxis(np.reshape(x, (2, 6, 3)), 1, 0).reshape(6, 6)
    return x


def like_leaf(name, columns):
    if name == "blocks":
        return np.moveaxis(columns.reshape(6, 2, 3), 0, 1).reshape(12, 3)
    return columns


def gradient(params, seed, radial=0.0):
    """Random gradients of norm about 3 in direction space.

    Args:
        params: the weights.
        seed: of the draw.
        radial: share of the norm that lies along the weights.
    """
    found = draw(seed)
    for name in ("kernel", "blocks"):
        w, z = by_group(name, params[name]), by_group(name, found[name])
        r = np.linalg.norm(w, axis=0)
        z = z - w * ((w * z).sum(0) / r**2)
        z *= 3 / np.linalg.norm(z, axis=0)
        g = np.sqrt(1 - radial**2) * z + 3 * radial * w / r
        found[name] = like_leaf(name, g / r)
    return found


def walk(tx, params, state=None, steps=STEPS, first=0, radial=0.0):
    """Return the weights after every step, and the last state."""
    state = tx.init(params) if state is None else state
    update = jax.jit(tx.update)
    path = []
    for i in range(first, first + steps):
        updates, state = update(gradient(params, i, radial), state, params)
        params = jax.tree.map(np.add, params, jax.device_get(updates))
        path.append(params)
    return path, state


def angles(old, new):
    """Return the rotation of every group."""
    found = []
    for name in ("kernel", "blocks"):
        a, b = by_group(name, old[name]), by_group(name, new[name])
        a, b = a / np.linalg.norm(a, axis=0), b / np.linalg.norm(b, axis=0)
        found.append(2 * np.arcsin(np.linalg.norm(a - b, axis=0) / 2))
    return np.concatenate(found)


def distance(a, b):
    return max(np.abs(a[name] - b[name]).max() for name in a)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("momentum", [None, MOMENTUM])
def test_it_takes_the_steps_of_three_sums(momentum):
    ours, _ = walk(one_sum(momentum=momentum), draw(101))
    theirs, _ = walk(three_sums(momentum=momentum), draw(101))
    for a, b in zip(ours, theirs, strict=True):
        assert distance(a, b) < CLOSE
    # They have moved, and other gradients would lead elsewhere.
    assert distance(ours[0], ours[-1]) > 0.1
    other, _ = walk(one_sum(momentum=momentum), draw(101), radial=0.3)
    measured, _ = walk(three_sums(momentum=momentum), draw(101), radial=0.3)
    assert distance(other[-1], measured[-1]) > 1e6 * CLOSE


# Errors of the angle of one step, radians. For a share x of the gradient that
# is radial, and a rotation of a, it is about x a^2: the error of <v, d>, times
# the learning rate, is a part x a of the length of the step.
ERRORS = [
    (0.01, 0.01, 1e-6),
    (0.01, 0.1, 1e-4),
    (0.1, 0.01, 1e-5),
    (0.1, 0.1, 1e-3),
    (0.3, 0.01, 1e-4),
    (0.3, 0.04, 1e-3),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("share", "angle", "bound"), ERRORS)
def test_the_angle_of_gradients_with_radial_parts(share, angle, bound):
    assert angle_error(share, angle) < bound


@pytest.mark.usefixtures("x64")
def test_the_angle_of_large_steps_with_radial_parts():
    # The docs say so: measure such steps.
    assert angle_error(0.3, 0.3) > 2e-3
    assert angle_error(0.0, 0.3) < 1e-4


def angle_error(share, angle):
    """Return the mean error of the last ten steps, in radians."""
    # The momentum has about 1/sqrt(1 - 0.9^2) = 2.3 times the gradient's 3.
    rate = angle / 7
    ours = one_sum(rate)
    path, _ = walk(ours, draw(102), radial=share, steps=30)
    errors, rotations = [], []
    state = walk(ours, draw(102), radial=share, steps=20)[1]
    params = path[19]
    for i in range(20, 30):
        g = gradient(params, i, share)
        old = three_sums(rate).init(params)
        old = old._replace(radius=state.radius, inner=state.inner)
        exact = jax.tree.map(
            np.add, params, three_sums(rate).update(g, old, params)[0]
        )
        updates, state = ours.update(g, state, params)
        moved = jax.tree.map(np.add, params, jax.device_get(updates))
        here = angles(params, exact)
        errors.append(np.abs(angles(params, moved) - here).mean())
        rotations.append(here.mean())
        params = moved
    assert 0.5 * angle < np.mean(rotations) < 2 * angle
    return np.mean(errors)


CHANGES = {
    "shrunk": lambda w: w / 8,
    "far shrunk": lambda w: w / 512,
    "grown": lambda w: 8 * w,
    "averaged": lambda w: 0.5 * w + 0.5 * np.roll(w, 1, axis=0),
    "replaced": lambda w: np.cos(7 * w + 1),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("momentum", [None, MOMENTUM])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_measured(change, momentum):
    tx = one_sum(momentum=momentum)
    path, state = walk(tx, draw(103), steps=5)
    params = {name: CHANGES[change](w) for name, w in path[-1].items()}
    _check_next_step(tx, params, state, momentum)


@pytest.mark.usefixtures("x64")
def test_one_changed_group_is_enough():
    tx = one_sum()
    path, state = walk(tx, draw(103), steps=5)
    params = dict(path[-1])
    params["kernel"] = params["kernel"] * np.array([1, 1, 5, 1, 1])
    _check_next_step(tx, params, state, MOMENTUM)


@pytest.mark.usefixtures("x64")
def test_the_momentum_of_ordinary_parameters_is_another():
    ordinary = optax.sgd(RATE, MOMENTUM)
    ours = psi_sgd(RATE, GROUPS, momentum=MOMENTUM, ordinary=ordinary)
    trace = optax.trace(MOMENTUM)
    theirs = psi_direction(RATE, trace, GROUPS, ordinary=ordinary)
    path, state = walk(ours, draw(109), steps=5)
    _, known = walk(theirs, draw(109), steps=5)
    mirrored = jax.tree.map(np.negative, path[-1])
    found, _ = walk(ours, mirrored, state, first=5, steps=5)
    wanted, _ = walk(theirs, mirrored, known, first=5, steps=5)
    assert distance(found[-1], wanted[-1]) < CLOSE
    # The momentum goes on: without it the weights would end elsewhere.
    anew, _ = walk(theirs, mirrored, first=5, steps=5)
    assert distance(anew[-1], wanted[-1]) > 1e6 * CLOSE


def _check_next_step(tx, params, state, momentum):
    """Compare the rotation of a step with that of three sums."""
    g = gradient(params, 99)
    old = three_sums(momentum=momentum).init(params)
    old = old._replace(radius=state.radius, inner=state.inner)
    steps, _ = three_sums(momentum=momentum).update(g, old, params)
    exact = angles(params, jax.tree.map(np.add, params, steps))
    moved, after = tx.update(g, state, params)
    moved = jax.tree.map(np.add, params, jax.device_get(moved))
    assert (np.abs(angles(params, moved) - exact) <= CLOSE).all()
    for name in ("kernel", "blocks"):
        norms = np.linalg.norm(by_group(name, moved[name]), axis=0).ravel()
        radius = np.asarray(after.radius[name]).ravel()
        np.testing.assert_allclose(norms, radius, rtol=1e-14)
    # Taken for those of the last step, the weights turn by another angle.
    first = (params["blocks"][::6], params["kernel"][0])
    sample = jnp.concatenate([jnp.ravel(x) for x in first])
    fooled = state.known._replace(sample=sample)
    wrong, _ = tx.update(g, state._replace(known=fooled), params)
    wrong = jax.tree.map(np.add, params, jax.device_get(wrong))
    assert (np.abs(angles(params, wrong) - exact) > 0.1 * exact).any()


@pytest.mark.usefixtures("x64")
def test_states_of_earlier_versions_load():
    ours, theirs = one_sum(), three_sums()
    path, old = walk(theirs, draw(104), steps=10)
    # It had the fields count, radius and inner.
    state = type(old)(old.count, old.radius, old.inner)
    assert state.known is None
    found, last = walk(ours, path[-1], state, first=10, steps=10)
    wanted, _ = walk(theirs, path[-1], old, first=10, steps=10)
    assert distance(found[-1], wanted[-1]) < CLOSE
    assert jax.tree.structure(last) == jax.tree.structure(ours.init(draw(104)))
    # So does one of weights that were never seen, with another momentum.
    begun = ours.init(draw(104))._replace(
        count=old.count, radius=old.radius, inner=old.inner
    )
    found, _ = walk(ours, path[-1], begun, first=10, steps=10)
    assert distance(found[-1], wanted[-1]) < CLOSE
    # A momentum of another radial part would have been seen.
    _, seen = walk(ours, path[-1], state, first=10, steps=1)
    zeros = jax.tree.map(jnp.zeros_like, seen.known.radial)
    seen = seen._replace(known=seen.known._replace(radial=zeros))
    path, _ = walk(ours, path[-1], state, first=10, steps=1)
    other, _ = walk(ours, path[-1], seen, first=11, steps=9)
    assert distance(other[-1], wanted[-1]) > 1e6 * CLOSE


def warm_up(count):
    """Return zero for five steps."""
    return jnp.where(count < 5, 0.0, RATE)


def accumulate(tx):
    many = optax.MultiSteps(tx, 3, accumulator_dtype="float64")
    return many.gradient_transformation()


PATTERNS = {
    "rate of zero": lambda form: form(warm_up),
    "accumulated": lambda form: accumulate(form()),
    "rejected": lambda form: optax.apply_if_finite(form(), 10),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_steps_that_do_not_move_leave_the_knowledge_right(pattern):
    make = PATTERNS[pattern]
    ours, theirs = lenient(make(one_sum)), lenient(make(three_sums))
    params, other = draw(105), draw(105)
    state, known = ours.init(params), theirs.init(other)
    update, reference = jax.jit(ours.update), jax.jit(theirs.update)
    for i in range(24):
        g = gradient(params, i if pattern != "accumulated" else i // 3)
        if pattern == "rejected" and i % 4 == 1:
            g = jax.tree.map(lambda x: x * np.nan, g)
        u, state = update(g, state, params)
        v, known = reference(g, known, other)
        params = jax.tree.map(np.add, params, jax.device_get(u))
        other = jax.tree.map(np.add, other, jax.device_get(v))
    assert distance(params, other) < CLOSE
    assert distance(params, draw(105)) > 0.1


@pytest.mark.usefixtures("x64")
def test_in_scan_it_is_the_same():
    tx = one_sum()
    path, state = walk(tx, draw(106), steps=8)
    starts = [draw(106), *path[:-1]]
    found = [gradient(w, i) for i, w in enumerate(starts)]
    gradients = jax.tree.map(lambda *x: np.stack(x), *found)

    def body(carry, g):
        updates, last = tx.update(g, carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), last), None

    start = jax.tree.map(jnp.asarray, draw(106))
    (last, after), _ = jax.lax.scan(body, (start, tx.init(start)), gradients)
    assert distance(jax.device_get(last), path[-1]) < CLOSE
    for a, b in zip(
        jax.tree.leaves(after), jax.tree.leaves(state), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def restart(count):
    """Return a learning rate that falls to nearly nothing, and starts anew."""
    return jnp.where((count >= 10) & (count < 20), 1e-7, 0.02)


def steps_of(tx, gradients, state, w):
    """Return rotations of bfloat16 weights, the last state and weights."""
    found, update = [], jax.jit(tx.update)
    for g in gradients:
        updates, state = update(g.astype(w.dtype), state, w)
        new = optax.apply_updates(w, updates)
        a, b = (
            x / np.linalg.norm(x, axis=0) for x in map(np.float64, (w, new))
        )
        found.append(2 * np.arcsin(np.linalg.norm(a - b, axis=0) / 2))
        w = new
    return np.array(found), state, w


def test_the_first_step_of_a_warm_restart():
    # Weights of bfloat16 are off their sphere by up to 2e-3. Over a rate of
    # 1e-7 this is 1e4 times as much of a radial part as there can be.
    tx = psi_sgd(restart, LEAF, momentum=0.9)
    three = psi_direction(restart, optax.trace(0.9), LEAF)
    random = np.random.RandomState(107)
    w = jnp.asarray(random.normal(size=(100, 8)), "bfloat16")
    # About 1 in direction space, most of it the same at each step.
    g = random.normal(size=(100, 8)) + 0.3 * random.normal(size=(30, 100, 8))
    wide = np.float32(w)
    g -= wide * ((wide * g).sum(1, keepdims=True) / (wide**2).sum(0))
    g = jnp.asarray(g / 100, "float32")
    _, state, w = steps_of(tx, g[:20], tx.init(w), w)
    other = three.init(w)._replace(
        count=state.count, radius=state.radius, inner=state.inner
    )
    found, *_ = steps_of(tx, g[20:25], state, w)
    wanted, *_ = steps_of(three, g[20:25], other, w)
    # The random radial parts of gradients, about 0.1, count as in
    # `test_the_angle_of_gradients_with_radial_parts`; 0.01 is a rounding.
    np.testing.assert_allclose(found, wanted, rtol=0.1, atol=0.01)
    # Without a look at the rate, steps are eight times as long, or as short.
    blind = state._replace(known=state.known._replace(rate=jnp.float32(1)))
    found, *_ = steps_of(tx, g[20:21], blind, w)
    ratio = found[0] / wanted[0]
    assert ((ratio > 3) | (ratio < 1 / 3)).mean() > 0.8


@pytest.mark.parametrize("rate", [30.0, 1e9])
def test_norms_after_steps_that_are_much_longer_than_the_radius(rate):
    tx = psi_sgd(rate, LEAF, momentum=0.9)
    random = np.random.RandomState(108)
    w = random.normal(size=(50, 6)).astype(np.float32)
    radius, state = np.linalg.norm(np.float64(w), axis=0), tx.init(w)
    for _ in range(30):
        g = random.normal(size=w.shape).astype(np.float32)
        updates, state = jax.jit(tx.update)(g, state, w)
        w = w + np.asarray(updates)
        norms = np.linalg.norm(np.float64(w), axis=0)
        # Some roundings of 6e-8: of the sum, its root, two quotients and w.
        np.testing.assert_allclose(norms, radius, rtol=6e-7)


def test_the_first_state_can_be_donated():
    tx = psi_sgd(0.1, LEAF, momentum=0.9)
    w = jnp.ones((3, 2))
    update = jax.jit(tx.update, donate_argnums=1)
    for _ in range(2):
        update(w, tx.init(w), w)
    state = tx.init(w)
    same = state._replace(
        known=state.known._replace(sample=state.known.radial[""])
    )
    with pytest.raises(Exception, match="donate"):
        update(w, same, w)


def test_nothing_is_nan_before_the_first_step():
    with jax.debug_nans(True):
        state = psi_sgd(0.1, LEAF, momentum=0.9).init(jnp.ones((3, 2)))
    assert all(not np.isnan(x).any() for x in jax.tree.leaves(state))


def test_a_vanished_group_stays_and_revives():
    tx = psi_sgd(0.001, ScaleGroup(axes=0), momentum=0.9)
    w = np.random.RandomState(0).normal(size=(6, 3)).astype(np.float32)
    state = tx.init(w)
    g = np.random.RandomState(1).normal(size=(6, 3))
    g = (g - w * ((w * g).sum(0) / (w * w).sum(0))).astype(np.float32)
    _, state = tx.update(g, state, w)
    dead = w * np.array([0, 1, 1], np.float32)
    bad = g + np.array([np.nan, 0, 0], np.float32)
    for _ in range(3):
        updates, state = tx.update(bad, state, dead)
        assert (np.asarray(updates)[:, 0] == 0).all()
        assert np.isfinite(np.asarray(updates)).all()
        dead = dead + np.asarray(updates)
    dead[:, 0] = w[:, 0]
    updates, _ = tx.update(g, state, dead)
    moved = np.linalg.norm(dead + np.asarray(updates), axis=0)
    # A rounding or two of 6e-8.
    np.testing.assert_allclose(moved, np.linalg.norm(w, axis=0), rtol=2e-7)


def compiled(tx, shape=(256, 512)):
    w = jax.ShapeDtypeStruct(shape, "float32")

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(w, state, g):
        updates, state = tx.update(g, state, w)
        return optax.apply_updates(w, updates), state

    return step.lower(w, jax.eval_shape(tx.init, w), w).compile(), shape


# Passes over w, m, g and their results, of 4 bytes a weight: m' from m and g,
# the sum of w and m', w' from w and m'; and, in the branch that measures, |w|
# and <w, m>.
MEASURED = {MOMENTUM: 1 + 2, None: 1}
PASSES = {MOMENTUM: 3 + 2 + 3 + 3, None: 2 + 3 + 1}


@pytest.mark.parametrize("momentum", PASSES)
def test_weights_are_read_once_for_one_sum(momentum):
    program, shape = compiled(psi_sgd(0.1, LEAF, momentum=momentum))
    size = np.prod(shape)
    moved = program.cost_analysis()["bytes accessed"] / size / 4
    # Scalars of groups are 1/256 of the weights each.
    assert moved < PASSES[momentum] + 0.3
    assert program.memory_analysis().temp_size_in_bytes < size
    direction = optax.identity() if momentum is None else optax.trace(momentum)
    three, _ = compiled(psi_direction(0.1, direction, LEAF))
    more = three.cost_analysis()["bytes accessed"] / size / 4
    assert more > moved - MEASURED[momentum] + 1.7


BAD = {
    "NaN": lambda g, w: (g.at[0, 0].set(jnp.nan), w),
    "infinite": lambda g, w: (g.at[0, 0].set(jnp.inf), w),
    "norm that overflows": lambda g, w: (g, 1e25 * w),
}


@pytest.mark.parametrize("momentum", [None, MOMENTUM])
@pytest.mark.parametrize("bad", BAD)
def test_others_keep_their_steps_after_a_bad_one(bad, momentum):
    # Gradients have radial parts: measured, those of the momentum are others.
    random = np.random.default_rng(0)
    trees = [
        {k: jnp.asarray(random.normal(size=(4, 3)), jnp.float32) for k in "ab"}
        for _ in range(7)
    ]
    tx = psi_sgd(0.1, dict.fromkeys("ab", ScaleGroup(0)), momentum=momentum)

    def run(spoil):
        params, (first, *rest) = trees[0], trees[1:]
        g, w = spoil(first["b"], params["b"])
        params = {**params, "b": w}
        state = tx.init(params)
        path = []
        for gradient in [{**first, "b": g}, *rest]:
            updates, state = jax.jit(tx.update)(gradient, state, params)
            params = optax.apply_updates(params, updates)
            path.append(params)
        return path

    clean, spoilt = run(lambda g, w: (g, w)), run(BAD[bad])
    for one, other in zip(clean, spoilt, strict=True):
        np.testing.assert_array_equal(one["a"], other["a"])
    assert not np.array_equal(clean[-1]["b"], spoilt[-1]["b"])
