"""Parts alone, twice, and one after another."""

import itertools

import numpy as np
import optax
import pytest
from hypothesis import given

import psi_optax
from tests.properties.checking import (
    ROUNDING,
    assert_same,
    examples,
    refute,
    updates,
)
from tests.properties.symmetries import without
from tests.properties.trees import cases

pytestmark = pytest.mark.usefixtures("x64")

PARTS = {
    "norm": psi_optax.transforms.scale_by_group_norm,
    "unit": psi_optax.transforms.normalize_by_group_norm,
    "clip": lambda g: psi_optax.transforms.clip_by_group_norm(g, 0.5),
    "tangent": psi_optax.transforms.project_to_tangent,
    "centered": lambda g: psi_optax.transforms.project_to_tangent(
        g, centered=True
    ),
    "zero mean": psi_optax.transforms.project_to_zero_mean,
    "decay": lambda g: psi_optax.transforms.add_decayed_weights(
        -0.1, g, of="scale"
    ),
    "rate": lambda g: optax.scale(-0.3),
    "retract": psi_optax.transforms.retract,
    "exponential": lambda g: psi_optax.transforms.retract(
        g, retraction="exponential"
    ),
    "memoryless": lambda g: psi_optax.transforms.retract(g, radius=None),
    "onto 2": lambda g: psi_optax.transforms.retract(g, radius=2.0),
    "rescale": psi_optax.transforms.rescale_weights,
}


def once(tx, case, u):
    """What becomes of an update."""
    [found] = updates(tx, case.layout, case.weights, [u], walk=False)
    return found


def chained(case, *names):
    """What becomes of the gradient on its way through parts."""
    parts = [PARTS[name](case.layout.statements) for name in names]
    return once(optax.chain(*parts), case, case.gradients[0])


# -- twice ------------------------------------------------------------------

# What twice is no more than once. Not so: a factor, a sum, and a turn by the
# length of an update, whose result is a chord.
PROJECTIONS = {*PARTS} - {"norm", "decay", "rate", "exponential"}


def assert_idempotent(name, case):
    assert_same(chained(case, name), chained(case, name, name))


@pytest.mark.parametrize("name", sorted(PROJECTIONS))
@given(case=cases())
@examples(4)
def test_twice_is_once(name, case):
    assert_idempotent(name, case)


@pytest.mark.parametrize("name", sorted({*PARTS} - PROJECTIONS))
def test_twice_is_more_than_once(name):
    refute(lambda case: assert_idempotent(name, case))


@given(case=cases())
@examples(20)
def test_clipping_touches_no_bit_of_what_is_short(case):
    u, layout = case.gradients[0], case.layout
    bound = np.median(layout.norm(u)) + 0.1
    clipped = once(
        psi_optax.transforms.clip_by_group_norm(layout.statements, bound),
        case,
        u,
    )
    short = layout.broadcast(layout.norm(u) <= bound, True) == 1
    assert_same(u[short], clipped[short], 0)
    assert layout.norm(clipped).max() <= bound * (1 + ROUNDING)


def assert_normalized(case, again):
    layout, groups = case.layout, case.layout.statements
    w = psi_optax.normalize(layout.fill(case.weights), groups, 3.0)
    norms = layout.norm(layout.flat(w))
    assert_same(norms, np.where(norms > 0, 3.0, 0.0))
    twice = psi_optax.normalize(w, groups, again)
    assert_same(layout.flat(w), layout.flat(twice))


@given(case=cases())
@examples(20)
def test_normalizing_twice_is_once(case):
    assert_normalized(case, 3.0)


def test_normalizing_to_another_norm_is_not():
    refute(lambda case: assert_normalized(case, 3.01))


# -- tangency ---------------------------------------------------------------


def assert_tangent(case, groups):
    """Of the case's groups no radial part is left, and all else is."""
    layout, w, g = case.layout, case.weights, case.gradients[0]
    u = once(psi_optax.transforms.project_to_tangent(groups), case, g)
    radial = layout.dot(w, u)
    assert_same(radial, 0 * radial)
    removed = layout.dot(w, g) / np.maximum(layout.dot(w, w), TINY)
    assert_same(g - u, layout.broadcast(removed, 0.0) * w)


# Below all squares of norms but those of zero groups.
TINY = 1e-3


@given(case=cases())
@examples(20)
def test_what_is_removed_is_the_radial_part(case):
    assert_tangent(case, case.layout.statements)


WRONG = {
    "joint": lambda layout: psi_optax.joint_groups(layout.statements),
    "no ties": lambda layout: without(layout, "tie").statements,
    "no blocks": lambda layout: without(layout, "blocks").statements,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_in_other_groups_it_is_another_part(wrong):
    refute(
        lambda case: assert_tangent(case, WRONG[wrong](case.layout)), count=50
    )


def assert_centered(case, name):
    """Of mean zero, and orthogonal to the weights without their mean."""
    layout, w = case.layout, case.weights
    ones = np.ones_like(w)
    mean = layout.dot(w, ones) / layout.dot(ones, ones)
    u = chained(case, name)
    for normal in (ones, w - layout.broadcast(mean, 0.0)):
        along = layout.dot(normal, u)
        assert_same(along, 0 * along)


@given(case=cases())
@examples(20)
def test_centered_updates_are_tangent_and_of_mean_zero(case):
    assert_centered(case, "centered")


@pytest.mark.parametrize("name", ["tangent", "zero mean"])
def test_one_of_the_two_projections_is_not_enough(name):
    refute(lambda case: assert_centered(case, name))


# -- order ------------------------------------------------------------------

ORDERED = [
    "norm",
    "unit",
    "clip",
    "tangent",
    "zero mean",
    "decay",
    "rate",
    "retract",
]
PAIRS = [frozenset(pair) for pair in itertools.combinations(ORDERED, 2)]

# Linear parts that multiply groups by one number, and linear parts.
COMMUTE = {
    frozenset(pair)
    for pair in [
        ("norm", "tangent"),
        ("norm", "zero mean"),
        ("norm", "rate"),
        ("tangent", "rate"),
        ("zero mean", "rate"),
    ]
}


def assert_commute(case, one, other):
    assert_same(chained(case, one, other), chained(case, other, one))


def named(pair):
    return " and ".join(sorted(pair))


@pytest.mark.parametrize("pair", sorted(COMMUTE, key=named), ids=named)
@given(case=cases())
@examples(4)
def test_parts_that_commute(pair, case):
    assert_commute(case, *pair)


@pytest.mark.parametrize(
    "pair", sorted({*PAIRS} - COMMUTE, key=named), ids=named
)
def test_parts_that_do_not(pair):
    refute(lambda case: assert_commute(case, *pair))


def assert_on_sphere(case, *names):
    layout, w = case.layout, case.weights
    new = w + chained(case, *names)
    assert_same(layout.norm(new), layout.norm(w))


BEFORE = [name for name in ORDERED if name != "retract"]


@pytest.mark.parametrize("name", BEFORE)
@given(case=cases())
@examples(4)
def test_retracted_last_norms_stay(name, case):
    assert_on_sphere(case, name, "retract")


@pytest.mark.parametrize("name", BEFORE)
def test_retracted_before_another_part_norms_do_not_stay(name):
    refute(lambda case: assert_on_sphere(case, "retract", name))
