"""Numbers in an event file, as TensorBoard reads them.

tensorboardX's own `SummaryWriter` writes in a thread, whose errors nobody gets:
a full disk would end it unseen.
"""

import contextlib
import pathlib
import socket
import time
from collections.abc import Mapping

from tensorboardX.proto.event_pb2 import (
    Event,  # pyrefly: ignore
    SessionLog,  # pyrefly: ignore
)
from tensorboardX.proto.summary_pb2 import Summary  # pyrefly: ignore
from tensorboardX.record_writer import RecordWriter

from benchmarks.harness import files

__all__ = ["Events"]


class Events:
    """An event file, open to be written.

    Args:
        folder: where it is made, with a name of its own.
        first: from this step on, what other files there say is hidden.
    """

    def __init__(self, folder: pathlib.Path, first: int):
        folder.mkdir(exist_ok=True)
        # By name, files follow each other as they were begun.
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
        self.path = folder / name
        self.file = RecordWriter(str(self.path))
        self._write(Event(step=first, file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=first, session_log=start))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Writes the numbers of a step down, by name.

        Raises:
            OSError: they cannot be written.
        """
        values = [
            Summary.Value(tag=name, simple_value=number)
            for name, number in numbers.items()
        ]
        self._write(Event(step=step, summary=Summary(value=values)))
        with files.named(self.path):
            self.file.flush()

    def close(self) -> None:
        """Closes the file; what was added is written already."""
        with contextlib.suppress(OSError):
            self.file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with files.named(self.path):
            self.file.write(event.SerializeToString())
