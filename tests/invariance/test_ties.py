"""Sets that a power tells apart are no ties, which needs no search."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import pytest

from psi_optax.invariance.analysis import ties
from psi_optax.invariance.analysis.equations import Equations
from psi_optax.invariance.analysis.linear_forms import Term, plus, times
from tests.invariance.holds import analyse
from tests.invariance.random_programs import draw

X = jax.ShapeDtypeStruct((5, 3), jnp.float32)
PARAMS = {
    "a": jax.ShapeDtypeStruct((3, 4), jnp.float32),
    "b": jax.ShapeDtypeStruct((3, 4), jnp.float32),
}


def norm(x):
    return x / jnp.linalg.norm(x)


# Powers of the scales of a and b that leave the loss unchanged.
LOSSES = {
    (1, 1): lambda p, x: norm(x @ p["a"] + x @ p["b"]),
    (1, -1): lambda p, x: (x @ p["a"]) * (x @ p["b"]),
    (2, 1): lambda p, x: norm(x @ p["a"] + (x @ p["b"]) ** 2),
}


@pytest.mark.parametrize("powers", LOSSES)
def test_arrays_of_two_powers_are_not_tried_as_a_tie(powers, monkeypatch):
    tried = []

    def counted(isolated, digits, members):
        tried.append(digits)
        return groups_by(isolated, digits, members)

    groups_by = ties.groups_by
    monkeypatch.setattr(ties, "groups_by", counted)

    def loss(params, x):
        return jnp.sum(jnp.tanh(LOSSES[powers](params, x)))

    found = analyse(loss, PARAMS, X)
    is_tie = powers == (1, 1)
    assert bool(tried) == is_tie
    assert {one.group is not None for one in found.values()} == {is_tie}
    if not is_tie:
        assert all("scale" in one.reason for one in found.values())


def test_only_whole_arrays_of_one_unknown_have_a_power():
    equations = Equations()
    v = equations.unknown((4, 4))
    [(term, _)] = v.items()
    row, column = term.digits
    diagonal = {Term(term.variable, (row, row)): Fraction(1)}
    part = {term._replace(where=((column, 1),)): Fraction(1)}
    other = plus(v, equations.unknown((4, 4)))
    assert ties._has_two_powers([v, times(v, -1)])
    assert ties._has_two_powers([{}, other, v, part, times(v, 2)])
    assert not ties._has_two_powers([v, v, equations.unknown((4, 4))])
    for form in (diagonal, part, other):
        assert not ties._has_two_powers([v, times(form, -1)])


@pytest.mark.usefixtures("x64")
def test_the_verdicts_are_those_of_a_full_search(monkeypatch):
    shortcut, taken = ties._has_two_powers, 0

    def counted(forms):
        nonlocal taken
        taken += shortcut(forms)
        return shortcut(forms)

    for program in map(draw, range(150)):
        params = program.params()
        with monkeypatch.context() as patch:
            patch.setattr(ties, "_has_two_powers", counted)
            quick = analyse(program, params)
        with monkeypatch.context() as patch:
            patch.setattr(ties, "_has_two_powers", lambda forms: False)
            assert analyse(program, params) == quick
    assert taken >= 20
