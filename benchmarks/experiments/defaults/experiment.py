"""Training at the default, and at factors of it, by task and method."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
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
    starts = [jax.jit(task.init)(jax.random.key(seed)) for seed in seeds]
    # Rates are converted once, by the norms of the first seed.
    make = partial(METHODS[method].make, starts[0], task.groups)
    run = make_run(task, make, settings.steps)
    rows = [
        [run(*pair, factor) for pair in zip(starts, seeds, strict=True)]
        for factor in settings.factors
    ]
    return {
        name: listed([[float(x[name]) for x in row] for row in rows], 5)
        for name in rows[0][0]
    }


def make_run(
    task: Task, make: Callable, steps: int
) -> Callable[[Any, int, float], dict[str, jax.Array]]:
    """Return a function of initial params, a seed and a factor: the evaluation.

    Steps are compiled one by one: XLA's convolutions are several times slower
    in loops on a CPU.
    """
    evaluate = jax.jit(task.evaluate)

    def optimizer(factor):
        return make(lambda x: optax.cosine_decay_schedule(factor * x, steps))

    @jax.jit
    def init(params, factor):
        return optimizer(factor).init(params)

    @jax.jit
    def step(params, state, batch, factor):
        gradients = jax.grad(task.loss)(params, batch)
        updates, state = optimizer(factor).update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    def run(params, seed, factor):
        state = init(params, factor)
        for batch in task.draw(np.random.RandomState(seed), steps):
            params, state = step(params, state, batch, factor)
        return evaluate(params)

    return run


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
