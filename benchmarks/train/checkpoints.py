"""Checkpoints: written whole, and refused if a bit of them has changed."""

import contextlib
import dataclasses
import gc
import json
import logging
import pathlib
import shutil
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

from benchmarks.train.records import CHECKPOINTS
from benchmarks.train.settings import Settings


class CheckpointError(Exception):
    """A checkpoint that cannot be read."""


class Training(NamedTuple):
    """All that a run carries from one epoch to the next."""

    variables: Any
    state: optax.OptState


class Checkpoints:
    """The last checkpoint of a run, after the epoch `done` (0 for none)."""

    def __init__(self, out: pathlib.Path, settings: Settings):
        self.settings = settings
        self.manager = ocp.CheckpointManager(
            (out / CHECKPOINTS).absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=1,
                cleanup_tmp_directories=True,
                enable_async_checkpointing=False,
            ),
        )
        self.done = self.manager.latest_step() or 0
        self.close = self.manager.close

    def save(self, epoch: int, training: Training) -> None:
        """Write a checkpoint, then delete the one before; Ctrl-C waits."""
        sealed = {"seal": seal(training, self.settings, epoch)}
        args = ocp.args.StandardSave(training._asdict() | sealed)
        with _uninterrupted():
            _, why = _tried(lambda: self.manager.save(epoch, args=args))
        if why is not None:
            path = self.manager.directory / str(epoch)
            shutil.rmtree(f"{path}.orbax-checkpoint-tmp", ignore_errors=True)
            raise OSError(f"the checkpoint {path} cannot be written: {why}")

    def restore(self, like: Training) -> Training:
        """Read the checkpoint onto the devices of `like`; check its seal."""
        sealed = {"seal": np.zeros(1, np.uint32)}
        args = ocp.args.StandardRestore(like._asdict() | sealed)
        found, why = _tried(lambda: self.manager.restore(self.done, args=args))
        if why is None:
            training = Training(found["variables"], found["state"])
            if found["seal"] == seal(training, self.settings, self.done):
                return training
            why = "its numbers are not those that were saved"
        folder, advice = self.manager.directory, ""
        if self.settings.averaging != "gradients":
            advice = " Resume learners on as many devices as before."
        raise CheckpointError(
            f"the checkpoint {folder / str(self.done)} cannot be read: it is"
            f" damaged, or of another run ({why}).{advice} It is the only one:"
            f" delete {folder.parent}, and start anew."
        )


def seal(tree: Any, settings: Settings, epoch: int) -> np.ndarray:
    """Return the sum of all bits, of the settings and the epoch, modulo 2³².

    Orbax keeps no checksums of the numbers of arrays. Each leaf's sum counts an
    odd number of times, so that one changed word always changes the seal. The
    number of epochs, which may grow, is left out.
    """
    words = jax.device_get([_sum_of_bits(x) for x in jax.tree.leaves(tree)])
    kept = dataclasses.asdict(settings) | {"epochs": epoch}
    total = zlib.crc32(json.dumps(kept).encode())
    total += sum((2 * i + 1) * int(word) for i, word in enumerate(words))
    return np.array([total % 2**32], np.uint32)


# Compiled for each shape: one program of all leaves would compile for long.
@jax.jit
def _sum_of_bits(x: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")
    return jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)


def _tried(do: Callable[[], Any]) -> tuple[Any, str | None]:
    """Return its result, and the first line of an error."""
    before = logging.root.manager.disable, sys.unraisablehook
    # The threads of orbax would tell what it raises as well.
    logging.disable(logging.ERROR)
    sys.unraisablehook = lambda _: None
    try:
        try:
            return do(), None
        # Orbax has no error of its own for this: it raises many.
        except Exception as error:
            why = str(error).partition("\n")[0] or type(error).__name__
        # Some are told when the threads have ended, or when they are deleted.
        time.sleep(0.5)
        gc.collect()
        return None, why
    finally:
        logging.disable(before[0])
        sys.unraisablehook = before[1]


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Make Ctrl-C wait for the end of the context."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    # Not where it is ignored.
    if came and callable(before):
        before(signal.SIGINT, None)
