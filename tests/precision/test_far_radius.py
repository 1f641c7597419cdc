"""A radius far from the norms: the direction is kept, in every dtype.

An update is added to the weights and rounded as they are, so that one step can
shorten a group only so far. Each step scales by at most that much; nothing of
the direction is lost, and no group becomes zero.
"""

import importlib
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup, geometry
from psi_optax.geometry import retraction
from psi_optax.groups import make_plan
from psi_optax.transforms import floating
from psi_optax.wrappers import _low_precision
from tests.compilation import quick_jit
from tests.theory.training import lenient, to_numpy

GROUP = ScaleGroup(axes=0)
SIZE = 64
# How often the radius, 1, goes into the norms.
RATIOS = (1e-3, 1 / 64, 1.0, 8.0, 64.0, 512.0, 1e5, 1e9)
# What one step shortens a group by: a power of two with half of the digits.
REACH = {"bfloat16": 2**4, "float16": 2**5, "float32": 2**12, "float64": 2**26}

AT_REST = {
    "psi": psi_optax.psi(optax.sgd(0.0), GROUP, radius=1.0),
    "exponential": psi_optax.psi(
        optax.sgd(0.0), GROUP, radius=1.0, retraction="exponential"
    ),
    "whole": psi_optax.psi(optax.sgd(0.0), GROUP, radius=1.0, tangent=False),
    "psi_sgd": psi_optax.psi_sgd(0.0, GROUP, radius=1.0),
    # An epsilon that float16 has.
    "psi_adam": psi_optax.psi_adam(0.0, GROUP, eps=1e-3, radius=1.0),
    "psi_sgdm": psi_optax.psi_sgdm(0.0, GROUP, radius=1.0),
    "weight_rescaling": psi_optax.weight_rescaling(optax.sgd(0.0), GROUP),
    "retract": optax.chain(
        optax.sgd(0.0), psi_optax.transforms.retract(GROUP, radius=1.0)
    ),
    "retract exponential": optax.chain(
        optax.sgd(0.0),
        psi_optax.transforms.retract(
            GROUP, radius=1.0, retraction="exponential"
        ),
    ),
    "master_weights": psi_optax.wrappers.master_weights(
        psi_optax.psi_sgd(0.0, GROUP, radius=1.0)
    ),
    "stochastic_rounding": psi_optax.wrappers.stochastic_rounding(
        psi_optax.psi_sgd(0.0, GROUP, radius=1.0), 0
    ),
}


def weights(dtype):
    """One leaf of two groups for each ratio that the dtype has room for."""
    drawn = np.random.RandomState(0).normal(size=(SIZE, 2))
    drawn /= np.linalg.norm(drawn, axis=0)
    return {
        f"{ratio:g}": (ratio * drawn).astype(jnp.dtype(dtype))
        for ratio in RATIOS
        if 2 * ratio < float(jnp.finfo(dtype).max)
    }


def walk(tx, params, steps, gradient_dtype=None):
    """The weights in float64, before and after each step."""
    step = quick_jit(lenient(tx).update)
    state, path = tx.init(params), [double(params)]
    # So small that nothing overflows in float16, of degree 2 either.
    slope = 1e-4 * np.random.RandomState(1).normal(size=(SIZE, 2))
    gradients = jax.tree.map(
        lambda w: slope.astype(gradient_dtype or w.dtype), params
    )
    for _ in range(steps):
        updates, state = step(gradients, state, params)
        params = jax.tree.map(
            lambda w, u: w + jnp.asarray(u, w.dtype), params, updates
        )
        path.append(double(params))
    return path


def double(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), to_numpy(tree))


def norm(w):
    return np.linalg.norm(w, axis=0)


def cosine(w, other):
    return np.sum(w * other, axis=0) / (norm(w) * norm(other))


def steps_to(ratio, reach):
    """How many steps are stated: one within reach, and for each reach more."""
    return max(1, math.ceil(math.log(ratio) / math.log(reach)))


def assert_arrives(path, dtype, roundings=1):
    """Every leaf goes to its sphere, straight, and in the stated steps."""
    eps, reach = float(jnp.finfo(dtype).eps), REACH[dtype]
    for name in path[0]:
        ratio = float(name)
        leaf = [params[name] for params in path]
        turned = 0.0
        for old, new in itertools.pairwise(leaf):
            # No norm of what was found: the target, and what may be off it.
            target = np.maximum(1, norm(old) / reach)
            # Each weight is off by half of an eps of itself before, as the
            # update is, and of itself after. Sums of squares are off by less
            # than 1e-5 in float32.
            off = (norm(old) / target + 1) * eps / 2 * roundings
            off += 1e-5 * (dtype != "float64")
            # A group within 1 % of its sphere stays.
            near = np.maximum(off, 0.01 + 1e-5)
            assert np.all(np.abs(norm(new) / target - 1) <= near), name
            # Errors perpendicular to w turn it by at most their ratio; those
            # of the leaf before may be undone, as master weights do.
            turned = turned + np.arcsin(off)
            assert np.all(cosine(new, leaf[0]) >= np.cos(turned) - 1e-15)
        stated = steps_to(ratio, reach)
        assert np.all(np.abs(norm(leaf[stated]) - 1) <= 0.09), name
        before = norm(leaf[stated - 1])
        assert stated == 1 or np.all(before > 1.1)


@pytest.mark.parametrize("dtype", REACH)
@pytest.mark.parametrize("name", AT_REST)
def test_groups_arrive_with_their_direction(name, dtype, request):
    if dtype == "float64":
        request.getfixturevalue("x64")
    path = walk(AT_REST[name], weights(dtype), 9)
    # What is drawn is the next number on either side, not the nearest.
    drawn = name == "stochastic_rounding"
    assert_arrives(path, dtype, 2 if drawn else 1)


def test_the_coarsest_of_weights_updates_and_ties_counts():
    # Updates of 16 bits for weights of 32 are as coarse as these.
    params = weights("float32")
    path = walk(AT_REST["retract"], params, 9, "bfloat16")
    assert_arrives(path, "bfloat16")
    with pytest.raises(AssertionError):
        assert_arrives(walk(AT_REST["retract"], params, 9), "bfloat16")
    tie = {
        "a": ScaleGroup(axes=0, tie="t"),
        "b": ScaleGroup(axes=0, tie="t"),
    }
    [single] = np.random.RandomState(0).normal(size=(1, SIZE, 2))
    tied = {
        "a": (1e3 * single).astype(np.float32),
        "b": (1e3 * single).astype(jnp.bfloat16),
    }
    tx = optax.chain(
        optax.sgd(0.0), psi_optax.transforms.retract(tie, radius=1.0)
    )
    first = walk(tx, tied, 1)
    # 2^-8 of each of the coarser half before, over a sixteenth of all.
    for leaf in tied:
        np.testing.assert_allclose(
            norm(first[1][leaf]) / norm(first[0][leaf]), 1 / 16, rtol=0.07
        )


WRAPPERS = ("master_weights", "stochastic_rounding")


def as_before(monkeypatch):
    """Puts back what rounded groups to zero: the sphere in a single step."""
    # The module, whose name in its package is that of a function.
    step = importlib.import_module("psi_optax.geometry.step")
    for module in (retraction, step, _low_precision):
        monkeypatch.setattr(
            module, "rounding_shrinkage_limit", lambda _: 2.0**99
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", AT_REST)
def test_in_a_single_step_the_direction_would_be_lost(name, dtype, monkeypatch):
    if name in WRAPPERS and dtype == "float32":
        pytest.skip("wrappers leave float32 as it is")
    as_before(monkeypatch)
    ratio = "1e+09" if dtype == "float32" else "512"
    params = {ratio: weights(dtype)[ratio] * np.ones((), dtype)}
    if dtype == "float16":
        # Farther away, as it has three digits more.
        params = {"8192": params.pop("512") * np.float16(16)}
    path = walk(AT_REST[name], params, 1)
    with pytest.raises(AssertionError):
        assert_arrives(path, dtype, 2)
    [old], [new] = path[0].values(), path[1].values()
    if name != "stochastic_rounding":
        assert np.all(norm(new - cosine_part(new, old)) > 0.1) or not new.any()


def cosine_part(new, old):
    """The part of new along old."""
    return old * np.sum(new * old, axis=0) / np.sum(old * old, axis=0)


@pytest.mark.parametrize("retraction", ["projection", "exponential"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_powers_of_two_pass_through_on_the_way(dtype, retraction):
    random = np.random.RandomState(0)
    w = random.normal(size=(SIZE, 3)).astype(jnp.dtype(dtype))
    d = random.normal(size=(SIZE, 3)).astype(jnp.dtype(dtype))
    plan = make_plan(GROUP, w)

    def moved(w, radius):
        [path] = plan.paths
        [name] = plan.group_shapes
        return geometry.step(
            plan,
            {path: w},
            {path: d},
            plan.full(-0.1),
            {name: radius},
            retraction=retraction,
        )[path]

    run = quick_jit(moved)
    # In a single step, at the bound, and far beyond.
    norms = np.linalg.norm(w.astype(np.float32), axis=0)
    radius = norms / np.float32([2, REACH[dtype], 3e5])
    for factor in np.float32([2.0**-20, 0.5, 2.0**20]):
        scaled = run(w * factor.astype(dtype), radius * factor)
        same = run(w, radius) * factor.astype(dtype)
        np.testing.assert_array_equal(scaled, same)
    third = np.float32(1 / 3)
    other = run(w * third.astype(dtype), radius * third)
    assert np.any(other != run(w, radius) * third.astype(dtype))


# Narrow leaves of the wrappers, whatever makes their steps.


def fall(name, w, target):
    """The leaf after a step of the wrapped optimizer to the target."""
    wide = np.asarray(w, np.float32)
    step = np.asarray(target, np.float32) - wide
    inner = optax.stateless(lambda updates, _: jax.tree.map(lambda _: step, w))
    tx = {
        "master_weights": psi_optax.wrappers.master_weights,
        "stochastic_rounding": lambda tx: (
            psi_optax.wrappers.stochastic_rounding(tx, 0)
        ),
    }[name](inner)
    updates, _ = tx.update(w, tx.init(w), w)
    return np.asarray(updates)


@pytest.mark.parametrize("dtype", floating.HALF_DTYPES)
@pytest.mark.parametrize("name", WRAPPERS)
def test_ordinary_steps_of_narrow_leaves_keep_their_bits(
    name, dtype, monkeypatch
):
    random = np.random.RandomState(0)
    w = random.normal(size=1000).astype(dtype)
    reach = REACH[dtype.name]
    shrinking = random.uniform(-1, 1, size=1000) * 1e-4
    shrinking[np.argmax(np.abs(w))] = 1.01 / reach
    targets = {
        "one of all keeps its size": w.astype(np.float64) * shrinking,
        "a pruned leaf": np.zeros(1000),
        "ordinary": w + 0.1 * random.normal(size=1000),
    }
    kept = {way: fall(name, w, target) for way, target in targets.items()}
    below = w.astype(np.float64) * 0.99 / reach**2
    limited = fall(name, w, below)
    alone = fall(name, w[:1], below[:1])
    as_before(monkeypatch)
    for way, target in targets.items():
        np.testing.assert_array_equal(kept[way], fall(name, w, target))
    np.testing.assert_array_equal(alone, fall(name, w[:1], below[:1]))
    assert np.mean(limited != fall(name, w, below)) > 0.9


@pytest.mark.parametrize("name", WRAPPERS)
def test_what_is_not_finite_is_not_hidden_by_the_limit(name):
    w = np.ones(8, jnp.bfloat16)
    target = np.full(8, 1e-4)
    target[3] = np.nan
    assert np.isnan(fall(name, w, target)[3])
