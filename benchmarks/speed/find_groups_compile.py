"""Cost of `find_groups` with arrays, beside compiling a training step.

By default all that is proved is measured as well, which compiles the loss. The
training step is a gradient and Adam, in one function. Each measurement has a
process of its own, and the persistent compilation cache is off.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks import problems
from benchmarks.harness import pages
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, one_of, some
from benchmarks.harness.processes import alone
from benchmarks.harness.results import Content, Results
from benchmarks.problems import GPT2_SMALL, Network, Problem, array

COLD = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}


def readme() -> Problem:
    """Return the network of the README: one hidden layer of 32 units."""

    def loss(params, images, labels):
        x = jax.nn.standardize(images @ params["hidden"]["kernel"], axis=0)
        logits = jax.nn.relu(x) @ params["head"]["kernel"]
        return problems.cross_entropy(logits, labels)

    layers = {"hidden": array(64, 32), "head": array(32, 10)}
    params = {name: {"kernel": kernel} for name, kernel in layers.items()}
    return Problem(loss, params, (array(8, 64), array(8, dtype=jnp.int32)))


_NARROW = GPT2_SMALL._replace(length=32, width=128, heads=4)

NETWORKS = {
    "readme": Network("the README's, batch 8", readme),
    "resnet20": Network(
        "ResNet-20, Linen, batch 8", partial(problems.small_resnet, 20)
    ),
    "gpt12": Network(
        "Transformer, 12 layers of width 128, Linen, 4 x 32 tokens",
        partial(problems.transformer, _NARROW, vocabulary=256, batch=4),
    ),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        runs: Runs of each kind of work that the median is of.
        networks: Networks to measure.
    """

    runs: Count = 3
    networks: Annotated[tuple[str, ...], some(one_of(NETWORKS))] = (*NETWORKS,)


def measure(settings: Settings, results: Results) -> None:
    """Measure the networks one after the other."""
    results.expect(len(settings.networks))
    for name in settings.networks:
        results.part(name, partial(medians, name, settings.runs))


def medians(name: str, runs: int) -> dict[str, dict[str, float]]:
    """Return median seconds by kind of work; the two kinds take turns."""
    turns = [
        {work: alone(seconds, name, work, environment=COLD) for work in WORK}
        for _ in range(runs)
    ]
    return {
        work: {
            clock: statistics.median(turn[work][clock] for turn in turns)
            for clock in ("cpu_s", "wall_s")
        }
        for work in WORK
    }


def seconds(name: str, work: str) -> dict[str, float]:
    """Return the CPU time of all threads, and the time that passed."""
    loss, *shapes = NETWORKS[name].make()
    params, args = draw(shapes)
    # The compiler itself is loaded before the clock starts.
    jax.jit(lambda x: jnp.tanh(x).sum()).lower(np.ones(3)).compile()
    cpu, wall = time.process_time(), time.perf_counter()
    WORK[work](loss, params, *args)
    return {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
    }


def draw(shapes: Any) -> Any:
    """Return arrays of these shapes: small integers, or random weights."""
    random = np.random.default_rng(0)

    def one(x):
        if jnp.issubdtype(x.dtype, np.integer):
            return jnp.asarray(random.integers(0, 8, x.shape), x.dtype)
        if len(x.shape) < 2:
            return jnp.ones(x.shape, x.dtype)
        fan_in = np.prod(x.shape[:-1])
        normal = random.normal(size=x.shape) / np.sqrt(fan_in)
        return jnp.asarray(normal, x.dtype)

    return jax.tree.map(one, shapes)


def compile_step(loss: Callable, params: Any, *args: Any) -> None:
    """Compile a step of Adam."""
    optimizer = optax.adam(1e-3)

    def step(params, state, *args):
        value, gradient = jax.value_and_grad(loss)(params, *args)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    jax.jit(step).lower(params, optimizer.init(params), *args).compile()


WORK = {"step": compile_step, "find": psi_optax.find_groups}


def report(content: Content) -> str:
    """Return a table with a line for each network."""
    head = ["", "step, CPU", "find, CPU", "ratio", "step", "find", "ratio"]
    lines = [
        [network.title, *_cells(row, "cpu_s"), *_cells(row, "wall_s")]
        for name, network in NETWORKS.items()
        if (row := content["parts"].get(name))
    ]
    about = (
        "{cores} CPU cores, JAX {jax}; median of {runs} runs of each.".format(
            **content["versions"], **content["settings"]
        )
    )
    return f"{pages.table([head, *lines], right=True)}\n\n{about}"


def _cells(row: dict[str, dict[str, float]], clock: str) -> list[str]:
    step, found = row["step"][clock], row["find"][clock]
    return [f"{step:.2f} s", f"{found:.2f} s", f"{found / step:.2f}"]


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(runs=1, networks=("readme",)),
    measure=measure,
    report=report,
    page="finding-groups.md",
    selects=("networks",),
    timed=True,
)
