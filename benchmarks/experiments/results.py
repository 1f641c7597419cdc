"""The numbers of an experiment, kept as they come: a stopped one goes on."""

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import files
from benchmarks.harness.files import InputError
from benchmarks.report import versions

__all__ = ["Results"]


class Results:
    """A file of JSON with the settings and, by name, what was measured.

    Args:
        path: the file. Where there is one of the same settings, its parts are
            not measured again.
        settings: whatever the numbers depend on and JSON can hold.

    Raises:
        InputError: the file is of other settings, or is none.

    Examples:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name) / "sums.json"
        >>> Results(path, {"seeds": 3}).part("one", lambda: [1.0, 2.0])
        [1.0, 2.0]
        >>> later = Results(path, {"seeds": 3})
        >>> later.part("one", lambda: print("measured again"))
        [1.0, 2.0]
        >>> folder.cleanup()
    """

    def __init__(self, path: pathlib.Path, settings: dict[str, Any]):
        self.path = path
        # As JSON has them: lists for tuples.
        settings = json.loads(json.dumps(settings))
        self.content: dict[str, Any] = {
            "settings": settings,
            "versions": versions(),
            "seconds": {},
            "parts": {},
        }
        if path.exists():
            self.content = _read(path, settings)

    def part(self, name: str, measure: Callable[[], Any]) -> Any:
        """What was measured under this name; measured now if it was not.

        Args:
            name: a name within the experiment.
            measure: returns what JSON can hold, NaN excluded.

        Returns:
            What `measure` returned, now or earlier, as JSON has it.
        """
        parts = self.content["parts"]
        if name not in parts:
            start = time.perf_counter()
            parts[name] = json.loads(json.dumps(measure(), allow_nan=False))
            seconds = round(time.perf_counter() - start, 1)
            self.content["seconds"][name] = seconds
            self._write()
        return parts[name]

    @property
    def minutes(self) -> float:
        """How long all parts took, in minutes."""
        return sum(self.content["seconds"].values()) / 60

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.content, indent=1, allow_nan=False)
        files.write(self.path, text + "\n")


def _read(path: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any]:
    parts = ("settings", "versions", "seconds", "parts")
    content = files.read_json(path, "results of an experiment", parts)
    before = content["settings"]
    if before != settings:
        other = [
            f"{name}: {before.get(name)!r}, now {settings.get(name)!r}"
            for name in {**before, **settings}
            if before.get(name) != settings.get(name)
        ]
        raise InputError(
            f"{path} is of other settings ({'; '.join(other)}): choose another"
            " --out, or move it away."
        )
    return content
