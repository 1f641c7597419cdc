"""What is asked for on the command line, checked and done in this process."""

import argparse
import dataclasses
import os
import sys
import time
import traceback

import jax
from jax.experimental import multihost_utils

from benchmarks.harness.files import make_folder
from benchmarks.options import one_of
from benchmarks.train import folder, processes, run, settings, sources
from benchmarks.train.layout import AXIS_TYPES, make_layout

__all__ = ["main"]

ABOUT = """Train one network by one optimizer, on one device or many.

    python -m benchmarks.train --data fashion-mnist --model cnn
    python -m benchmarks.train --preset cifar --model resnet56
    python -m benchmarks.train ... --resume  # and all that was said before

Each epoch adds a line of JSON to metrics.jsonl in the output folder, and leaves
a checkpoint. A run that was stopped goes on from the last one, to the same
numbers: what an epoch draws depends on the seed and on its number alone. It may
go on on other devices; then the numbers are the same up to rounding.
"""


def main(argv: list[str] | None = None) -> None:
    """Parses, checks, and trains."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[processes.parser()],
        allow_abbrev=False,
    )
    settings.add_options(parser)
    add = parser.add_argument
    add("--resume", action="store_true", help="go on from the last checkpoint")
    add(
        "--mesh",
        type=_sizes,
        help="such as data=4,model=2 (default: data=all devices)",
    )
    add(
        "--axes",
        choices=AXIS_TYPES,
        type=one_of(AXIS_TYPES),
        default="auto",
        help="of a mesh",
    )
    options = parser.parse_args(argv)
    try:
        processes.check(options)
    except ValueError as error:
        parser.exit(processes.REFUSED, f"{error}\n")
    if options.process is not None:
        _be_one_of_many(parser, options)
        return
    try:
        _train(parser, options)
    except OSError as error:
        folder.clear(options.out)
        said = "\n".join([str(error), *processes.go_on(options.out)])
        parser.exit(processes.FAILED, f"{said}\n")


def _train(parser: argparse.ArgumentParser, options) -> None:
    """Trains, if that can be; otherwise says why not."""
    try:
        chosen = settings.chosen(options)
        sizes = options.mesh or {"data": jax.device_count()}
        layout = make_layout(sizes, options.axes)
        dataset = sources.load(chosen.data)
        settings.check_data(chosen, dataset, layout.parts)
        folder.check(options.out, dataclasses.asdict(chosen), options.resume)
        make_folder(options.out)
    except (OSError, ValueError) as error:
        parser.exit(processes.REFUSED, f"{error}\n")
    if options.resume and not folder.has_run(options.out):
        _say(f"nothing to resume in {options.out}: starting")
    done = folder.last_checkpoint(options.out)
    if jax.process_count() > 1:
        # Before all have looked into the folder, none may write there.
        multihost_utils.sync_global_devices("checked")
    if done == chosen.epochs:
        _say(f"all {done} epochs are done")
        return
    try:
        run.train(chosen, dataset, layout, options.out)
    except folder.CheckpointError as error:
        parser.exit(processes.REFUSED, f"{error}\n")


def _say(text: str) -> None:
    """Shows a line, in the first process alone."""
    if jax.process_index() == 0:
        print(text, file=sys.stderr)


def _be_one_of_many(parser: argparse.ArgumentParser, options) -> None:
    """Trains as one of several processes."""
    status = 0
    try:
        jax.distributed.initialize(
            options.coordinator, options.processes, options.process
        )
        _train(parser, options)
    except SystemExit as end:
        status = end.code
    except BaseException as error:
        # It may be the end of another process: then this one is ended, by what
        # started it, before it shows what is not the cause.
        time.sleep(1)
        if isinstance(error, OSError):
            print(error, file=sys.stderr)
        else:
            traceback.print_exc()
        status = processes.FAILED
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        # An ordinary end would wait for the others, which wait for this one.
        os._exit(int(status))


def _sizes(text: str) -> dict[str, int]:
    """The sizes of a mesh's axes.

    Examples:
        >>> _sizes("data=4,model=2")
        {'data': 4, 'model': 2}
    """
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        sizes = {name.strip(): int(size) for name, _, size in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not such as data=4,model=2"
        ) from None
    if len(sizes) < len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} has an axis twice")
    return sizes
