"""Each notebook is its percent-format source, and is run by nbmake."""

import pathlib

import jupytext
import nbformat
import pytest

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
def test_badge_opens_the_notebook_without_outputs(source):
    written = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    opened = f"colab.research.google.com/github/psi-optax/psi_optax/blob/main/notebooks/{source.stem}.ipynb"  # noqa: E501
    assert opened in written.cells[0].source
    assert not any(cell.get("outputs") for cell in written.cells)
