"""Two thousand random programs, a third of which lay a trap: none is unsound.

Each old fault of the analysis, put back, is found by the same programs.
"""

import collections
import dataclasses
import os

import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax.invariance import jaxprs
from psi_optax.invariance.analysis import interpreter, liveness
from tests.invariance.holds import analyse, broken, proved, reached
from tests.invariance.programs import (
    FINISHES,
    INSTRUCTIONS,
    LARGEST,
    SHAPES,
    Program,
    data,
)
from tests.invariance.traps import TRAPS, closed_later, closed_zero

PROGRAMS = int(os.environ.get("PSI_OPTAX_PROGRAMS", "2000"))
PARTS = 8
# How many of the instructions are traps, about.
SHARE = 0.25


@dataclasses.dataclass(frozen=True, eq=False)
class Trapped(Program):
    """A program some of whose instructions are traps, by negative numbers."""

    # Made before the program is traced, or it would be a part of it.
    closed: dict = dataclasses.field(default_factory=closed_zero)
    failures: list = dataclasses.field(default_factory=list)

    def features(self, params, closed=None):
        closed = closed or self.closed
        pool = [params[name] for name in sorted(params)]
        for name, i, j, k in self.instructions:
            x, y = pool[-1 - i % len(pool)], pool[j % len(pool)]
            if name < 0:
                new = TRAPS[name](x, y, k, closed)
            else:
                new = INSTRUCTIONS[name](x, y, k)
            if 0 < new.size <= LARGEST and new.ndim:
                pool.append(new)
        kind, j, k = self.finish
        return FINISHES[kind](pool[-1], pool[j % len(pool)], k)

    def __call__(self, params, closed=None):
        y = self.features(params, closed)
        return jnp.sum(jnp.tanh(y) * data(*y.shape))

    @property
    def has_trap(self):
        return any(name < 0 for name, *_ in self.instructions)


def draw(seed):
    random = np.random.RandomState(seed)

    def below(*limits):
        return tuple(int(random.randint(limit)) for limit in limits)

    def instruction():
        trap = random.uniform() < SHARE
        name = -1 - random.randint(len(TRAPS)) if trap else None
        if name is None:
            name = random.randint(len(INSTRUCTIONS))
        return int(name), *below(3, 10, 96)

    shapes = [SHAPES[i] for i in below(*[len(SHAPES)] * random.randint(2, 5))]
    instructions = [instruction() for _ in range(random.randint(1, 7))]
    finish = below(len(FINISHES), 10, 12)
    return Trapped(tuple(shapes), tuple(instructions), finish)


def unsound(program, verdicts):
    """What is said of a program and does not hold."""
    params = program.params()
    wrong = broken(
        program, params, verdicts, (closed_zero(),), (closed_later(),)
    )
    try:
        return wrong or reached(program, params, verdicts, closed_later())
    except (AttributeError, ValueError):
        # JAX cannot differentiate some loops over parts of refs.
        if not program.has_trap:
            raise
        program.failures.append("no derivative")
        return wrong


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("part", range(PARTS))
def test_no_verdict_is_unsound(part):
    count = collections.Counter()
    each = PROGRAMS // PARTS
    for seed in range(part * each, (part + 1) * each):
        program = draw(seed)
        verdicts = analyse(program, program.params())
        groups = bool(proved(verdicts))
        count.update(
            groups=groups,
            traps=program.has_trap,
            both=groups and program.has_trap,
            inert=any(v.kind == "inert" for v in verdicts.values()),
        )
        assert not unsound(program, verdicts), seed
        count.update(program.failures)
    print(dict(count))
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
    where, name, wrong = FAULTS[fault]
    monkeypatch.setattr(where, name, wrong)
    seeds = range(2000)
    assert any(
        unsound(program, analyse(program, program.params()))
        for program in map(draw, seeds)
        if program.has_trap
    )
