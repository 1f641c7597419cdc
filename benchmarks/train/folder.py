"""The output folder: what of a run lies there, and what may be done with it.

Nothing here imports JAX, as in `processes`.
"""

import json
import os
import pathlib
from typing import Any

__all__ = [
    "METRICS",
    "SETTINGS",
    "CheckpointError",
    "check",
    "has_run",
    "last_checkpoint",
    "make",
    "write",
]

SETTINGS = "settings.json"
METRICS = "metrics.jsonl"


class CheckpointError(Exception):
    """A checkpoint that cannot be read."""


def make(out: pathlib.Path) -> None:
    """Makes the folder if it is not there.

    Raises:
        OSError: nothing can be made there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(0, "no files may be made in it")
    except OSError as error:
        raise OSError(
            f"--out {out}: it cannot be the output folder ({error.strerror})."
        ) from error


def write(path: pathlib.Path, text: str) -> None:
    """Writes a file in one move, so that it is whole whenever one looks."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def last_checkpoint(out: pathlib.Path) -> int:
    """The epoch of the last checkpoint that is complete, 0 for none."""
    found = (out / "checkpoints").glob("*")
    return max((int(p.name) for p in found if p.name.isdigit()), default=0)


def has_run(out: pathlib.Path) -> bool:
    """Whether a run was begun there."""
    return (out / SETTINGS).exists() or last_checkpoint(out) > 0


def check(out: pathlib.Path, settings: dict[str, Any], resume: bool) -> None:
    """Whether a run of these settings can be begun, or go on, in a folder.

    Args:
        out: the output folder, which need not be there.
        settings: the settings, as JSON has them.
        resume: whether to go on from what is there.

    Raises:
        FileExistsError: there is a run, and it is not to be resumed.
        ValueError: there is a run of other settings, or of more epochs; or
            what is there is damaged.
    """
    if not has_run(out):
        return
    if not resume:
        raise FileExistsError(
            f"there is a run in {out}: go on with it by --resume, or choose"
            " another --out."
        )
    _check_settings(out, settings)
    done, lines = last_checkpoint(out), _lines(out)
    # A line is written before its checkpoint, in a folder that is there then.
    if lines > done + 1 or (lines and not (out / "checkpoints").exists()):
        raise ValueError(
            f"{out / METRICS} tells of {lines} epochs, but the checkpoint is"
            f" not in {out / 'checkpoints'}: put it back, or choose another"
            " --out."
        )
    if done > settings["epochs"]:
        raise ValueError(
            f"--epochs {settings['epochs']}: the run in {out} has done {done}."
        )


def _check_settings(out: pathlib.Path, settings: dict[str, Any]) -> None:
    before = _read(out / SETTINGS)
    # All schedules but the constant one depend on the end.
    free = {"epochs"} if settings["schedule"] == "constant" else set()
    changes = [
        f"{name}: {before.get(name)!r}, now {value!r}"
        for name, value in settings.items()
        if name not in free and before.get(name) != value
    ]
    if changes:
        raise ValueError(
            f"the run in {out} was begun with other settings"
            f" ({'; '.join(changes)}): resume it with its own."
        )


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} does not hold the settings of a run: put it right, or"
            " choose another --out."
        ) from error


def _lines(out: pathlib.Path) -> int:
    path = out / METRICS
    return len(path.read_text().splitlines()) if path.exists() else 0
