"""The output folder: which run it holds, and the lines that are added to it."""

import contextlib
import dataclasses
import json
import math
import pathlib
import sys
import time
from typing import Any

import jax
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (
    Event,  # pyrefly: ignore
    SessionLog,  # pyrefly: ignore
)
from tensorboardX.proto.summary_pb2 import Summary  # pyrefly: ignore
from tqdm import tqdm

from benchmarks.harness import files
from benchmarks.train.settings import Settings

SETTINGS, METRICS = "settings.json", "metrics.jsonl"
CHECKPOINTS, EVENTS = "checkpoints", "tensorboard"


def read(out: pathlib.Path) -> list[dict[str, Any]]:
    """Read the lines of a run: one for each epoch, up to a damaged one."""
    found: list[dict[str, Any]] = []
    missing = FileNotFoundError, NotADirectoryError
    damaged = ValueError, RecursionError, TypeError, KeyError
    with contextlib.suppress(*missing, *damaged):
        for line in (out / METRICS).read_bytes().splitlines():
            content = json.loads(line)
            if content["epoch"] != len(found) + 1:
                break
            found.append(content)
    return found


def last_checkpoint(out: pathlib.Path) -> int:
    """Return the epoch of the last complete checkpoint, 0 for none."""
    found = (out / CHECKPOINTS).glob("*")
    return max((int(p.name) for p in found if p.name.isdecimal()), default=0)


def go_on(out: pathlib.Path) -> str:
    """Say how to continue a run; nothing if it has not begun."""
    how = "the same command with --resume"
    if done := last_checkpoint(out):
        return f"The last checkpoint is of epoch {done}: {how} goes on there."
    begun = (out / SETTINGS).exists()
    return f"There is no checkpoint yet: {how} starts anew." if begun else ""


def check(out: pathlib.Path, settings: Settings, resume: bool) -> int:
    """Return the epochs that are done; refuse a run that cannot go on."""
    done, told = last_checkpoint(out), len(read(out))
    if not done and not (out / SETTINGS).exists():
        return 0
    if not resume:
        raise FileExistsError(
            f"there is a run in {out}: go on with it by --resume, or choose"
            " another --out."
        )
    _check_settings(out, settings)
    # A line is written before its checkpoint, whose folder is there then.
    if told > done + 1 or (told and not (out / CHECKPOINTS).is_dir()):
        wrong = f"but the checkpoint is not in {out / CHECKPOINTS}"
    elif told < done:
        wrong = f"and what follows is missing or damaged, but {done} are done"
    elif done > settings.epochs:
        raise ValueError(
            f"--epochs {settings.epochs}: the run in {out} has done {done}."
        )
    else:
        return done
    raise ValueError(
        f"{out / METRICS} tells of {told} epochs, {wrong}: put it back, or"
        " choose another --out."
    )


def _check_settings(out: pathlib.Path, settings: Settings) -> None:
    before = files.read_json(out / SETTINGS, "the settings of a run")
    # All schedules but the constant one depend on the end.
    free = {"epochs"} if settings.schedule == "constant" else set()
    changes = [
        f"{name}: {before.get(name)!r}, now {value!r}"
        for name, value in dataclasses.asdict(settings).items()
        if name not in free and before.get(name) != value
    ]
    if changes:
        raise ValueError(
            f"the run in {out} was begun with other settings"
            f" ({'; '.join(changes)}): resume it with its own."
        )


class Records:
    """Lines of JSON and TensorBoard events, of the first process alone."""

    def __init__(self, out: pathlib.Path, settings: Settings, done: int):
        self.out, self.lines = out, read(out)[:done]
        self.events: EventsWriter | None = None
        if jax.process_index() == 0:
            text = json.dumps(dataclasses.asdict(settings), indent=1)
            files.write(out / SETTINGS, text)
            (out / EVENTS).mkdir(exist_ok=True)
            # The thread of `SummaryWriter` would hide a full disk.
            name = str(out / EVENTS / "events")
            self.events = EventsWriter(name, f".{done:06}")
            # Hides later steps in earlier files.
            start = SessionLog(status=SessionLog.START)
            self._write(step=done + 1, session_log=start)

    def add(self, line: dict[str, Any]) -> None:
        """Write and show a line; numbers that are not finite become null."""
        if not self.events:
            return
        line = {k: x if math.isfinite(x) else None for k, x in line.items()}
        diverged = [None in x.values() for x in (*self.lines, line)]
        self.lines.append(line)
        texts = [json.dumps(x, allow_nan=False) for x in self.lines]
        files.write(self.out / METRICS, "".join(f"{x}\n" for x in texts))
        values = [
            Summary.Value(tag=name, simple_value=number)
            for name, number in line.items()
            if name != "epoch" and number is not None
        ]
        self._write(step=line["epoch"], summary=Summary(value=values))
        tqdm.write(texts[-1])
        if diverged[-1] and not any(diverged[:-1]):
            why = "the loss is not finite; a smaller --rate may help."
            tqdm.write(f"epoch {line['epoch']}: {why}", file=sys.stderr)

    def close(self) -> None:
        """Close the event file; its errors were raised before."""
        with contextlib.suppress(OSError):
            if self.events:
                self.events.close()

    def _write(self, **content: Any) -> None:
        assert self.events
        with files.named(self.out / EVENTS):
            self.events.write_event(Event(wall_time=time.time(), **content))
            self.events.flush()
