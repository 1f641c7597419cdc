"""What numbers that are no good do to their group, and not to the others.

One executable for each transform: whatever a fault leaves alone has to be the
same to the last bit, in this step and in the next.
"""

import jax
import numpy as np
import optax
import pytest

import psi_optax
from tests.conformance.checks import assert_equal
from tests.faults.cases import (
    BLOCK,
    BY_LEAF,
    BY_PARAMETER,
    COLUMN,
    GROUPS,
    HALF,
    INTEGERS,
    NUMBERS,
    ODD_GRADIENTS,
    ODD_GROUPS,
    ORDINARY,
    SINGLE,
    TIED,
    VECTOR,
    flat,
    leave,
    one_is,
    times,
)
from tests.faults.matrix import Fault, Run
from tests.registry import ENTRIES, Entry

MEMORYLESS = Entry(
    psi_optax.psi_sgd, {"learning_rate": 0.1, "momentum": 0.9, "radius": None}
)
# One norm of all parameters: tests/transforms/test_relative_ascent.py.
APART = {name: entry for name, entry in ENTRIES.items() if not entry.joint}
ALL = {**APART, "psi_memoryless": MEMORYLESS}
PLACES = (COLUMN, TIED, BLOCK, VECTOR)

FAULTS = {
    "weights of 0": Fault(times(0), leave),
    "weights of 0, NaN": Fault(times(0), one_is(np.nan)),
    "weights of 1e30": Fault(times(1e30), leave),
    "weights of 1e-30": Fault(times(1e-30), leave),
    "weights of 1e-40": Fault(times(1e-40), leave),
    "gradients of 0": Fault(leave, times(0)),
    "NaN": Fault(leave, one_is(np.nan)),
    "gradients of 1e30": Fault(leave, times(1e30)),
    "gradients of 1e-30": Fault(leave, times(1e-30)),
    "gradients of 1e-40": Fault(leave, times(1e-40)),
    # These are what NaN is.
    "inf": Fault(leave, one_is(np.inf)),
    "-inf": Fault(leave, one_is(-np.inf, which=-1)),
}

# An outcome for each of the first ten; then for a second gradient, which is
# good, if no weight has moved since a NaN, and since a gradient of 1e30: what
# the state remembers. The outcomes are those of `matrix.OUTCOMES`.
SPHERE = "00X00 0XX00 XX"
TABLE = {
    "scale_by_group_norm": "00X00 0xfee ==",
    "project_to_tangent": "pxXpp 0Xfee ==",
    "project_to_tangent_centered": "fXXff 0Xfee ==",
    "project_to_zero_mean": "=X=== 0Xfee ==",
    "normalize_by_group_norm": "=X=== 0XXee ==",
    "clip_by_group_norm": "=X=== 0XXee ==",
    "add_decayed_weights": "pxfpp fxpff ==",
    "add_orthogonality": "pxXpp fxpff ==",
    "transported_trace": "=xX== 0xfee Xf",
    "transported_trace_parallel": "=xX== 0xpee Xf",
    "scale_by_group_rms": "=X=== 0XXee XX",
    "scale_by_group_adam": "=XX== 0XXee XX",
    "project_by_cosine": "pxfpp fxpff xf",
    "stochastic_rounding": "=x=== 0xfee xf",
    "master_weights": "=x=== 0xfee xf",
    "average_weights": "=x=== 0xpee ==",
    # Neighbours have other weights, and noise is relative to the norm.
    "mix_with_neighbors": "pxfpp fxpff ==",
    "perturb_weights": "fXXff fXXff XX",
    "local_entropy": "00X00 fxfff ==",
    "monitor_groups": "=x=== 0xpee ==",
    "retract": "00X00 0XX00 ==",
    "retract_exponential": "00X00 0XX00 ==",
    # Weights that are not on the sphere go there, whatever their gradients.
    "retract_number": "00X00 fXXff ==",
    "rescale_weights": "00X00 fXXff ==",
    "psi": SPHERE,
    "psi_direction": SPHERE,
    "psi_ordinary": "00X00 fXXff XX",
    "psi_additive": "00X00 0Xf00 ==",
    "psi_whole": "00X00 0XX00 ==",
    "psi_sgd": SPHERE,
    "psi_memoryless": SPHERE,
    # Adam divides by a root that has overflowed: no step, now and later.
    "psi_adam": "00X00 0X000 X0",
    "psi_sgdm": SPHERE,
    "psi_sgdm_additive": "00X00 0xfee xf",
    "sgd_g": SPHERE,
    "adam_g": SPHERE,
    "rotational": SPHERE,
    "hyperball": SPHERE,
    "adamh": "00X00 0X000 X0",
    # Muon's matrices take a step from gradients of 1e-30, Adam's vectors none.
    "muonh": "00X00 0X0.0 X0",
    "weight_rescaling": SPHERE,
    "sgdp": "fxXff fXfff Xf",
    "adamp": "fxXff fXfff Xf",
}


@pytest.fixture(scope="module", params=ALL)
def named_run(request):
    """A name and its transform, compiled once for all tests below."""
    name = request.param
    entry = ALL[name]
    if "every" in entry.kwargs:  # Otherwise it does nothing at first.
        entry = entry._replace(kwargs={**entry.kwargs, "every": 1})
    # The penalty mixes the groups of a layer, and is meant to.
    joint = entry.per_tensor or name == "add_orthogonality"
    numbers = BY_PARAMETER if joint else NUMBERS
    promotion = "standard" if entry.promotes else "strict"
    tx = entry.build({**GROUPS, **ODD_GROUPS})
    return name, Run(tx, numbers if entry.takes_groups else BY_LEAF, promotion)


def complaints(run, row):
    now, later = row[:11].replace(" ", ""), row[12:]
    codes = dict(zip(FAULTS, now + 2 * now[6], strict=True))
    after = dict.fromkeys(("NaN", "inf", "-inf"), later[0])
    after["gradients of 1e30"] = later[1]
    return [
        complaint
        for what, fault in FAULTS.items()
        for group in PLACES
        for complaint in run.complaints(
            what, fault, group, codes[what], after.get(what)
        )
    ]


def test_every_entry_is_in_the_table():
    assert set(TABLE) == set(ALL)


def test_a_fault_does_what_is_said_and_to_its_group_alone(named_run):
    name, run = named_run
    assert not complaints(run, TABLE[name])


def test_the_table_is_not_true_of_plain_sgd():
    # As everything is ordinary here, but for integers.
    sgd = Run(psi_optax.psi(optax.sgd(0.1, momentum=0.9), None))
    assert not complaints(sgd, "=x=== 0xfee xf")
    # Of all that a sphere is, only that a gradient of zero moves nothing.
    wrong = {(what, check) for what, _, check in complaints(sgd, SPHERE)}
    right = {"gradients of 0", "gradients of 1e-40"}
    for what in set(FAULTS) - right:
        assert {(what, "now 0"), (what, "now X")} & wrong


@pytest.mark.usefixtures("optax_promotion")
def test_a_global_clip_inside_spoils_the_others():
    clipped = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1))
    run = Run(
        psi_optax.psi(clipped, {**GROUPS, **ODD_GROUPS}), promotion="standard"
    )
    for what in "NaN", "inf", "gradients of 1e30":
        for group in PLACES:
            found = run.complaints(what, FAULTS[what], group, "X")
            assert (what, group, "others") in found


def test_an_ordinary_parameter_spoils_itself_alone(named_run):
    _, run = named_run
    for value in (np.nan, np.inf, -np.inf):
        fault = Fault(leave, one_is(value))
        assert not run.complaints(value, fault, ORDINARY, "x")


# A group of one element whose gradient is -1e10 times what it was: where there
# is a sphere or its tangent space, there is nowhere to go.
MOVES = {
    **dict.fromkeys(["scale_by_group_norm", "normalize_by_group_norm"], "f"),
    **dict.fromkeys(["scale_by_group_rms", "scale_by_group_adam"], "f"),
    **dict.fromkeys(["transported_trace", "clip_by_group_norm"], "f"),
    **dict.fromkeys(["add_decayed_weights", "add_orthogonality"], "f"),
    **dict.fromkeys(["stochastic_rounding", "master_weights"], "f"),
    **dict.fromkeys(["mix_with_neighbors", "perturb_weights"], "f"),
    "local_entropy": "f",
    **dict.fromkeys(["average_weights", "monitor_groups"], "p"),
    **dict.fromkeys(["transported_trace_parallel"], "p"),
    **dict.fromkeys(["project_by_cosine", "sgdp", "adamp"], "f"),
    # Two elements are a group there.
    **dict.fromkeys(["adamh", "muonh"], "f"),
    # It goes to its sphere.
    **dict.fromkeys(["retract_number", "rescale_weights"], "="),
    "psi_ordinary": "=",
    "project_to_tangent": "r",
}


def test_a_group_of_one_element_never_turns(named_run):
    name, run = named_run
    fault = Fault(leave, times(-1e10))
    code = MOVES.get(name, "0")
    assert not run.complaints("-1e10", fault, SINGLE, code)
    if code == "0":
        assert run.clean.odd["one"] == 0


# Groups in float16: their norm is a float32, but r g is not.
NARROW = {
    "weights of 1e-6": Fault(times(1e-6), leave),
    "and gradients of 1e-3": Fault(times(1e-6), times(1e-3)),
    "gradients of 0": Fault(leave, times(0)),
}
# Adam's epsilon is zero there, and 0/0 is NaN, as with optax alone; the penalty
# is of degree -1, and its 1e6 is infinite there.
NOT_FINITE = {
    "psi_adam": "XXX",
    "adamh": "XXX",
    "muonh": "XXX",
    "adamp": ".XX",
    "add_orthogonality": "  .",
}


def test_what_underflows_in_float16_is_finite_unless_adam_divides(named_run):
    name, run = named_run
    codes = NOT_FINITE.get(name, ".." + TABLE[name][6])
    for (what, fault), code in zip(NARROW.items(), codes, strict=True):
        if code != " ":
            assert not run.complaints(what, fault, HALF, code)


@pytest.mark.usefixtures("optax_promotion")
def test_an_epsilon_that_float16_has_helps_adam():
    tx = psi_optax.psi_adam(0.05, {**GROUPS, **ODD_GROUPS}, eps=1e-4)
    run = Run(tx, promotion="standard")
    for what, fault in NARROW.items():
        assert not run.complaints(what, fault, HALF, "0")


# These pass on whatever is ordinary.
PARTS = {
    *("scale_by_group_norm", "project_to_tangent", "project_to_zero_mean"),
    *("project_to_tangent_centered", "retract", "retract_exponential"),
    *("retract_number", "rescale_weights", "clip_by_group_norm"),
    *("normalize_by_group_norm", "add_orthogonality", "scale_by_group_rms"),
    "monitor_groups",
}


def of_type(x):
    return x.shape, x.dtype


def test_unusual_leaves_keep_their_type_and_are_finite(named_run):
    name, run = named_run
    updates, given = dict(run.clean.odd), dict(ODD_GRADIENTS)
    del updates["integers"], given["integers"]
    assert jax.tree.map(of_type, updates) == jax.tree.map(of_type, given)
    # A sum over nothing is not divided by.
    found = jax.tree.leaves((updates, run.clean.states))
    assert all(np.isfinite(x).all() for x in found)
    # Nothing becomes real.
    assert np.all(np.imag(updates["complex"]) != 0)
    if name in PARTS:
        ordinary = flat(NUMBERS) >= NUMBERS["head"].min()
        first, gradients = run.clean.first, run.clean.gradients
        assert np.array_equal(first[ordinary], gradients[ordinary])
        assert np.array_equal(updates["complex"], given["complex"])
        assert updates["scalar"] == given["scalar"]


def test_integers_are_not_moved(named_run):
    name, run = named_run
    updates = dict(run.clean.odd["integers"])
    if name in PARTS:
        assert_equal(updates, ODD_GRADIENTS["integers"])
        return
    assert updates.pop("count") is None
    for path, update in updates.items():
        assert of_type(update) == of_type(INTEGERS[path])
        assert not update.any()
    moved = {path: INTEGERS[path] for path in updates}
    assert_equal(optax.apply_updates(moved, updates), moved)
