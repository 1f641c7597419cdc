"""The outputs that notebooks store: those of a full run.

    python -m tests.outputs notebooks/*.ipynb

executes each notebook in full and stores its outputs. `faults` lists what a
stored notebook must not have.
"""

import base64
import os
import pathlib
import re
import sys
from collections.abc import Iterator

import nbclient
import nbformat

from benchmarks.harness.files import with_palette

SMOKE = "PSI_OPTAX_SMOKE"
LARGEST = 100_000  # Bytes of a figure.
_KINDS = {"text/plain", "image/png"}
_SHORT = "A short run"  # Notebooks print it if PSI_OPTAX_SMOKE is set.
# Paths of a home or a temporary folder, and addresses of objects.
_LOCAL = re.compile(
    r"(?<![\w.])/(?:home|root|tmp|Users|private|var)/|[A-Z]:\\Users\\"
    r"|ipykernel_\d|\bat 0x[0-9a-f]"
)


def execute(path: pathlib.Path) -> None:
    """Execute a notebook in full, and store its outputs in it.

    Args:
        path: the `.ipynb` file.

    Raises:
        ValueError: the outputs have a fault; the file keeps its old ones.
    """
    notebook = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    environment = {k: v for k, v in os.environ.items() if k != SMOKE}
    # XLA logs compilations that are slow, which depends on the machine's load.
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    nbclient.NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources=folder,
        coalesce_streams=True,
    ).execute(env=environment)
    strip(notebook)
    if found := list(faults(notebook)):
        raise ValueError(f"{path.name}: {'; '.join(found)}")
    nbformat.write(notebook, path)


def strip(notebook: nbformat.NotebookNode) -> None:
    """Remove times and versions, and store figures with 256 colours.

    Args:
        notebook: of the format 4; it is changed.
    """
    for name in set(notebook.metadata) - {"kernelspec"}:
        del notebook.metadata[name]
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", ()):
                figure = base64.b64decode(output.data["image/png"])
                reduced = base64.b64encode(with_palette(figure)).decode()
                output.data["image/png"] = reduced


def faults(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """Yield each fault of the stored outputs.

    Args:
        notebook: of the format 4.

    Examples:
        >>> cell = nbformat.v4.new_code_cell("1 / 0")
        >>> list(faults(nbformat.v4.new_notebook(cells=[cell])))
        ['code cell 1 has the execution count None']
    """
    if extra := set(notebook.metadata) - {"kernelspec"}:
        yield f"metadata {sorted(extra)}"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        if cell.execution_count != number:
            yield (
                f"code cell {number} has the execution count"
                f" {cell.execution_count}"
            )
        if "execution" in cell.metadata:
            yield f"code cell {number} stores times"
        for output in cell.outputs:
            for fault in _faults_of_output(output):
                yield f"code cell {number} has {fault}"


def _faults_of_output(output: nbformat.NotebookNode) -> Iterator[str]:
    if output.output_type == "error":
        yield f"an error: {output.ename}"
        return
    if output.output_type == "stream":
        if output.name != "stdout":
            yield f"a stream {output.name}: {output.text[:200]}"
        data = {"text/plain": output.text}
    else:
        data = output.data
    if other := set(data) - _KINDS:
        yield f"an output of the kind {sorted(other)}"
    text = data.get("text/plain", "")
    if found := _LOCAL.search(text):
        yield f"a path or an address: {found[0]}"
    if _SHORT in text:
        yield "the outputs of a short run"
    # Four characters of base64 are three bytes.
    if len(data.get("image/png", "")) * 3 / 4 > LARGEST:
        yield "a figure of more than 100 KB"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, flush=True)
        execute(pathlib.Path(name))
