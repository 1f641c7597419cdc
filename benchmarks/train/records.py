"""What is written down of a run: a line of JSON an epoch, and for TensorBoard.

`metrics.jsonl` is the record; a run that goes on writes it anew as it was up to
its checkpoint. The event files in the folder `tensorboard` say the same.
"""

import json
import math
import pathlib
import sys
from typing import Any

from tqdm import tqdm

from benchmarks.harness import files
from benchmarks.train import folder
from benchmarks.train.events import Events

__all__ = ["Records", "read"]


def read(out: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run, none if it has not begun; see `folder.lines`."""
    return folder.lines(out)


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
        self.events = Events(out / "tensorboard", first=done + 1)

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        self.events.close()

    def add(self, line: dict[str, Any]) -> None:
        """Writes a line down, which has an `epoch`, and shows it.

        JSON has no numbers that are not finite: they are null.
        """
        line = {k: x if math.isfinite(x) else None for k, x in line.items()}
        new = _diverged(line) and not any(map(_diverged, self.lines))
        self.lines.append(line)
        texts = [json.dumps(x, allow_nan=False) for x in self.lines]
        files.write(self.out / folder.METRICS, "".join(f"{x}\n" for x in texts))
        numbers = {k: x for k, x in line.items() if x is not None}
        self.events.add(numbers.pop("epoch"), numbers)
        tqdm.write(texts[-1])
        if new:
            tqdm.write(
                f"epoch {line['epoch']}: the loss is not finite; a smaller"
                " --rate may help.",
                file=sys.stderr,
            )


def _diverged(line: dict[str, Any]) -> bool:
    return None in line.values()
