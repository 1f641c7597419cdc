"""Every transform's degree: what scaling the weights does to its updates.

The gradient of a scale-invariant loss is of degree -1: where a group is larger
by a factor, it is smaller by it. A step has to be of degree 1.
"""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from psi_optax import ScaleGroup
from tests.properties.checking import (
    DEGREES,
    GRADIENT,
    NAMES,
    ROUNDING,
    STEP,
    assert_same,
    examples,
    refute,
    run,
)
from tests.properties.trees import Layout, cases

STEPS = [name for name, (_, out) in DEGREES.items() if out == STEP]

# A bias that is tied to its kernel, blocks, and ordinary weights. Other shapes
# would be compiled in single precision too.
TYPICAL = Layout(
    {"kernel": 0, "bias": 1, "blocks": 2, "head": 3},
    ((2, 4), (4,), (2, 4), (4,)),
    (
        ScaleGroup(0, tie="kernel"),
        ScaleGroup((), tie="kernel"),
        ScaleGroup((0, 1), {1: 2}),
        None,
    ),
)

# All others have to be seen to fail: they have a radius that is a number or the
# norm of several groups, or take gradients as they are.
SEES_SCALE = sorted({*NAMES} - {*DEGREES})


def assert_scaled(name, case, factors, rounding, dtype="float64"):
    """Groups times factors: updates times a power of them."""
    layout = case.layout
    w, *gs = (x.astype(dtype) for x in (case.weights, *case.gradients))
    a = layout.broadcast(factors, 1.0).astype(dtype)
    into, out = DEGREES.get(name, (GRADIENT, STEP))
    one = run(name, layout, w, gs)
    other = run(name, layout, a * w, [a**into * g for g in gs])
    assert one.dtype == dtype
    assert_same(one, a**-out * other, rounding)


def powers_of_two(case):
    """Factors of 2^-20 to 2^20, which float32 multiplies by exactly."""
    exponents = case.random().randint(-20, 21, 1 + case.layout.ids.max())
    return np.ldexp(1.0, exponents)


def powers_of_ten(case):
    """Factors of 10^-3 to 10^3."""
    exponents = case.random().uniform(-3, 3, 1 + case.layout.ids.max())
    return 10**exponents


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DEGREES)
@given(case=cases())
@examples(3)
def test_any_factors(name, case):
    assert_scaled(name, case, powers_of_ten(case), ROUNDING)
    assert_scaled(name, case, powers_of_two(case), 0)


@pytest.mark.parametrize("name", STEPS)
@given(case=cases(st.just(TYPICAL)))
@examples(3)
def test_powers_of_two_to_the_last_bit(name, case):
    assert_scaled(name, case, powers_of_two(case), 0, "float32")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SEES_SCALE)
def test_what_sees_the_scale(name):
    refute(
        lambda case: assert_scaled(name, case, powers_of_ten(case), ROUNDING)
    )


def test_other_factors_do_not_pass_to_the_last_bit():
    refute(
        lambda case: assert_scaled(
            "psi", case, powers_of_ten(case), 0, "float32"
        ),
        drawn=cases(st.just(TYPICAL)),
    )
