"""The deliberate faults of `make mutate` are faults of the package as it is."""

import ast
import functools
import signal
import sys

import pytest

from tests.mutation import structure
from tests.mutation.faults import FAULTS
from tests.mutation.run import PACKAGE, ROOT, selection_for, within


@functools.cache
def without_a_fault(file):
    return ast.unparse(ast.parse((PACKAGE / file).read_text()))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.what)
def test_the_code_that_a_fault_replaces_is_in_one_place(fault):
    assert fault.apply(PACKAGE) != without_a_fault(fault.file)


FILE = """
def one(x, y):
    if x > 0 and y:
        total = x + y
    return f(x, y, scale=2)


def two(a, b):
    if a > 1:
        b = a * a
    return b
"""


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("total = x + y", "total = x - y", "total = x - y"),
        ("p > 0 and q", "p >= 0 and q", "if x >= 0 and y:"),
        ("z > 1", "z > 2", "if a > 2:"),
        ("z = w * w", "", "pass"),
        ("scale=2", "scale=3", "f(x, y, scale=3)"),
        ("scale=2", "", "f(x, y)"),
        ("g(p, q, scale=2)", "g(q, p, scale=2)", "f(y, x, scale=2)"),
        ("if z > 1:", "if False:", "if False:\n        b = a * a"),
        ("return b", "return a", "return a"),
    ],
)
def test_code_is_found_whatever_its_names_are(right, wrong, line):
    assert line in structure.replaced(FILE, right, wrong)
    assert line not in ast.unparse(ast.parse(FILE))


@pytest.mark.parametrize("right", ["z = w * v", "x > 2", "p", "return g(x)"])
def test_code_that_is_not_there_or_not_alone_is_an_error(right):
    with pytest.raises(ValueError, match="like"):
        structure.replaced(FILE, right, "0")


def test_every_room_has_faults_and_tests():
    rooms = {fault.file.partition("/")[0] for fault in FAULTS}
    assert rooms >= {"geometry", "groups", "transforms", "optimizers"}
    assert rooms >= {"invariance"}
    for fault in FAULTS:
        assert all((ROOT / test).exists() for test in selection_for(fault.file))


def test_a_program_without_end_is_ended_and_one_that_waits_is_not():
    endless = within(1, [sys.executable, "-c", "while True: pass"])
    assert endless.returncode == -signal.SIGXCPU
    waits = within(1, [sys.executable, "-c", "import time; time.sleep(1.5)"])
    assert waits.returncode == 0
