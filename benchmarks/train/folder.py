"""The output folder: what of a run lies there, and what may be done with it.

Nothing here imports JAX, as in `processes`.
"""

import json
import pathlib
import shutil
from typing import Any

from benchmarks.harness import files

__all__ = [
    "CHECKPOINTS",
    "METRICS",
    "SETTINGS",
    "CheckpointError",
    "check",
    "clear",
    "has_run",
    "last_checkpoint",
    "lines",
]

SETTINGS = "settings.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"

UNFINISHED = ".orbax-checkpoint-tmp"
"""How the names of checkpoints end that are being written."""


class CheckpointError(Exception):
    """A checkpoint that cannot be read."""


def lines(out: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of `METRICS`: one for each epoch, up to the first damaged one.

    None if the run has not begun.
    """
    path = out / METRICS
    found: list[dict[str, Any]] = []
    raw = path.read_bytes().splitlines() if path.exists() else []
    for line in raw:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(content, dict) or (
            content.get("epoch") != len(found) + 1
        ):
            break
        found.append(content)
    return found


def clear(out: pathlib.Path) -> None:
    """Deletes what is there of checkpoints that were not completed."""
    for path in (out / CHECKPOINTS).glob(f"*{UNFINISHED}"):
        shutil.rmtree(path, ignore_errors=True)


def last_checkpoint(out: pathlib.Path) -> int:
    """The epoch of the last checkpoint that is complete, 0 for none."""
    found = (out / CHECKPOINTS).glob("*")
    return max((int(p.name) for p in found if p.name.isdecimal()), default=0)


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
    done, told = last_checkpoint(out), len(lines(out))
    # A line is written before its checkpoint, in a folder that is there then.
    if told > done + 1 or (told and not (out / CHECKPOINTS).is_dir()):
        raise ValueError(
            f"{out / METRICS} tells of {told} epochs, but the checkpoint is"
            f" not in {out / CHECKPOINTS}: put it back, or choose another"
            " --out."
        )
    if told < done:
        raise ValueError(
            f"{out / METRICS} tells of {told} epochs, and what follows is"
            f" missing or damaged, but {done} are done: put it back, or choose"
            " another --out."
        )
    if done > settings["epochs"]:
        raise ValueError(
            f"--epochs {settings['epochs']}: the run in {out} has done {done}."
        )


def _check_settings(out: pathlib.Path, settings: dict[str, Any]) -> None:
    before = files.read_json(out / SETTINGS, "the settings of a run")
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
