"""The command: train here, in processes started here, or as one of them."""

import contextlib
import sys
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from benchmarks.harness.files import make_folder
from benchmarks.train import batches, processes, records, run
from benchmarks.train.checkpoints import CheckpointError
from benchmarks.train.layout import make_layout
from benchmarks.train.settings import DATA, Options, parse


def main(argv: list[str]) -> None:
    """Train as the command line says; exit with one line where it cannot."""
    with _refusing(OSError, ValueError):
        options = parse(argv)
    try:
        if options.process is not None:
            processes.join(options, train)
        elif options.processes == 1:
            train(options)
        else:
            with _refusing(OSError):
                status = processes.run(argv, options)
            sys.exit(status)
    except KeyboardInterrupt:
        print("stopped.", records.go_on(options.out), file=sys.stderr)
        sys.exit(processes.STOPPED)


def train(options: Options) -> None:
    """Train in this process, if nothing is wrong."""
    settings, out, mesh = options.settings, options.out, options.mesh
    with _refusing(OSError, ValueError):
        layout = make_layout(vars(mesh), mesh.axes)
        data = DATA[settings.data]()
        batches.check(settings, data, layout.parts)
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
            run.train(settings, data, layout, out)
    except OSError as error:
        print(f"{error}\n{records.go_on(out)}".strip(), file=sys.stderr)
        sys.exit(processes.FAILED)


@contextlib.contextmanager
def _refusing(*errors: type[Exception]) -> Iterator[None]:
    """Exit with the line of such an error."""
    try:
        yield
    except errors as error:
        print(error, file=sys.stderr)
        sys.exit(processes.REFUSED)


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
