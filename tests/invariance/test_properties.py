"""Random programs: what is proved of them has to hold in numbers."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.invariance.holds import analyse, broken, reached
from tests.invariance.programs import FINISHES, INSTRUCTIONS, SHAPES, Program

EXAMPLES = 200


def numbers(largest):
    return st.integers(0, largest)


@st.composite
def programs(draw):
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=2, max_size=4))
    instruction = st.tuples(
        numbers(len(INSTRUCTIONS) - 1), numbers(3), numbers(9), numbers(95)
    )
    instructions = draw(st.lists(instruction, min_size=1, max_size=7))
    finish = draw(
        st.tuples(numbers(len(FINISHES) - 1), numbers(9), numbers(11))
    )
    return Program(tuple(shapes), tuple(instructions), finish)


@dataclasses.dataclass
class Count:
    """What was found in all programs."""

    programs: int = 0
    proved: int = 0
    tied: int = 0
    finer: int = 0

    def add(self, verdicts, params):
        self.programs += 1
        for path, verdict in verdicts.items():
            if verdict.group is not None:
                shape = verdict.group.group_shape(params[path].shape)
                self.proved += 1
                self.tied += verdict.group.tie is not None
                self.finer += math.prod(shape) > 1


# Half of what was measured with this many examples.
LEAST = Count(proved=65, tied=30, finer=20)
HURRY = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.usefixtures("x64")
def test_what_is_proved_holds_in_numbers():
    count = Count()

    @HURRY
    @given(programs())
    def check(program):
        params = program.params()
        verdicts = analyse(program, params)
        assert set(verdicts) == set(params)
        count.add(verdicts, params)
        assert not broken(program, params, verdicts)
        assert not reached(program, params, verdicts)

    check()
    # So that not all is ordinary.
    assert count.programs >= EXAMPLES
    assert count.proved > LEAST.proved, count
    assert count.tied > LEAST.tied, count
    assert count.finer > LEAST.finer, count


# What a program of the parameters scales as they do, or as a power of them.
HOMOGENEOUS = {
    "twice": lambda w: w * 2.0,
    "negative": lambda w: -w,
    "leaky": lambda w: jax.nn.leaky_relu(w, 0.5),
    "square": lambda w: w * jnp.abs(w),
    "root": lambda w: jnp.sign(w) * jnp.sqrt(jnp.abs(w)),
    "transposed": lambda w: jnp.abs(w.T).T,
    "called": lambda w: jax.jit(jax.checkpoint(jnp.abs))(w),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_scale_laws_compose(name):
    """Of f(g(w)) as much is found as of f, if g is homogeneous."""
    inner = HOMOGENEOUS[name]
    found = []

    @settings(HURRY, max_examples=20)
    @given(programs())
    def check(program):
        params = program.params()
        plain = analyse(program, params)
        composed = analyse(
            lambda p: program({k: inner(w) for k, w in p.items()}), params
        )
        for path, verdict in plain.items():
            if verdict.group is not None and verdict.group.tie is None:
                found.append(path)
                assert composed[path].group is not None, path
                shapes = [
                    v.group.group_shape(params[path].shape)
                    for v in (verdict, composed[path])
                ]
                assert math.prod(shapes[1]) >= math.prod(shapes[0])

    check()
    assert len(found) >= 5


@pytest.mark.usefixtures("x64")
def test_analysis_is_a_function_of_the_program():
    @settings(HURRY, max_examples=20)
    @given(programs())
    def check(program):
        params = program.params()
        shapes = jax.eval_shape(lambda: params)
        assert analyse(program, params) == analyse(program, shapes)

    check()
