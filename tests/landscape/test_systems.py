"""The table of systems: its calls, sections and tests exist."""

import operator
import pathlib
import re

import pytest

import psi_optax
from benchmarks.__main__ import MEASUREMENTS
from psi_optax import landscape

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "landscape.md"
NOTEBOOK = ROOT / "notebooks" / "06_what_the_loss_looks_like.py"
SECTIONS = re.findall(r"^# ## (.+)$", NOTEBOOK.read_text("utf-8"), re.M)
COMMAND = "python -m benchmarks "
# Not a function: an argument.
ARGUMENTS = {"units"}


def rows():
    text = PAGE.read_text(encoding="utf-8").partition("\n## Systems\n")[2]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines[2:]
    ]


def exists(call):
    """Return whether a call of the table is a name or an experiment."""
    if call.startswith(COMMAND):
        return call.removeprefix(COMMAND) in MEASUREMENTS
    whole = call.startswith("psi_optax.")
    room, path = (psi_optax, call[10:]) if whole else (landscape, call)
    try:
        return callable(operator.attrgetter(path)(room))
    except AttributeError:
        return False


def faults(calls, tests):
    """Yield names in two cells of a row that do not exist or do not fit."""
    files = [PAGE.parent / x for x in re.findall(r"\]\((\S+?)\)", tests)]
    yield from (x.name for x in files if not x.is_file())
    sources = [x.read_text("utf-8") for x in files if x.is_file()]
    if not sources:
        yield "no test"
    sections = re.findall(r"\*([^*]+)\*", calls)
    yield from (x for x in sections if x not in SECTIONS)
    names = set(re.findall(r"`([^`]+)`", calls)) - ARGUMENTS
    if not names and not sections:
        yield "no call"
    for name in names:
        last = re.split(r"[. ]", name)[-1]
        used = any(re.search(rf"\b{last}\b", text) for text in sources)
        if not exists(name) or not used:
            yield name


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_call_exists_and_is_in_a_test_that_exists(row):
    assert not list(faults(*row[1:]))


def test_all_functions_of_the_room_and_all_sections_are_in_the_table():
    calls = "".join(row[1] for row in rows())
    functions = {
        name
        for name in vars(landscape)
        if not name.startswith("_") and callable(getattr(landscape, name))
    }
    # Result types begin with a capital letter.
    functions = {name for name in functions if name[0].islower()}
    assert len(functions) > 12
    assert {x for x in functions if f"`{x}`" not in calls} == set()
    assert {x for x in SECTIONS if f"*{x}*" not in calls} == {"A network"}


@pytest.mark.parametrize(
    ("calls", "file", "wrong"),
    [
        ("`hessian`", "landscape/test_space.py", set()),
        ("`curl`", "landscape/test_space.py", {"curl"}),
        ("`geodesic`", "landscape/test_stability.py", {"geodesic"}),
        ("*No section*", "landscape/test_space.py", {"No section"}),
        ("by hand", "landscape/test_space.py", {"no call"}),
        ("*The idea*", "none.py", {"none.py", "no test"}),
        (f"`{COMMAND}none`", "test_docs.py", {f"{COMMAND}none"}),
    ],
)
def test_faults_are_found(calls, file, wrong):
    assert set(faults(calls, f"[`a`](../tests/{file})")) == wrong
