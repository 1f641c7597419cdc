"""A run: the network, its optimizer, a step, and the epochs, top to bottom."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from tqdm import tqdm

from benchmarks.data import Dataset
from benchmarks.data.images import standardize
from benchmarks.optimizers import OPTIMIZERS
from benchmarks.train import batches, learners
from benchmarks.train.checkpoints import Checkpoints, Training
from benchmarks.train.layout import Layout
from benchmarks.train.records import Records
from benchmarks.train.settings import NETWORKS, SCHEDULES, Settings
from benchmarks.training import kernel_groups

Optimizer = optax.GradientTransformation

cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def train(
    settings: Settings,
    data: Dataset,
    layout: Layout,
    out: pathlib.Path,
    model: nn.Module,
    optimizer: Optimizer,
) -> None:
    """Train from the beginning, or from the last checkpoint."""
    closing, count = contextlib.closing, len(data.train_labels)
    with jax.set_mesh(layout.mesh), closing(Checkpoints(out, settings)) as kept:
        shape = batches.image_shape(settings, data)
        training = start(model, optimizer, layout, shape, settings.seed)
        update, over_learners = global_update, lambda sums: sums
        if settings.averaging != "gradients":
            training = learners.copy_to_each(training, layout)
            update = learners.update_each(update)
            over_learners = learners.sum_each
        if kept.done:
            training = kept.restore(training)
        example = next(batches.train_batches(settings, data, layout, 1))
        step = make_step(model, optimizer, layout, training, update)
        begun = time.perf_counter()
        step = step.lower(training, *example).compile()
        compile_seconds = _digits(time.perf_counter() - begun)
        evaluate = make_evaluate(model, layout, over_learners)
        with closing(Records(out, settings, kept.done)) as records:
            for epoch in range(kept.done + 1, settings.epochs + 1):
                made = batches.train_batches(settings, data, layout, epoch)
                shown = tqdm(
                    batches.ahead(made),
                    f"epoch {epoch}",
                    total=count // settings.batch,
                    leave=False,
                    # None: on a terminal alone.
                    disable=True if jax.process_index() else None,
                )
                training, line = train_epoch(step, training, shown)
                tests = batches.test_batches(settings, data, layout)
                line |= evaluate(training.variables, batches.ahead(tests))
                line["compile_seconds"] = compile_seconds
                records.add({"epoch": epoch, **line})
                kept.save(epoch, training)


def build(settings: Settings, data: Dataset) -> tuple[nn.Module, Optimizer]:
    """Build the network, and its optimizer on the scale groups found in it."""
    model = NETWORKS[settings.model](data.num_classes)
    shape = batches.image_shape(settings, data)
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    steps = len(data.train_labels) // settings.batch * settings.epochs
    groups = kernel_groups(model, image).groups
    known = OPTIMIZERS[settings.optimizer]
    optimizer = known.make(
        SCHEDULES[settings.schedule](settings.rate, steps),
        groups,
        decay=settings.decay,
        momentum=settings.momentum,
    )
    if settings.averaging != "gradients":
        keeps_norms = known.invariance in ("filter", "tensor")
        kept = groups if keeps_norms else None
        optimizer = learners.chain(optimizer, settings.averaging, kept)
    return model, optimizer


def start(
    model: nn.Module, optimizer: Optimizer, layout: Layout, shape, seed: int
) -> Training:
    """Initialize weights for a shape of images, and the optimizer's state."""
    init = functools.partial(model.init, x=jnp.zeros((1, *shape)), train=False)
    key = jax.random.key(seed)
    shapes = jax.eval_shape(init, key)
    places = jax.tree.map(lambda _: layout.everywhere, shapes)
    places["params"] = layout.shardings(shapes["params"])
    # It runs once: on a CPU good machine code takes longer than it saves.
    on_cpu = jax.default_backend() == "cpu"
    quick = {"xla_backend_optimization_level": 0} if on_cpu else None
    compiled = jax.jit(init, out_shardings=places, compiler_options=quick)
    variables = compiled(key)
    return Training(variables, layout.init(optimizer, variables["params"]))


def global_update(loss: Callable, optimizer: Optimizer) -> Callable:
    """Return the update by the gradient of the whole batch's mean loss.

    Here the compiler averages over devices. Another average of gradients is
    another function like this one, with a `jax.shard_map` over the axes that
    divide the batch, as the `update` of `make_step`. That of weights is in
    `learners`.
    """

    def update(training: Training, images, labels):
        variables, state = training
        params = variables["params"]
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, rest), gradients = gradient(params, variables, images, labels)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return Training({"params": params, **rest}, state), value

    return update


def make_step(
    model: nn.Module,
    optimizer: Optimizer,
    layout: Layout,
    training: Training,
    update: Callable = global_update,
) -> Any:
    """Return the jitted step from a training state, images and labels.

    It donates the state, and returns the next one on the same devices, and the
    loss.
    """

    def loss(params, variables, images, labels):
        variables = {**variables, "params": layout.gather(params)}
        logits, statistics = model.apply(
            variables, images, train=True, mutable=["batch_stats"]
        )
        return cross_entropy(logits, labels).mean(), statistics

    updated = update(loss, optimizer)

    def step(training: Training, images, labels):
        return updated(training, standardize(images), labels)

    stay = jax.tree.map(lambda x: x.sharding, training), None
    return jax.jit(step, donate_argnums=0, out_shardings=stay)


def train_epoch(
    step: Callable, training: Training, made: Iterable[tuple[jax.Array, ...]]
) -> tuple[Training, dict[str, float]]:
    """Take a step on each batch; measure the mean loss and the speed."""
    begun, losses, examples = time.perf_counter(), [], 0
    for images, labels in made:
        training, loss = step(training, images, labels)
        losses.append(loss)
        examples += len(labels)
    # The mean waits for the last step.
    line = {"train_loss": float(np.mean(losses, dtype=np.float64))}
    seconds = time.perf_counter() - begun
    line["step_seconds"] = _digits(seconds / len(losses))
    line["examples_per_second"] = _digits(examples / seconds)
    return training, line


def _digits(value: float) -> float:
    """Round a measured time or speed."""
    return float(f"{value:.4g}")


def make_evaluate(
    model: nn.Module,
    layout: Layout,
    over_learners: Callable = lambda sums: sums,
) -> Callable:
    """Return the evaluation of variables on batches with weights."""

    @jax.jit
    @over_learners
    def sums(variables, images, labels, weights):
        variables = {**variables, "params": layout.gather(variables["params"])}
        logits: Any = model.apply(variables, standardize(images), train=False)
        right = (logits.argmax(-1) == labels).astype(weights.dtype)
        found = right, cross_entropy(logits, labels), jnp.ones_like(weights)
        return tuple(jnp.sum(x * weights) for x in found)

    def evaluate(variables, tests) -> dict[str, float]:
        found = np.array([sums(variables, *batch) for batch in tests])
        right, loss, count = found.sum(0, dtype=np.float64).tolist()
        return {"test_loss": loss / count, "test_accuracy": right / count}

    return evaluate
