"""The epochs of a run, from the start or from the last checkpoint."""

import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from tqdm import tqdm

from benchmarks.data import Dataset
from benchmarks.harness import files
from benchmarks.train import batches, checkpoints, folder, steps
from benchmarks.train.layout import Layout
from benchmarks.train.networks import NETWORKS
from benchmarks.train.optimizers import OPTIMIZERS
from benchmarks.train.records import Records
from benchmarks.train.schedules import SCHEDULES
from benchmarks.train.settings import Settings
from benchmarks.training import kernel_groups

__all__ = ["build", "train"]


def train(
    chosen: Settings, dataset: Dataset, layout: Layout, out: pathlib.Path
) -> None:
    """Trains, and writes records and checkpoints.

    In each of several processes: the first one writes the records, and all of
    them the checkpoints.

    Args:
        chosen: what to do.
        dataset: the data.
        layout: what lies where.
        out: the output folder, which is there.

    Raises:
        folder.CheckpointError: the last checkpoint is damaged, or another
            run's.
        OSError: a file cannot be written. What was written before remains.
    """
    first = jax.process_index() == 0
    if first:
        text = json.dumps(dataclasses.asdict(chosen), indent=1)
        files.write(out / folder.SETTINGS, text)
    model, optimizer = build(chosen, dataset)
    shape = batches.image_shape(chosen, dataset)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(jax.set_mesh(layout.mesh))
        kept = enter(checkpoints.manager(out))
        training = steps.start(model, optimizer, layout, shape, chosen.seed)
        step = steps.make_step(model, optimizer, layout, training)
        evaluate = steps.make_evaluate(model, layout)
        done = kept.latest_step() or 0
        if done:
            training = checkpoints.restored(kept, done, training, chosen)
        records = enter(Records(out, done)) if first else None
        for epoch in range(done + 1, chosen.epochs + 1):
            training, loss = _epoch(
                step, training, _train(chosen, dataset, layout, epoch)
            )
            tests = batches.test_batches(chosen, dataset, layout)
            found = evaluate(training.variables, batches.ahead(tests))
            if records:
                records.add({"epoch": epoch, "train_loss": loss, **found})
            checkpoints.save(kept, epoch, training, chosen)


def build(
    chosen: Settings, dataset: Dataset
) -> tuple[nn.Module, optax.GradientTransformation]:
    """The network and its optimizer."""
    model = NETWORKS[chosen.model](dataset.num_classes)
    per_epoch = len(dataset.train_labels) // chosen.batch
    schedule = SCHEDULES[chosen.schedule](
        chosen.rate, per_epoch * chosen.epochs
    )
    image = jax.ShapeDtypeStruct(
        (1, *batches.image_shape(chosen, dataset)), jnp.float32
    )
    optimizer = OPTIMIZERS[chosen.optimizer](
        rate=schedule,
        decay=chosen.decay,
        momentum=chosen.momentum,
        groups=kernel_groups(model, image),
    )
    return model, optimizer


def _train(chosen: Settings, dataset: Dataset, layout: Layout, epoch: int):
    """The batches of an epoch, and how far it is."""
    return tqdm(
        batches.ahead(batches.train_batches(chosen, dataset, layout, epoch)),
        f"epoch {epoch}",
        total=len(dataset.train_labels) // chosen.batch,
        leave=False,
        # None: on a terminal alone.
        disable=True if jax.process_index() else None,
    )


def _epoch(step, training: steps.Training, some) -> tuple[Any, float]:
    """What is there after the steps, and the mean loss."""
    losses = []
    for images, labels in some:
        training, loss = step(training, images, labels)
        losses.append(loss)
    return training, float(np.mean(losses, dtype=np.float64))
