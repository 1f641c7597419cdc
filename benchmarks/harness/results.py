"""The numbers of a measurement, written part by part: a stopped one goes on."""

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any, Self

from tqdm import tqdm

from benchmarks.harness import files
from benchmarks.harness.machine import versions

Content = dict[str, Any]
"""Settings, versions, seconds by part and parts, as JSON has them."""

KEYS = ("settings", "versions", "seconds", "parts")


class Results:
    """A file of JSON that holds settings and measured parts.

    Args:
        path: the file. Its parts are not measured again if it has the same
            settings.
        settings: all that the numbers depend on, in types that JSON has.
        machine: what times depend on; the parts of another one are dropped.
        anew: drop the parts that the file has, once the first is measured.
        progress: show a progress bar, from `expect` on.

    Raises:
        InputError: the file is damaged, or of other settings.

    Examples:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name) / "sums.json"
        >>> with Results(path, {"seeds": 3}) as results:
        ...     results.part("one", lambda: [1.0, 2.0])
        [1.0, 2.0]
        >>> with Results(path, {"seeds": 3}) as results:
        ...     results.part("one", lambda: print("measured again"))
        [1.0, 2.0]
        >>> folder.cleanup()
    """

    def __init__(
        self,
        path: pathlib.Path,
        settings: dict[str, Any],
        machine: dict[str, Any] | None = None,
        anew: bool = False,
        progress: bool = False,
    ):
        self.path, self._timed = path, machine is not None
        self._stamp = _stamp(path)
        self.content: Content = as_json(
            {
                "settings": settings,
                "versions": versions() | (machine or {}),
                "seconds": {},
                "parts": {},
            }
        )
        if path.exists() and not anew:
            self._adopt(read(path))
        self._progress, self._bar = progress, tqdm(disable=True)

    def __enter__(self) -> Self:
        """Begin to measure."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the progress bar's line."""
        self._bar.close()

    def expect(self, steps: int) -> None:
        """Begin a progress bar of so many steps."""
        self._bar = tqdm(total=steps, disable=not self._progress, unit="run")

    def tick(self) -> None:
        """Move the progress bar by one step, within a part of several."""
        self._bar.update()

    def part(
        self,
        name: str,
        measure: Callable[[], Any],
        steps: int = 1,
    ) -> Any:
        """Return a part; measure it if it was not measured before.

        Times are always measured.

        Args:
            name: the part's name within the measurement.
            measure: returns what JSON can hold, NaN excluded.
            steps: of the progress bar.
        """
        parts, end = self.content["parts"], self._bar.n + steps
        self._bar.set_description(name)
        if self._timed or name not in parts:
            start = time.perf_counter()
            parts[name] = as_json(measure())
            seconds = round(time.perf_counter() - start, 1)
            self.content["seconds"][name] = seconds
            self._write()
        self._bar.update(end - self._bar.n)
        return parts[name]

    def _adopt(self, before: Content) -> None:
        """Go on from the content of the file."""
        if self._timed and before["versions"] != self.content["versions"]:
            return
        old, new = (
            content["settings"] | content["versions"]
            for content in (before, self.content)
        )
        if changed := [k for k in old | new if old.get(k) != new.get(k)]:
            values = "; ".join(
                f"{k}: {old.get(k)!r}, now {new.get(k)!r}" for k in changed
            )
            raise files.InputError(
                f"{self.path} is of other settings or versions ({values}):"
                " measure --anew, choose another --out, or move it away."
            )
        self.content = before

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if _stamp(self.path) != self._stamp:
            raise files.InputError(
                f"{self.path} was changed meanwhile, maybe by another run: run"
                " one at a time, or with another --out."
            )
        files.write(self.path, json.dumps(self.content, indent=1) + "\n")
        self._stamp = _stamp(self.path)


def _stamp(path: pathlib.Path) -> tuple[int, int] | None:
    """Return what changes when a file is written: its number, its time."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def read(path: pathlib.Path) -> Content:
    """Read the content of a file of results."""
    return files.read_json(path, "results of a measurement", KEYS)


def as_json(value: Any) -> Any:
    """Return a value as JSON has it: lists for tuples, and no NaN."""
    return json.loads(json.dumps(value, allow_nan=False))
