"""Runs a script with torch's libraries, where `make oracles` has put them."""

import importlib
import json
import pathlib
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.harness.files import InputError

__all__ = ["PYTHONS", "outputs", "torch"]

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


def torch() -> Any:
    """The module, where it is installed.

    Raises:
        InputError: it is not. The message says where it is.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise InputError(
            f"{error}: torch is in the environments that `make oracles` makes,"
            " in build/oracles."
        ) from error
