"""The page of systems, made of `systems.toml`.

    python -m tests.systems

writes docs/systems.md.
"""

import importlib
import pathlib
import re
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.__main__ import MEASUREMENTS

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "systems.md"
COMMAND = "python -m benchmarks "
NOTEBOOK = re.compile(r"(notebooks/\w+)\.ipynb: (.+)")
HEAD = """# Systems of the literature

Published methods and measures that the package covers, with their calls, tests
and pages. Calls of `benchmarks` need a copy of the repository.
`python -m tests.systems` makes this page from [a list](../tests/systems.toml)
with the titles of the papers.
"""


class System(NamedTuple):
    """A system of the literature.

    Attributes:
        section: of the page.
        name: of the system.
        papers: authors, title, venue and year, in Markdown.
        calls: names to import, commands of `benchmarks`, or a notebook's file
            with a heading.
        tests: files, from tests on, without the suffix.
        page: from docs on.
    """

    section: str
    name: str
    papers: list[str]
    calls: list[str]
    tests: list[str]
    page: str


def read() -> list[System]:
    """Return the systems of the list."""
    text = pathlib.Path(__file__).with_suffix(".toml").read_text("utf-8")
    return [System(**entry) for entry in tomllib.loads(text)["systems"]]


def exists(call: str) -> bool:
    """Return whether a call can be imported, or is a command or a heading."""
    if call.startswith(COMMAND):
        return call.removeprefix(COMMAND) in MEASUREMENTS
    if heading := NOTEBOOK.fullmatch(call):
        source = (ROOT / heading[1]).with_suffix(".py")
        lines = (
            source.read_text("utf-8").splitlines() if source.is_file() else ()
        )
        return f"# ## {heading[2]}" in lines
    return _importable(call)


def _importable(name: str) -> bool:
    """Return whether a dotted name leads to a function or a class."""
    module, _, last = name.rpartition(".")
    try:
        return callable(getattr(importlib.import_module(module), last, None))
    except ImportError:
        return False


def faults(system: System) -> Iterator[str]:
    """Yield each part of a system that does not exist, or has no test."""
    tests = [ROOT / "tests" / f"{name}.py" for name in system.tests]
    for x in tests:
        if not (x.is_file() and x.name.startswith("test_")):
            yield f"no test {x.relative_to(ROOT)}"
    if not (ROOT / "docs" / system.page).is_file():
        yield f"no page {system.page}"
    sources = [x.read_text("utf-8") for x in tests if x.is_file()]
    for call in system.calls:
        last = re.split(r"[. ]", call)[-1]
        if not exists(call):
            yield f"no call {call}"
        elif not NOTEBOOK.fullmatch(call) and not any(
            re.search(rf"\b{last}\b", text) for text in sources
        ):
            yield f"no test names {call}"
    if not (system.calls and system.tests):
        yield "no call or no test"


def page(systems: list[System]) -> str:
    """Return the text of the page, a table for each section."""
    parts = [HEAD]
    for section in dict.fromkeys(system.section for system in systems):
        rows = [_row(x) for x in systems if x.section == section]
        head = "| system | paper | call | test | page |\n|---|---|---|---|---|"
        parts.append("\n".join([f"## {section}\n", head, *rows, ""]))
    return "\n".join(parts)


def _row(system: System) -> str:
    tests = [f"[`{x}`](../tests/{x}.py)" for x in system.tests]
    cells = [
        system.name,
        "; ".join(map(_short, system.papers)),
        ", ".join(map(_call, system.calls)),
        ", ".join(tests),
        f"[{system.page.removesuffix('.md')}]({system.page})",
    ]
    return f"| {' | '.join(cells)} |"


def _short(paper: str) -> str:
    """Return a citation, without its title if it has a link."""
    return re.sub(r"^\[([^,]+), .*, ([^,]+)\]", r"[\1, \2]", paper)


def _call(call: str) -> str:
    heading = NOTEBOOK.fullmatch(call)
    if not heading:
        return f"`{call}`"
    return f"[{heading[2]}](../{heading[1]}.ipynb)"


if __name__ == "__main__":
    PAGE.write_text(page(read()), encoding="utf-8")
