"""Checkpoints: written whole, and read only if nothing of them has changed."""

import contextlib
import gc
import io
import logging
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import orbax.checkpoint as ocp

from benchmarks.train.folder import CHECKPOINTS, CheckpointError
from benchmarks.train.seals import seal
from benchmarks.train.settings import Settings
from benchmarks.train.steps import Training

__all__ = ["manager", "restored", "save"]

Manager = ocp.CheckpointManager


def manager(out: pathlib.Path) -> Manager:
    """What keeps the last checkpoint in the output folder.

    What is there of others, which were not completed, is deleted.
    """
    return Manager(
        (out / CHECKPOINTS).absolute(),
        options=ocp.CheckpointManagerOptions(
            max_to_keep=1, cleanup_tmp_directories=True
        ),
    )


def save(
    kept: Manager, epoch: int, training: Training, settings: Settings
) -> None:
    """Writes a checkpoint; then the one before is deleted.

    Ctrl-C waits for the end of it.

    Args:
        kept: what keeps it.
        epoch: after which it is.
        training: what it holds.
        settings: of the run.

    Raises:
        OSError: it cannot be written. The one before remains.
    """
    args = ocp.args.StandardSave(_sealed(epoch, training, settings))

    def write() -> None:
        kept.save(epoch, args=args)
        kept.wait_until_finished()

    with _uninterrupted():
        _, why = _tried(write)
    if why is not None:
        raise OSError(f"{_name(kept, epoch)} cannot be written: {why}")


def restored(
    kept: Manager, epoch: int, like: Training, settings: Settings
) -> Training:
    """What a checkpoint holds.

    Args:
        kept: what keeps it.
        epoch: after which it is.
        like: the same at any other time, on the devices where it is to be.
        settings: of the run.

    Raises:
        CheckpointError: it is damaged, or another one than was saved.
    """
    args = ocp.args.StandardRestore(_sealed(epoch, like, settings))
    content, why = _tried(lambda: kept.restore(epoch, args=args))
    if why is None:
        training = Training(content["variables"], content["state"])
        if content["seal"] == seal(training, settings, epoch):
            return training
        why = "its numbers are not those that were saved"
    raise CheckpointError(
        f"{_name(kept, epoch)} cannot be read: it is damaged, or of another"
        f" run ({why}). It is the only one: delete {kept.directory.parent}, and"
        " start anew."
    )


def _sealed(
    epoch: int, training: Training, settings: Settings
) -> dict[str, Any]:
    """What a checkpoint holds."""
    return {**training._asdict(), "seal": seal(training, settings, epoch)}


def _name(kept: Manager, epoch: int) -> str:
    return f"the checkpoint {kept.directory / str(epoch)}"


def _tried(do: Callable[[], Any]) -> tuple[Any, str | None]:
    """What it returns, and why it could not be done, if so."""
    with _silent():
        try:
            return do(), None
        # Orbax has no error of its own for this: it raises many.
        except Exception as error:
            why, *_ = str(error).splitlines() or [type(error).__name__]
        # Nothing says when its threads have found that nobody waits for them;
        # and some errors are told when they are deleted.
        time.sleep(0.5)
        gc.collect()
    return None, why


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Within it, Ctrl-C waits for the end."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    # Not where it is ignored.
    if came and callable(before):
        before(signal.SIGINT, None)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Within it, the threads of orbax do not tell what it raises too."""
    before = logging.root.manager.disable, sys.unraisablehook
    logging.disable(logging.ERROR)
    sys.unraisablehook = lambda _: None
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before[0])
        sys.unraisablehook = before[1]
