"""Trees that are the same tree written differently get the same updates.

Each property takes the transforms of the registry through two steps on a tree,
and through the same two with weights and gradients rearranged: the updates have
to be rearranged in the same way.
"""

import collections

import pytest
from hypothesis import assume, given, strategies as st

from tests.properties import symmetries
from tests.properties.checking import (
    NAMES,
    ROUNDING,
    assert_same,
    examples,
    refute,
    run,
)
from tests.properties.symmetries import repacked
from tests.properties.trees import cases, layouts
from tests.registry import ENTRIES

pytestmark = pytest.mark.usefixtures("x64")

# By the geometry of each group alone: no coordinate is special. All others have
# to be seen to fail: they give each weight a second moment of its own, subtract
# a mean, or look at cosines between groups.
ROTATED = {
    "scale_by_group_norm",
    "project_to_tangent",
    "retract",
    "retract_exponential",
    "retract_number",
    "rescale_weights",
    "clip_by_group_norm",
    "psi",
    "psi_direction",
    "psi_ordinary",
    "psi_additive",
    "psi_whole",
    "psi_sgd",
    "psi_sgdm",
    "psi_sgdm_additive",
    "normalize_by_group_norm",
    "relative_ascent",
    "add_decayed_weights",
    "transported_trace",
    "transported_trace_parallel",
    "scale_by_group_rms",
    "scale_by_group_adam",
    "weight_rescaling",
    "sgd_g",
    "adam_g",
    "sgdp",
    "rotational",
    "hyperball",
}


def assert_rearranged(name, case, index, rounding):
    """Weights and gradients rearranged: the updates are."""
    layout, w, gs = case.layout, case.weights, case.gradients
    one = run(name, layout, w, gs)
    other = run(name, layout, w[index], [g[index] for g in gs])
    assert_same(one[:, index], other, rounding)


# -- leaves -----------------------------------------------------------------


def pairs(drawn):
    """A tree with numbers, and its leaves in other containers."""
    return drawn.flatmap(
        lambda layout: st.tuples(cases(st.just(layout)), repacked(layout))
    )


def assert_repacked(name, case, layout, rounding):
    one = run(name, case.layout, case.weights, case.gradients)
    other = run(name, layout, case.weights, case.gradients)
    assert_same(one, other, rounding)


@pytest.mark.parametrize("name", NAMES)
@given(pair=pairs(layouts()))
@examples(3)
def test_names_order_and_containers_of_leaves_mean_nothing(name, pair):
    case, layout = pair
    ties = collections.Counter(n for n in layout.names if n is not None)
    # Three tied leaves are added up in the order of the tree, two in either.
    exact = max(ties.values()) < 3
    assert_repacked(name, case, layout, 0 if exact else ROUNDING)


def test_groups_by_position_do_not_follow_their_leaves():
    def holds(pair):
        case, layout = pair
        assume(set(layout.shapes) == {(2, 4)})
        wrong = symmetries.by_position(case.layout, layout)
        assert_repacked("psi", case, wrong, ROUNDING)

    refute(holds, count=50, drawn=pairs(layouts([(2, 4)])))


# -- channels ---------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@given(case=cases())
@examples(3)
def test_channels_have_no_order(name, case):
    index = symmetries.permute_channels(case)
    entry = ENTRIES[name]
    # Sums over all channels of a tensor, and products of it, are reordered.
    exact = not (entry.per_tensor or entry.multiplies or entry.joint)
    assert_rearranged(name, case, index, 0 if exact else ROUNDING)


def test_tied_channels_have_to_be_permuted_together():
    def holds(case):
        index = symmetries.permute_channels(case, by_tie=False)
        assert_rearranged("psi", case, index, ROUNDING)

    refute(holds, count=50)


# -- within a group ---------------------------------------------------------

# Cosines between groups need the same order in all of them.
ANY_ORDER = [name for name in NAMES if name != "add_orthogonality"]


@pytest.mark.parametrize("name", ANY_ORDER)
@given(case=cases())
@examples(3)
def test_weights_of_a_group_have_no_order(name, case):
    index = symmetries.permute_within_groups(case)
    assert_rearranged(name, case, index, ROUNDING)


@pytest.mark.parametrize("name", ["psi", "add_orthogonality"])
def test_weights_have_to_stay_in_their_groups(name):
    permute = {
        "psi": symmetries.permute_across_groups,
        "add_orthogonality": symmetries.permute_within_groups,
    }[name]

    refute(
        lambda case: assert_rearranged(name, case, permute(case), ROUNDING),
        count=50,
    )


# -- rotations --------------------------------------------------------------


def assert_rotated(name, case):
    layout, w, gs = case.layout, case.weights, case.gradients
    turn = symmetries.rotate_groups(case)
    one = run(name, layout, w, gs)
    other = run(name, layout, turn @ w, [turn @ g for g in gs])
    assert_same(one @ turn.T, other)


@pytest.mark.parametrize("name", sorted(ROTATED))
@given(case=cases())
@examples(3)
def test_groups_rotated_one_by_one(name, case):
    assert_rotated(name, case)


@pytest.mark.parametrize("name", sorted({*NAMES} - ROTATED))
def test_what_sees_coordinates(name):
    refute(lambda case: assert_rotated(name, case), count=50)


# -- statements -------------------------------------------------------------


def assert_columns(name, case, stated):
    """As `stated`, and as matrices whose columns are the groups."""
    matrices, index = symmetries.columns(case.layout)
    w, gs = case.weights, case.gradients
    one = run(name, stated, w, gs)
    other = run(name, matrices, w[index], [g[index] for g in gs])
    assert_same(one[:, index], other)


# Every matrix is another shape to compile for: some transforms, with all that
# the others are made of between them.
SOME = ["psi", "adam_g", "add_orthogonality"]


@pytest.mark.parametrize("name", SOME)
@given(case=cases())
@examples(3)
def test_axes_blocks_and_ties_are_columns_of_a_matrix(name, case):
    assert_columns(name, case, case.layout)


@pytest.mark.parametrize("missing", ["tie", "blocks"])
def test_no_part_of_a_statement_can_be_left_out(missing):
    def holds(case):
        layout = symmetries.without(case.layout, missing)
        assert_columns("psi", case, layout)

    refute(holds, count=50)
