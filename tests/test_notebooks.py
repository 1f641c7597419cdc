"""Each notebook is its percent-format source, and is run by nbmake."""

import importlib.metadata
import importlib.util
import pathlib
import subprocess

import jupytext
import nbformat
import pytest

from tests.address import repository, with_address

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_is_up_to_date(source):
    written = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert cells(written) == cells(jupytext.read(source)), (
        "make notebooks brings the .ipynb files up to date"
    )


def test_every_notebook_has_a_source():
    assert SOURCES
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {
        path.stem for path in SOURCES
    }


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_badge_opens_the_notebook(source):
    written = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    place = repository().removeprefix("https://")
    path = place.replace(".com", "") + f"/blob/main/notebooks/{source.stem}"
    opened = f"https://colab.research.google.com/{path}.ipynb"
    assert opened in written.cells[0].source


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_address_is_that_of_the_project(source):
    text = source.read_text(encoding="utf-8")
    assert with_address(text, repository()) == text, (
        "make notebooks writes the address of pyproject.toml"
    )
    moved = with_address(text, "https://github.com/one/two")
    assert moved.count("github.com/") + moved.count("com/github/") == 2
    assert moved.count("one/two") == 2


def test_an_address_that_no_notebook_can_have():
    with pytest.raises(ValueError, match="owner/name"):
        with_address("", "https://example.org/one/two")
    with pytest.raises(ValueError, match="0 addresses"):
        with_address("", "https://github.com/one/two")


def requirements(source, monkeypatch, installed):
    """Return what the install cell gives pip where only `installed` is."""
    cell = next(
        cell.source
        for cell in jupytext.read(source).cells
        if cell.source.startswith("# Installs missing packages")
    )
    asked = []
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name in installed or None
    )
    monkeypatch.setattr(
        subprocess, "run", lambda command, check: asked.append(command)
    )
    exec(cell.partition("\nimport jax\n")[0], {})
    monkeypatch.undo()
    assert all(command[1:4] == ["-m", "pip", "install"] for command in asked)
    return [name for command in asked for name in command[5:]]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_installing_does_not_replace_jax(source, monkeypatch):
    package = f"psi_optax[benchmarks] @ git+{repository()}"
    jax = f"jax=={importlib.metadata.version('jax')}"
    others = ["equinox", "dm-haiku"] if "bring" in source.stem else []
    everything = {"psi_optax", "jax", "equinox", "haiku"}
    for installed, needed in [
        (set(), [package, *others]),
        ({"jax"}, [package, *others, jax]),
        (everything, []),
    ]:
        assert requirements(source, monkeypatch, installed) == needed
