"""Each notebook is its percent-format source, and is run by nbmake."""

import base64
import importlib.metadata
import importlib.util
import io
import pathlib
import subprocess

import jupytext
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from tests.address import repository, with_address
from tests.outputs import LARGEST, SMOKE, execute, faults, strip

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def stored(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_is_up_to_date(source):
    written = stored(source)
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
    written = stored(source)
    place = repository().removeprefix("https://")
    path = place.replace(".com", "") + f"/blob/main/notebooks/{source.stem}"
    opened = f"https://colab.research.google.com/{path}.ipynb"
    assert opened in written.cells[0].source


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_outputs_of_a_full_run_are_stored(source):
    written = stored(source)
    assert not list(faults(written)), "make notebook-outputs stores them"
    kinds = {
        kind
        for cell in written.cells
        for output in cell.get("outputs", ())
        for kind in output.get("data", ())
    }
    assert ("image/png" in kinds) == ("plt." in source.read_text("utf-8"))


PNG = "A" * (LARGEST * 4 // 3 + 8)


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        (new_output("stream", text="A short run: ..."), "a short run"),
        (new_output("stream", text="see /home/user/a.py"), "/home/"),
        (new_output("stream", text="('/tmp/a.py')"), "/tmp/"),
        (new_output("stream", name="stderr", text="a warning"), "stderr"),
        (new_output("error", ename="ValueError"), "ValueError"),
        (
            new_output("execute_result", {"text/plain": "<Legend at 0x7f>"}),
            "at 0x7",
        ),
        (new_output("display_data", {"text/html": "<b>"}), "text/html"),
        (new_output("display_data", {"image/png": PNG}), "100 KB"),
    ],
)
def test_faults_of_outputs_are_found(output, fault):
    good = new_output("stream", text="a/tmp/b, https://example.org/home/a")
    for outputs, count in ([good], 0), ([good, output], 1):
        cell = new_code_cell("x", execution_count=1, outputs=outputs)
        found = list(faults(new_notebook(cells=[cell])))
        assert len(found) == count
        assert all(fault in x for x in found)


@pytest.mark.parametrize("counts", [(1, 3), (2, 1), (1, None), (2, 3)])
def test_cells_that_were_not_executed_in_order_are_found(counts):
    given = [new_code_cell("x", execution_count=count) for count in counts]
    assert list(faults(new_notebook(cells=given)))


def test_times_and_versions_are_faults():
    cell = new_code_cell("x", execution_count=1, metadata={"execution": {}})
    versions = {"language_info": {"name": "python", "version": "3.11"}}
    for notebook in (
        new_notebook(cells=[cell]),
        new_notebook(metadata=versions),
    ):
        assert list(faults(notebook))


def test_figures_are_stored_with_a_palette():
    ramp = np.arange(3 * 64 * 64, dtype=np.uint8).reshape(64, 64, 3)
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    data = {"image/png": base64.b64encode(file.getvalue()).decode()}
    cell = new_code_cell("x", outputs=[new_output("display_data", data)])
    strip(new_notebook(cells=[cell]))
    figure = base64.b64decode(cell.outputs[0].data["image/png"])
    image = Image.open(io.BytesIO(figure))
    assert image.mode == "P"
    # Between neighbouring colours of a ramp.
    assert np.abs(np.int32(image.convert("RGB")) - ramp).max() < 32
    assert Image.open(file).mode == "RGB"  # The control.


def write(path, *code):
    nbformat.write(new_notebook(cells=list(map(new_code_cell, code))), path)


def test_a_notebook_is_executed_in_full(tmp_path, monkeypatch):
    monkeypatch.setenv(SMOKE, "1")
    path = tmp_path / "a.ipynb"
    write(path, "x = 1", f"import os\nprint(x, os.environ.get('{SMOKE}'))")
    execute(path)
    written = nbformat.read(path, as_version=4)
    assert not list(faults(written))
    [output] = written.cells[1].outputs
    assert output.text == "1 None\n"


def test_outputs_with_a_fault_are_not_stored(tmp_path):
    path = tmp_path / "a.ipynb"
    write(path, "import warnings\nwarnings.warn('here')")
    before = path.read_text()
    with pytest.raises(ValueError, match="stderr"):
        execute(path)
    assert path.read_text() == before


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
