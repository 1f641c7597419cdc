"""Two thousand random programs, over half with a trap: none is unsound.

Each old fault of the analysis, put back, is found by the same programs.
"""

import collections
import os

import pytest

from psi_optax.invariance import jaxprs
from psi_optax.invariance.analysis import interpreter, liveness
from tests.invariance.holds import analyse, broken, proved, reached
from tests.invariance.random_programs import draw
from tests.invariance.traps import closed_later, closed_zero

PROGRAMS = int(os.environ.get("PSI_OPTAX_PROGRAMS", "2000"))
PARTS = 8


def unsound(program, verdicts, count):
    """Return groups and inert parameters of a program that are not so."""
    params = program.params()
    closed = (closed_zero(),), (closed_later(),)
    wrong = broken(program, params, verdicts, *closed)
    try:
        return wrong or reached(program, params, verdicts, closed_later())
    except (AttributeError, NotImplementedError, ValueError):
        # JAX cannot differentiate some loops over parts of refs.
        if not program.has_trap:
            raise
        count["no derivative"] += 1
        return wrong


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("part", range(PARTS))
def test_no_verdict_is_unsound(part):
    count = collections.Counter()
    each = PROGRAMS // PARTS
    for seed in range(part * each, (part + 1) * each):
        program = draw(seed)
        verdicts = analyse(program, program.params())
        count["groups"] += bool(proved(verdicts))
        count["traps"] += program.has_trap
        assert not unsound(program, verdicts, count), seed
    # Of 2,000 programs a third has groups; of 25 it may be fewer.
    assert count["groups"] >= 0.2 * each
    assert count["traps"] >= 0.3 * each
    assert count["no derivative"] <= max(1, 0.02 * each)


def as_written(variable, array):
    """Arrays of one element taken for constants of the program."""
    if jaxprs.is_ref(variable):
        return closed_over(variable, array)
    return interpreter.literal_value(array)


closed_over = interpreter.closed_over_value
FAULTS = {
    "writes to refs are dropped": (liveness, "_writes", lambda *_: False),
    "what is closed over is constant": (
        interpreter,
        "closed_over_value",
        as_written,
    ),
    "derivatives are those of values": (
        interpreter,
        "check_custom_derivative",
        lambda *_: None,
    ),
    "gradients go where values do": (
        liveness,
        "_differentiated_body",
        jaxprs.called_body,
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("fault", FAULTS)
def test_an_old_fault_is_found(fault, monkeypatch):
    """Among the programs of which it changes what is said."""

    def is_found(program):
        params = program.params()
        right = analyse(program, params)
        with monkeypatch.context() as patch:
            patch.setattr(*FAULTS[fault])
            wrong = analyse(program, params)
        return wrong != right and unsound(program, wrong, collections.Counter())

    programs = map(draw, range(2000))
    assert any(is_found(program) for program in programs if program.has_trap)
