"""What is written down of a run: a line of JSON an epoch, and for TensorBoard.

`metrics.jsonl` is the record; a run that goes on writes it anew as it was up to
its checkpoint. The event files in the folder `tensorboard` say the same.
"""

import json
import pathlib
from typing import Any

import tensorboardX

__all__ = ["Records", "read"]

FILE = "metrics.jsonl"


def read(out: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run, none if it has not begun."""
    path = out / FILE
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


class Records:
    """The records of a run, open to be written.

    Args:
        out: the output folder.
        done: number of epochs to keep of those that are there.
    """

    def __init__(self, out: pathlib.Path, done: int):
        self.out = out
        self.lines = read(out)[:done]
        # What was written of later epochs is hidden.
        self.events = tensorboardX.SummaryWriter(
            str(out / "tensorboard"), purge_step=done + 1
        )

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        self.events.close()

    def add(self, line: dict[str, Any]) -> None:
        """Writes a line down, which has an `epoch`."""
        self.lines.append(line)
        part = self.out / f"{FILE}.part"
        part.write_text("".join(f"{json.dumps(x)}\n" for x in self.lines))
        # All lines at once, or none.
        part.replace(self.out / FILE)
        for name, value in line.items():
            if name != "epoch":
                self.events.add_scalar(name, value, line["epoch"])
        self.events.flush()
