"""Stochastic rounding: what is drawn, how often, and what becomes of it.

The neighbours of a number are taken from numpy: the nearest one, and the next
on the error's side. All draws of a test are one call of one program.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax.wrappers import stochastic_rounding
from tests.compilation import quick_jit
from tests.theory.training import scan, to_numpy

NARROW = ("bfloat16", "float16")
each_dtype = pytest.mark.parametrize("dtype", NARROW)

SIZE = 400
DRAWS = 4096
# What the inner optimizer multiplies gradients by, so that steps fit into
# float32 alone.
SCALE = 0.1


def ways():
    """Weights and steps: how far the weight is moved, over itself."""
    random = np.random.RandomState(0)
    sign = random.choice([-1, 1], size=SIZE)
    return {
        # From far below the spacing of either dtype to half of the weight.
        "small": sign * 2.0 ** random.uniform(-16, -1.1, size=SIZE),
        # To less than half of the weight, or across zero to less than it.
        "shrinking": random.uniform(-1.99, -0.51, size=SIZE),
        # To more than twice the weight, or across zero to more than it.
        "growing": np.where(sign > 0, 1.05, -2.05)
        * 2.0 ** random.uniform(0, 4, size=SIZE),
    }


@functools.cache
def cases():
    """Weights and gradients, by way and dtype; and both in one tree."""
    random = np.random.RandomState(1)
    weights, gradients = {}, {}
    for way, ratio in ways().items():
        w = random.normal(size=SIZE) * 2.0 ** random.randint(-4, 5, size=SIZE)
        for dtype in NARROW:
            narrow = w.astype(jnp.dtype(dtype))
            step = ratio * narrow.astype(np.float64) / SCALE
            weights[f"{way} {dtype}"] = narrow
            gradients[f"{way} {dtype}"] = step.astype(jnp.dtype(dtype))
    return weights, gradients


def _draw(weights, gradients, keys):
    def one(key):
        tx = stochastic_rounding(optax.scale(SCALE), key)
        return tx.update(gradients, tx.init(weights), weights)[0]

    return jax.vmap(one)(keys)


draw = quick_jit(_draw)
add = quick_jit(optax.apply_updates)


@functools.cache
def drawn():
    """Many updates, with the weights that they lead to, in float64."""
    weights, gradients = cases()
    keys = jax.random.split(jax.random.key(0), DRAWS)
    updates = draw(weights, gradients, keys)
    many = jax.tree.map(lambda w: np.broadcast_to(w, (DRAWS, SIZE)), weights)
    return jax.tree.map(double, to_numpy((updates, add(many, updates))))


def double(x):
    return np.asarray(x, np.float64)


def wanted(name):
    """The sum in float32, as the inner optimizer says, and the dtype."""
    weights, gradients = (tree[name] for tree in cases())
    step = np.float32(SCALE) * gradients.astype(np.float32)
    return weights.astype(np.float32) + step, weights.dtype


def neighbours(exact, dtype):
    """The numbers of the dtype below and above, in float64."""
    nearest = exact.astype(dtype)
    error = double(exact) - double(nearest)
    toward = np.where(error > 0, np.inf, -np.inf).astype(dtype)
    other = np.where(error == 0, nearest, np.nextafter(nearest, toward))
    ends = np.stack([double(nearest), double(other)])
    return ends.min(0), ends.max(0)


@each_dtype
def test_what_is_drawn_is_a_neighbour_and_arrives(dtype):
    name = f"small {dtype}"
    updates, new = (tree[name] for tree in drawn())
    below, above = neighbours(*wanted(name))
    assert np.all((new == below) | (new == above))
    # Both happen, in all but the rarest cases.
    assert np.mean((new == below).any(0) & (new == above).any(0)) > 0.9
    # Nothing is rounded where update and weight are added.
    assert np.array_equal(double(cases()[0][name]) + updates, new)


# The mean of N draws between neighbours that are a gap apart has a standard
# deviation of at most gap / (2 sqrt(N)). Of a thousand normal numbers one is
# beyond 5 of them once in 1,700 times; the keys are fixed.
BOUND = 5 / (2 * np.sqrt(DRAWS))


@each_dtype
def test_the_mean_is_what_float32_gives(dtype):
    name = f"small {dtype}"
    exact, dtype = wanted(name)
    below, above = neighbours(exact, dtype)
    off = drawn()[1][name].mean(0) - double(exact)
    assert np.all(np.abs(off) <= BOUND * (above - below))
    # By the variance of each: the mean of SIZE squares of normal numbers is 1,
    # with a standard deviation of sqrt(2 / SIZE) = 0.07. Only where the rarer
    # neighbour is expected 20 times: elsewhere nothing is normal.
    chance = (double(exact) - below) / np.where(above > below, above - below, 1)
    normal = DRAWS * np.minimum(chance, 1 - chance) > 20
    variance = chance * (1 - chance) * (above - below) ** 2 / DRAWS
    squares = off[normal] ** 2 / variance[normal]
    assert normal.sum() > SIZE / 2
    assert abs(squares.mean() - 1) < 5 * np.sqrt(2 / normal.sum())


@each_dtype
def test_the_nearest_is_off_in_the_mean(dtype):
    # The control: by a quarter of the gap in the mean, where steps are not far
    # below it, and never less.
    exact, dtype = wanted(f"small {dtype}")
    below, above = neighbours(exact, dtype)
    off = np.abs(double(exact.astype(dtype)) - double(exact))
    assert np.mean(off > BOUND * (above - below)) > 0.5


@each_dtype
def test_a_weight_that_loses_more_than_half_of_itself(dtype):
    # Its step does not fit into the dtype, and is drawn as well: still right in
    # the mean, by the coarser of two spacings. Nor is the sum rounded.
    name = f"shrinking {dtype}"
    updates, new = (tree[name] for tree in drawn())
    exact, dtype = wanted(name)
    w = double(cases()[0][name])
    assert np.array_equal(w + updates, new)
    # Two draws: of w + u, and of a step as long as w or shorter than 2 w, of
    # which a gap is at most eps |u|. Each moves the mean by its own part.
    gap = float(jnp.finfo(dtype).eps) * np.abs(double(exact) - w)
    assert np.all(np.abs(new.mean(0) - double(exact)) <= 2 * BOUND * gap)
    # The control: rounded to nearest twice, it is off.
    twice = double((exact.astype(dtype) - cases()[0][name]).astype(dtype)) + w
    assert np.mean(np.abs(twice - double(exact)) > 2 * BOUND * gap) > 0.5


@each_dtype
def test_a_weight_that_more_than_doubles_is_rounded_once_more(dtype):
    # As documented: by half of the spacing at the new weight or less, and a
    # half again where that is a power of two.
    name = f"growing {dtype}"
    updates, new = (tree[name] for tree in drawn())
    exact, dtype = wanted(name)
    w = double(cases()[0][name])
    spacing = float(jnp.finfo(dtype).eps) * 2.0 ** np.floor(
        np.log2(np.abs(new))
    )
    rounded = np.abs(w + updates - new) / spacing
    assert 0.4 < rounded.max() <= 0.5
    # The updates themselves are right in the mean, by the coarser spacing: that
    # of w + u or that of u, which is up to twice as long.
    gap = 2 * float(jnp.finfo(dtype).eps) * np.abs(double(exact))
    off = (w + updates).mean(0) - double(exact)
    assert np.all(np.abs(off) <= 2 * BOUND * gap)


# Ends of the range.


def ends(dtype):
    """Pairs (weight, step), and what the new weight may be."""
    info = jnp.finfo(dtype)
    largest, eps = float(info.max), float(info.eps)
    last = largest * (1 - eps / (2 - eps))  # The number before the largest.
    third = (largest - last) / 3
    inf, nan = np.inf, np.nan
    found = {
        (1.0, 0.0): {1.0},
        (0.0, 0.0): {0.0},
        (largest, 0.0): {largest},
        (0.0, 1.5): {1.5},
        (0.0, 1 + eps / 3): {1.0, 1 + eps},
        # Across a power of two, where the spacing doubles.
        (1 - eps / 2, eps / 4): {1 - eps / 2, 1.0},
        (1.0, -eps / 8): {1 - eps / 2, 1.0},
        (last, third): {last, largest},
        (largest, third): {largest, inf},
        (-largest, -third): {-largest, -inf},
        (1.0, inf): {inf},
        (1.0, -inf): {-inf},
        (1.0, nan): {nan},
        (inf, 1.0): {nan},
        (nan, 1.0): {nan},
    }
    if dtype == "float16":
        tiny = 2.0**-24  # The least float16, which is subnormal.
        return found | {
            (0.0, tiny / 3): {0.0, tiny},
            (tiny, tiny / 3): {tiny, 2 * tiny},
            (3 * tiny, -tiny / 2): {2 * tiny, 3 * tiny},
            (2.0**-14, -tiny / 2): {2.0**-14 - tiny, 2.0**-14},
        }
    tiny = 2.0**-126  # The least that XLA does not take for zero.
    return found | {
        (0.0, 1.5 * tiny): {tiny, 2 * tiny},
        (tiny, 1.5 * tiny): {2 * tiny, 3 * tiny},
        # Whose own spacing would be half of that.
        (64 * tiny, 1.5 * tiny): {65 * tiny, 66 * tiny},
    }


@each_dtype
def test_ends_of_the_range(dtype):
    new = at_the_ends()[dtype]
    for index, (pair, allowed) in enumerate(ends(dtype).items()):
        found = set(new[:, index].tolist())
        unknown = all(np.isnan(x) for x in [*found, *allowed])
        assert unknown or found == allowed, pair


@functools.cache
def at_the_ends():
    """Many draws of each; gradients in float32, and updates too."""
    weights, steps = {}, {}
    for name in NARROW:
        pairs = np.array(list(ends(name))) / [1, SCALE]
        weights[name] = pairs[:, 0].astype(jnp.dtype(name))
        steps[name] = pairs[:, 1].astype(np.float32)
    keys = jax.random.split(jax.random.key(1), 64)
    updates = to_numpy(draw(weights, steps, keys))
    assert all(u.dtype == np.float32 for u in updates.values())
    new = jax.tree.map(lambda u, w: u + w.astype("float32"), updates, weights)
    with np.errstate(over="ignore"):  # What lies beyond the largest number.
        return {
            name: double(x.astype(jnp.dtype(name))) for name, x in new.items()
        }


# Sums.

SUM_STEPS = 2000


def _sum(weights, gradients):
    """The weights after many steps, with stochastic rounding and without."""
    ways = stochastic_rounding(optax.identity(), 0), optax.identity()

    return [
        scan(tx, lambda *_: gradients, weights, length=SUM_STEPS)[0]
        for tx in ways
    ]


def test_tiny_steps_arrive_in_the_mean():
    # A hundredth of the gap above 1, 2000 times: 20 gaps.
    steps = {name: float(jnp.finfo(name).eps) / 100 for name in NARROW}
    weights, gradients = {}, {}
    for name, step in steps.items():
        for dtype in name, "float32":
            weights[f"{name} as {dtype}"] = np.ones(SIZE, jnp.dtype(dtype))
            full = np.full(SIZE, step).astype(jnp.dtype(dtype))
            gradients[f"{name} as {dtype}"] = full
    drawn, nearest = to_numpy(quick_jit(_sum)(weights, gradients))
    for name in NARROW:
        gap = float(jnp.finfo(name).eps)
        # Steps are rounded to the dtype of gradients: by eps / 2 of themselves.
        # In float32, a sum is rounded to 2^-24 of 1, 2000 times.
        expected = 1 + 20 * gap
        rounding = 20 * gap * gap / 2
        single = double(nearest[f"{name} as float32"])
        assert np.abs(single - expected).max() < 2000 * 2.0**-24 + rounding
        # One weight has a variance of gap^2 / 100 a step: a deviation of 4.5
        # gaps in the end, and the mean of 400 has 0.22. Five of those.
        mean = double(drawn[f"{name} as {name}"]).mean()
        assert abs(mean - expected) < 5 * 0.22 * gap + rounding
        spread = double(drawn[f"{name} as {name}"]).std()
        assert 4 * gap < spread < 5 * gap
        # The control: to nearest, none of the steps is taken.
        assert np.all(double(nearest[f"{name} as {name}"]) == 1)
