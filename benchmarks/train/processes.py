"""Several processes on this machine, which train together.

Nothing here imports JAX: what watches the processes has no devices.
"""

import argparse
import contextlib
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO

from benchmarks.harness.files import make_folder
from benchmarks.train.folder import has_run, last_checkpoint, lines

__all__ = ["FAILED", "REFUSED", "STOPPED", "check", "go_on", "parser", "run"]

FAILED = 1
"""The exit status of a process that could not go on."""

REFUSED = 2
"""The exit status of a process that did not begin, and has said why."""

STOPPED = 130
"""The exit status of a program that was stopped by Ctrl-C."""

Process = subprocess.Popen[bytes]


def parser() -> argparse.ArgumentParser:
    """The options that say which process this is, to be part of others."""
    made = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add = made.add_argument
    add(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("results/train"),
        help="the output folder (default: %(default)s)",
    )
    add(
        "--processes",
        type=int,
        default=1,
        help="that train together; they are started here, but with --process",
    )
    add("--process", type=int, help="be this one of them, from 0")
    add("--coordinator", help="host:port of process 0, with --process")
    return made


def check(options: argparse.Namespace) -> None:
    """Whether these options of `parser` go together.

    Raises:
        ValueError: they do not.
    """
    count, index = options.processes, options.process
    if count < 1:
        raise ValueError(f"--processes {count}: it has to be 1 or more.")
    if (index is None) != (options.coordinator is None):
        raise ValueError(
            "--process and --coordinator: say both, to be one of the processes"
            " that are started by hand, or none of them."
        )
    if index is not None and not 0 <= index < count:
        raise ValueError(
            f"--process {index}: with --processes {count} it has to be from 0"
            f" to {count - 1}."
        )


def run(argv: list[str], count: int, out: pathlib.Path) -> int:
    """Starts the processes and waits for them.

    The first one's output is this one's; that of the others goes to files in
    the output folder.

    Args:
        argv: the command line, of all of them.
        count: number of processes.
        out: the output folder.

    Returns:
        The exit status: 0 if all of them ended with 0. When one does not, the
        others are ended too, and an error says which one it was, when, and how
        to go on, unless it has said itself why it did not begin.

    Raises:
        OSError: the output folder cannot be made.
    """
    with _started(argv, count, out) as started:
        names = ", ".join(str(process.pid) for process in started)
        print(f"{count} processes: {names}", file=sys.stderr, flush=True)
        failed = _first_failures(started)
    if not failed or REFUSED in failed.values():
        return REFUSED if failed else 0
    print(_report(failed, out), file=sys.stderr)
    return FAILED


@contextlib.contextmanager
def _started(
    argv: list[str], count: int, out: pathlib.Path
) -> Iterator[list[Process]]:
    """The processes, of which none is left in the end."""
    command = [
        *(sys.executable, "-m", "benchmarks.train", *argv),
        *("--coordinator", f"localhost:{_free_port()}", "--process"),
    ]
    make_folder(out)
    with contextlib.ExitStack() as stack:
        outputs: list[IO | None] = [None]
        for index in range(1, count):
            file = (out / f"process-{index}.log").open("wb")
            outputs.append(stack.enter_context(file))
        started = []
        try:
            with _no_interrupts():
                for index, output in enumerate(outputs):
                    process = subprocess.Popen(
                        [*command, str(index)], stdout=output, stderr=output
                    )
                    started.append(process)
            yield started
        finally:
            for process in started:
                # JAX takes SIGTERM for the notice of an end to come.
                process.kill()
                process.wait()


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """What is started here ignores Ctrl-C: it is ended from here."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def _first_failures(started: list[Process]) -> dict[int, int]:
    """Waits; the exit statuses of those that failed before they were ended."""
    while True:
        statuses = [process.poll() for process in started]
        failed = {i: s for i, s in enumerate(statuses) if s}
        if failed or None not in statuses:
            return failed
        time.sleep(0.05)


def _report(failed: dict[int, int], out: pathlib.Path) -> str:
    """Which processes ended how, when, and how to go on."""
    # A peer's death is an error of the others, so those that were ended from
    # outside, by a signal, are the ones to tell of.
    ended = {i: s for i, s in failed.items() if s < 0} or failed
    ends = [f"process {i} {_end(s)}" for i, s in ended.items()]
    logs = [f"{out}/process-{i}.log" for i in ended if i]
    lines = [" and ".join(ends) + f", {_when(out)}; the others were ended."]
    if logs:
        lines.append(f"Its output is in {', '.join(logs)}.")
    return "\n".join([*lines, *go_on(out)])


def go_on(out: pathlib.Path) -> list[str]:
    """How to go on with a run; nothing if it has not begun."""
    if done := last_checkpoint(out):
        return [
            f"The last checkpoint is of epoch {done}: the same command with"
            " --resume goes on from there."
        ]
    if has_run(out):
        return [
            "There is no checkpoint yet: the same command with --resume starts"
            " anew."
        ]
    return []


def _end(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"failed with exit status {status}"


def _when(out: pathlib.Path) -> str:
    told, done = len(lines(out)), last_checkpoint(out)
    if told > done:
        return f"before the checkpoint of epoch {told} was complete"
    return f"in epoch {done + 1}"
