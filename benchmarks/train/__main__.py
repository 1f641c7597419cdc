"""The command: train here, in processes started here, or as one of them."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from benchmarks.harness.files import make_folder
from benchmarks.harness.machine import give_threads
from benchmarks.train import batches, learners, records, run
from benchmarks.train.checkpoints import CheckpointError
from benchmarks.train.layout import make_layout
from benchmarks.train.settings import DATA, Options, parse

# Exit statuses: of what could not go on, of what did not begin, of Ctrl-C.
FAILED, REFUSED, STOPPED = 1, 2, 130


def main(argv: list[str]) -> None:
    """Train as the command line says; exit with one line where it cannot."""
    with _refusing(ValueError):
        options = parse(argv)
    devices = jax.config.jax_num_cpu_devices  # pyrefly: ignore
    if devices > 1:
        give_threads(devices)
    try:
        if options.process is not None:
            join(options)
        elif options.processes > 1:
            sys.exit(start(argv, options))
        else:
            train(options)
    except KeyboardInterrupt:
        print("stopped.", records.go_on(options.out), file=sys.stderr)
        sys.exit(STOPPED)


def train(options: Options) -> None:
    """Train in this process, if nothing is wrong."""
    settings, out = options.settings, options.out
    sizes = dict(vars(options.mesh))
    with _refusing(OSError, ValueError):
        axes = sizes.pop("axes")
        layout = make_layout(sizes, axes)
        data = DATA[settings.data]()
        batches.check(settings, data, layout.parts)
        if settings.averaging != "gradients":
            learners.check(settings.averaging, layout)
        with jax.set_mesh(layout.mesh):
            network = run.build(settings, data)
        done = records.check(out, settings, options.resume)
        make_folder(out)
    if jax.process_count() > 1:
        # Before all have looked into the folder, none may write there.
        multihost_utils.sync_global_devices("checked")
    if options.resume and not done:
        _say(f"nothing to resume in {out}: starting")
    if done == settings.epochs:
        _say(f"all {done} epochs are done")
        return
    try:
        with _refusing(CheckpointError):
            run.train(settings, data, layout, out, *network)
    except OSError as error:
        print(f"{error}\n{records.go_on(out)}".strip(), file=sys.stderr)
        sys.exit(FAILED)


@contextlib.contextmanager
def _refusing(*errors: type[Exception]) -> Iterator[None]:
    """Exit with the line of such an error."""
    try:
        yield
    except errors as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr)


def join(options: Options) -> None:
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


def start(argv: list[str], options: Options) -> int:
    """Start processes, and wait; when one fails, end the others and tell."""
    out = options.out
    with _refusing(OSError):
        make_folder(out)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.train", *argv]
    command += ["--coordinator", f"localhost:{port}", "--process"]
    # The first one's output is this one's.
    logs = [None, *(_log(out, i) for i in range(1, options.processes))]
    with contextlib.ExitStack() as stack:
        # They ignore Ctrl-C, because they are ended from here.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        started = [
            stack.enter_context(_process([*command, str(index)], log))
            for index, log in enumerate(logs)
        ]
        signal.signal(signal.SIGINT, before)
        names = ", ".join(str(process.pid) for process in started)
        print(f"{len(started)} processes: {names}", file=sys.stderr, flush=True)
        failed = _first_failures(started)
        if REFUSED in failed.values():
            # The first process refuses too, and says why.
            with contextlib.suppress(subprocess.TimeoutExpired):
                failed[0] = started[0].wait(10)
    refused = [i for i, status in failed.items() if status == REFUSED]
    if refused:
        # Another process than the first one says why in its log.
        if 0 not in refused:
            print(_log(out, refused[0]).read_text().strip(), file=sys.stderr)
        return REFUSED
    if failed:
        print(_report(failed, out), file=sys.stderr)
    return FAILED if failed else 0


def _log(out: pathlib.Path, index: int) -> pathlib.Path:
    return out / f"process-{index}.log"


@contextlib.contextmanager
def _process(
    command: list[str], log: pathlib.Path | None
) -> Iterator[subprocess.Popen]:
    """Start a process, which is ended in the end."""
    with log.open("wb") if log else contextlib.nullcontext() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield process
        finally:
            # JAX takes SIGTERM for the notice of an end to come.
            process.kill()
            process.wait()


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
    ends = []
    for index, status in causes.items():
        how = f"failed with exit status {status}"
        if status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        log = f" (see {_log(out, index)})" if index else ""
        ends.append(f"process {index} {how}{log}")
    how = records.go_on(out)
    return f"{' and '.join(ends)}; the others were ended.\n{how}".strip()


if __name__ == "__main__":
    main(sys.argv[1:])
