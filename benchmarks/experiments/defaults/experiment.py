"""Training at the default, and at factors of it, by task and method."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.experiments.defaults.methods import METHODS
from benchmarks.experiments.defaults.report import figures, report
from benchmarks.experiments.defaults.tasks import TASKS, Task
from benchmarks.experiments.dense import listed
from benchmarks.harness.files import InputError
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Positives, one_of, some
from benchmarks.harness.results import Results


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    # Tasks.
    tasks: Annotated[tuple[str, ...], some(one_of(TASKS))] = (*TASKS,)
    # Methods.
    methods: Annotated[tuple[str, ...], some(one_of(METHODS))] = (*METHODS,)
    # Factors of all learning rates of a method; 1 has to be one of them.
    factors: Positives = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    seeds: Count = 3  # Seeds.
    steps: Count = 300  # Steps of each training.


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each task and method."""
    if 1.0 not in settings.factors:
        raise InputError("--factors lacks 1, the default: add it.")
    results.expect(len(settings.tasks) * len(settings.methods))
    for name in settings.tasks:
        task = TASKS[name]()
        for method in settings.methods:
            run = partial(train, task, method, settings)
            results.part(f"{name}/{method}", run)


def train(task: Task, method: str, settings: Settings) -> dict[str, Any]:
    """Return losses and accuracies, each a list by factor and seed."""
    seeds = range(settings.seeds)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    starts = jax.vmap(task.init)(keys)
    # Rates are converted once, by the norms of the first seed.
    make = partial(
        METHODS[method].make, jax.tree.map(lambda x: x[0], starts), task.groups
    )
    batches = np.stack(
        [task.draw(np.random.RandomState(x), settings.steps) for x in seeds]
    )
    run = partial(_train, task, make)

    @jax.jit
    def each(starts, batches, factors):
        def of_factor(factor):
            return jax.lax.map(lambda x: run(*x, factor), (starts, batches))

        return jax.lax.map(of_factor, factors)

    found = each(starts, batches, jnp.asarray(settings.factors))
    return {name: listed(x, 5) for name, x in found.items()}


def _train(
    task: Task, make: Callable, params: Any, batches: jax.Array, factor: Any
) -> dict[str, jax.Array]:
    """Return the evaluation after training from one seed."""
    steps = len(batches)
    tx = make(lambda rate: optax.cosine_decay_schedule(factor * rate, steps))

    def step(carry, batch):
        params, state = carry
        gradients = jax.grad(task.loss)(params, batch)
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    carry = params, tx.init(params)
    (params, _), _ = jax.lax.scan(step, carry, batches)
    return task.evaluate(params)


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        tasks=("GCN, karate club",),
        methods=("adamw", "psi_adam"),
        factors=(0.5, 1.0),
        seeds=2,
        steps=10,
    ),
    measure=measure,
    report=report,
    figures=figures,
    page="experiments/defaults.md",
)
