"""Several processes that train together: started here, or being one of them."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import IO

import jax

from benchmarks.harness.files import make_folder
from benchmarks.train.records import go_on
from benchmarks.train.settings import Options

__all__ = ["FAILED", "REFUSED", "STOPPED", "join", "run"]

# Exit statuses: of what could not go on, of what did not begin, of Ctrl-C.
FAILED, REFUSED, STOPPED = 1, 2, 130


def run(argv: list[str], options: Options) -> int:
    """Start processes, and wait; when one fails, end the others and tell."""
    with _started(argv, options) as started:
        names = ", ".join(str(process.pid) for process in started)
        print(f"{len(started)} processes: {names}", file=sys.stderr, flush=True)
        failed = _first_failures(started)
    # A process that refused has said why.
    if failed and REFUSED not in failed.values():
        print(_report(failed, options.out), file=sys.stderr)
        return FAILED
    return REFUSED if failed else 0


def join(options: Options, train: Callable[[Options], None]) -> None:
    """Train as one of several processes; on failure do not wait for them."""
    try:
        jax.distributed.initialize(
            options.coordinator, options.processes, options.process
        )
        train(options)
        return
    except SystemExit as end:
        status = end.code
    except BaseException:
        # If the cause is another process, this one is ended before it tells.
        time.sleep(1)
        traceback.print_exc()
        status = FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(status or FAILED))


@contextlib.contextmanager
def _started(argv: list[str], options: Options) -> Iterator[list]:
    """Start processes, none of which is left in the end."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.train", *argv]
    command += ["--coordinator", coordinator, "--process"]
    make_folder(options.out)
    with contextlib.ExitStack() as stack:
        # The first one's output is this one's.
        outputs: list[IO | None] = [None]
        for index in range(1, options.processes):
            file = (options.out / f"process-{index}.log").open("wb")
            outputs.append(stack.enter_context(file))
        # They ignore Ctrl-C, because they are ended from here.
        started, before = [], signal.signal(signal.SIGINT, signal.SIG_IGN)
        for index, output in enumerate(outputs):
            process = subprocess.Popen(
                [*command, str(index)], stdout=output, stderr=output
            )
            stack.callback(process.wait)
            # JAX takes SIGTERM for the notice of an end to come.
            stack.callback(process.kill)
            started.append(process)
        signal.signal(signal.SIGINT, before)
        yield started


def _first_failures(started: list[subprocess.Popen]) -> dict[int, int]:
    """Wait; return the exit statuses of the first processes that failed."""
    while True:
        statuses = [process.poll() for process in started]
        failed = {i: s for i, s in enumerate(statuses) if s}
        if failed or None not in statuses:
            return failed
        time.sleep(0.05)


def _report(failed: dict[int, int], out: pathlib.Path) -> str:
    """Tell which processes failed, where their output is, how to continue."""
    # The death of a process is an error of its peers: a signal is the cause.
    causes = {i: s for i, s in failed.items() if s < 0} or failed
    ends = [
        f"process {i} was ended by {signal.Signals(-status).name}"
        if status < 0
        else f"process {i} failed with exit status {status}"
        for i, status in causes.items()
    ]
    lines = [" and ".join(ends) + "; the others were ended."]
    if logs := [f"{out}/process-{i}.log" for i in causes if i]:
        lines.append(f"Its output is in {', '.join(logs)}.")
    return "\n".join([*lines, go_on(out)]).rstrip()
