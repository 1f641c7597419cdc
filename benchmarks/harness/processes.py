"""Functions that run in a process of their own, and other environments."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.harness.files import InputError

_ROOT = pathlib.Path(__file__).parents[2]

TORCH = [
    _ROOT / "build" / "oracles" / name / "bin" / "python"
    for name in ("venv", "venv-emerging")
]
"""The interpreters of environments that have torch, and no JAX."""


def alone(
    function: Callable[..., Any],
    *arguments: Any,
    environment: Mapping[str, str] = {},
) -> Any:
    """Call a function of a module in a fresh process.

    Args:
        function: returns what JSON can hold.
        *arguments: what JSON can hold.
        environment: variables beside those of this process.

    Examples:
        >>> import math
        >>> alone(math.hypot, 3, 4)
        5.0
    """
    call = [function.__module__, function.__qualname__, *arguments]
    return _printed(
        [sys.executable, "-m", __name__, json.dumps(call)],
        {**os.environ, **environment},
    )


def in_torch(module: str, arguments: Sequence[str] = ()) -> Iterator[Any]:
    """Yield the JSON that a script prints in each environment with torch."""
    for python in filter(pathlib.Path.exists, TORCH):
        yield _printed([str(python), "-m", module, *arguments])


def torch() -> Any:
    """Import torch.

    Raises:
        InputError: it is not installed here. The message says where it is.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise InputError(
            f"{error}: torch is in the environments that `make oracles` makes,"
            " in build/oracles."
        ) from error


def _printed(command: list[str], environment: Any = None) -> Any:
    """Return the JSON on the last line that a command prints."""
    done = subprocess.run(
        command,
        cwd=_ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    name, called, *given = json.loads(sys.argv[1])
    print(json.dumps(getattr(importlib.import_module(name), called)(*given)))
