"""The list of systems: calls, tests and pages exist; the page is up to date."""

import inspect
import re

import pytest

from psi_optax import landscape
from tests.systems import PAGE, ROOT, exists, faults, page, read

SYSTEMS = read()
GOOD = SYSTEMS[0]


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_each_system_has_calls_tests_and_a_page(system):
    assert not list(faults(system))


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(SYSTEMS), (
        "python -m tests.systems writes it"
    )
    assert page(SYSTEMS) != page(SYSTEMS[1:])


def test_names_are_distinct_and_in_sections():
    names = [system.name for system in SYSTEMS]
    assert len(names) == len(set(names)) >= 50
    sections = [system.section for system in SYSTEMS]
    assert len(set(sections)) < 10


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("calls", ["psi_optax.psy"]),
        ("calls", ["psi_optax.psi", "python -m benchmarks none"]),
        ("calls", ["notebooks/01_quickstart.ipynb: None"]),
        ("calls", ["notebooks/none.ipynb: None"]),
        ("calls", ["psi_optax.muonh"]),  # It exists, and no test names it.
        ("calls", []),
        ("tests", ["theory/test_nothing"]),
        ("page", "nothing.md"),
    ],
)
def test_faults_are_found(field, value):
    assert not list(faults(GOOD))
    assert list(faults(GOOD._replace(**{field: value})))


CALLS = {call for system in SYSTEMS for call in system.calls}


def test_the_room_on_the_loss_is_whole():
    functions = {
        f"psi_optax.landscape.{name}"
        for name in dir(landscape)
        # Result types begin with a capital letter.
        if name[0].islower() and inspect.isfunction(getattr(landscape, name))
    }
    assert len(functions) > 12
    assert not functions - CALLS


@pytest.mark.parametrize(
    ("notebook", "setup"),
    [
        ("06_what_the_loss_looks_like", "A network"),
        (
            "07_perturbations_and_averages",
            "Data, a network and a training run",
        ),
    ],
)
def test_each_section_of_a_notebook_is_of_a_system(notebook, setup):
    notebook = f"notebooks/{notebook}"
    source = (ROOT / f"{notebook}.py").read_text(encoding="utf-8")
    sections = re.findall(r"^# ## (.+)$", source, re.MULTILINE)
    missing = {x for x in sections if f"{notebook}.ipynb: {x}" not in CALLS}
    assert missing == {setup}


def test_headings_of_notebooks_are_found():
    notebook = "notebooks/05_bring_your_own.ipynb"
    assert exists(f"{notebook}: Any optimizer")
    assert not exists(f"{notebook}: Any")
