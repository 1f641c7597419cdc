"""Linear forms and equations between them, on hand-made cases."""

import math
from fractions import Fraction

import pytest

from psi_optax.invariance.analysis import linear_forms
from psi_optax.invariance.analysis.equations import Equations
from psi_optax.invariance.analysis.index_digits import (
    Digit,
)
from psi_optax.invariance.analysis.linear_forms import (
    compose,
    digits_of,
    minus,
    move_axes,
    move_index_digits,
    plus,
    times,
)
from tests.invariance.holds import analyse
from tests.invariance.random_programs import draw


@pytest.fixture
def equations():
    return Equations()


def digits(equations, form):
    return set(digits_of(equations.reduce(form)))


def test_forms_add_and_cancel(equations):
    a, b = equations.unknown((2, 3)), equations.unknown((2, 3))
    assert minus(plus(a, b), b) == a
    assert minus(a, a) == {}
    assert times(a, 0) == {}
    [(term, c)] = times(a, Fraction(1, 2)).items()
    assert (term.variable.shape, c) == ((2, 3), Fraction(1, 2))


def test_axes_of_length_one_are_no_unknowns(equations):
    [term] = equations.unknown((3, 1, 2))
    assert term.digits == (Digit(0, 1, 3), Digit(2, 1, 2))


def test_uniform_leaves_the_other_axes(equations):
    a = equations.unknown((2, 3))
    equations.require_uniform(a, [Digit(0, 1, 2)], "why")
    assert digits(equations, a) == {Digit(1, 1, 3)}
    [term] = a
    assert equations.solved(term.variable).reason == "why"


def test_what_is_equal_is_equal_afterwards(equations):
    a, b = equations.unknown((2, 3)), equations.unknown((2, 3))
    equations.require_zero(minus(a, times(b, 2)), "")
    assert equations.reduce(a) == times(equations.reduce(b), 2)


def test_a_sum_is_uniform_though_its_terms_are_not(equations):
    # A matrix product: s(i) + t(i, o) may not depend on i.
    s = move_axes(equations.unknown((4,)), {0: 0})
    t = equations.unknown((4, 5))
    total = plus(s, t)
    equations.require_uniform(total, [Digit(0, 1, 4)], "")
    assert digits(equations, total) == {Digit(1, 1, 5)}
    assert digits(equations, s) == {Digit(0, 1, 4)}  # Still free.
    # With s uniform nothing is left of the first axis.
    equations.require_uniform(s, [Digit(0, 1, 4)], "")
    assert digits(equations, t) == {Digit(1, 1, 5)}


def test_terms_along_different_axes_are_equal_only_as_constants(equations):
    a = move_axes(equations.unknown((4,)), {0: 0})
    b = move_axes(equations.unknown((5,)), {0: 1})
    equations.require_zero(minus(a, b), "")
    assert digits(equations, a) == digits(equations, b) == set()
    assert equations.reduce(a) == equations.reduce(b) != {}


def test_a_matrix_and_its_transpose(equations):
    a = equations.unknown((3, 3))
    equations.require_zero(minus(a, move_axes(a, {0: 1, 1: 0})), "")
    assert equations.reduce(a) == equations.reduce(move_axes(a, {0: 1, 1: 0}))


def test_blocks(equations):
    # 12 channels as (3, 4): uniform within each block of four.
    a = equations.unknown((12,))
    equations.require_uniform(a, [Digit(0, 1, 4)], "")
    assert digits(equations, a) == {Digit(0, 4, 3)}


def test_blocks_that_do_not_nest_are_coarser(equations):
    a = equations.unknown((12,))
    equations.require_uniform(a, [Digit(0, 1, 4)], "")
    equations.require_uniform(a, [Digit(0, 1, 6)], "")
    assert digits(equations, a) == set()


def test_parts_are_free_of_each_other(equations):
    a = equations.unknown((12,))
    first = equations.restrict(a, Digit(0, 4, 3), 0, "")
    last = equations.restrict(a, Digit(0, 4, 3), 2, "")
    assert digits(equations, first) == {Digit(0, 1, 4)}
    equations.require_zero(first, "")
    assert equations.reduce(last) != {}
    assert equations.reduce(a) != {}
    for index in (1, 2):
        part = equations.restrict(a, Digit(0, 4, 3), index, "")
        equations.require_zero(part, "")
    assert equations.reduce(a) == {}


def test_equal_parts_are_a_whole(equations):
    a = equations.unknown((12,))
    first = equations.restrict(a, Digit(0, 4, 3), 0, "")
    for index in (1, 2):
        part = equations.restrict(a, Digit(0, 4, 3), index, "")
        equations.require_zero(minus(part, first), "")
    equations.require_uniform(a, [Digit(0, 1, 4)], "")
    [term] = equations.reduce(a)
    assert term.digits == term.where == ()


def test_cutting_a_digit(equations):
    a = equations.cut(equations.unknown((12,)), 0, 4, "")
    assert set(digits_of(a)) == {Digit(0, 4, 3), Digit(0, 1, 4)}


def test_a_copy_is_narrowed_alone(equations):
    a = equations.unknown((3,))
    other = equations.copy()
    other.require_zero(a, "")
    assert other.reduce(a) == {}
    assert equations.reduce(a) == a


def test_an_original_is_narrowed_alone(equations):
    a, b = equations.unknown((3,)), equations.unknown((3,))
    equations.require_zero(b, "")
    other = equations.copy()
    equations.require_zero(a, "")
    assert equations.reduce(a) == {}
    assert other.reduce(a) == a
    assert other.reduce(b) == {}


def test_copies_of_copies_have_few_layers(equations):
    forms = [equations.unknown((3,)) for _ in range(100)]
    for form in forms:
        equations = equations.copy()
        equations.require_zero(form, "")
    assert all(equations.reduce(form) == {} for form in forms)
    # Each is larger than the next, and the last is empty at first.
    assert len(equations._layers) <= math.log2(len(forms)) + 2


def test_only_a_term_that_is_its_variable_leaves_a_form_as_it_is(equations):
    form = plus(equations.unknown((3, 3)), equations.unknown((3, 3)))
    [(whole, _)] = equations.unknown((3, 3)).items()
    row, column = whole.digits
    assert compose(form, whole) is form
    # The controls: other axes, a block of one, and a condition.
    moved = whole._replace(digits=(column, row))
    assert set(digits_of(compose(form, moved))) == {row, column}
    assert compose(form, moved) != form
    block = whole._replace(digits=(row._replace(stride=4), column))
    assert row not in digits_of(compose(form, block))
    part = whole._replace(where=((Digit(2, 1, 5), 3),))
    composed = compose(form, part)
    assert [term.where for term in composed] == [part.where] * 2


@pytest.mark.usefixtures("x64")
def test_composing_whole_terms_changes_nothing(monkeypatch):
    count = 0

    def counted(term):
        nonlocal count
        count += is_whole(term)
        return False

    is_whole = linear_forms._is_whole
    for program in map(draw, range(60)):
        params = program.params()
        quick = analyse(program, params)
        with monkeypatch.context() as patch:
            patch.setattr(linear_forms, "_is_whole", counted)
            assert analyse(program, params) == quick
    assert count >= 100


def test_moving_digits_keeps_conditions(equations):
    a = equations.unknown((6,))
    equations.require_zero(equations.restrict(a, Digit(0, 3, 2), 0, ""), "")
    moved = move_index_digits(
        equations.reduce(a), lambda d: d._replace(axis=d.axis + 1)
    )
    assert {d.axis for d in digits_of(moved)} == {1}
    assert equations.restrict(moved, Digit(1, 3, 2), 0, "") == {}
