"""Runs a script with torch's libraries, where `make oracles` has put them."""

import json
import pathlib
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["PYTHONS", "outputs"]

_ROOT = pathlib.Path(__file__).parents[1]

PYTHONS = [
    _ROOT / "build" / "oracles" / name / "bin" / "python"
    for name in ("venv", "venv-emerging")
]
"""The interpreters of environments that have torch, and no JAX."""


def outputs(module: str, arguments: Sequence[str] = ()) -> Iterator[Any]:
    """What a script prints in each of the environments that there are.

    Args:
        module: the script; its last line of output is JSON.
        arguments: its command line.

    Yields:
        The JSON, decoded.
    """
    for python in filter(pathlib.Path.exists, PYTHONS):
        done = subprocess.run(
            [python, "-m", module, *arguments],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        yield json.loads(done.stdout.splitlines()[-1])
