"""Compare what `find_groups` costs with arrays to compiling a training step.

    python -m benchmarks.find_groups_compile
    python -m benchmarks.find_groups_compile --docs  # and the page anew

By default all that is proved is measured as well, which compiles the loss. The
goal is at most the time that compiling the training step takes: a gradient and
Adam, in one function. Each measurement has a process of its own, so that
nothing is traced or compiled before; the persistent compilation cache is off.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks import networks, pages
from benchmarks.harness import files
from benchmarks.harness.files import one_message
from benchmarks.networks import Problem
from benchmarks.options import at_least, one_of

_ROOT = pathlib.Path(__file__).parents[1]
_PAGE = pages.DOCS / "finding-groups.md"


def readme() -> Problem:
    """Return the network of the README: one hidden layer, 8 inputs."""

    def loss(params, images, labels):
        x = jax.nn.standardize(images @ params["hidden"]["kernel"], axis=0)
        logits = jax.nn.relu(x) @ params["head"]["kernel"]
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, labels
        ).mean()

    def array(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    params = {
        "hidden": {"kernel": array(64, 32)},
        "head": {"kernel": array(32, 10)},
    }
    labels = jax.ShapeDtypeStruct((8,), jnp.int32)
    return Problem(loss, params, (array(8, 64), labels))


class Network(NamedTuple):
    """A network to measure.

    Attributes:
        title: its name in the table.
        make: makes it.
    """

    title: str
    make: Callable[[], Problem]


NETWORKS: dict[str, Network] = {
    "readme": Network("the README's, batch 8", readme),
    "resnet20": Network(
        "ResNet-20, Linen, batch 8",
        functools.partial(networks.small_resnet_linen, 20),
    ),
    "gpt12": Network(
        "Transformer, 12 layers of width 128, Linen, 4 x 32 tokens",
        functools.partial(
            networks.transformer_linen,
            width=128,
            heads=4,
            vocabulary=256,
            length=32,
            batch=4,
        ),
    ),
}


def draw(shapes: Any, seed: int = 0) -> Any:
    """Return arrays of these shapes: small integers, or random weights."""
    random = np.random.default_rng(seed)

    def one(x):
        if jnp.issubdtype(x.dtype, np.integer):
            return jnp.asarray(random.integers(0, 8, x.shape), x.dtype)
        if len(x.shape) < 2:
            return jnp.ones(x.shape, x.dtype)
        fan_in = np.prod(x.shape[:-1])
        normal = random.normal(size=x.shape) / np.sqrt(fan_in)
        return jnp.asarray(normal, x.dtype)

    return jax.tree.map(one, shapes)


def compile_step(loss: Callable, params: Any, args: tuple) -> None:
    """Compile a step of Adam."""
    optimizer = optax.adam(1e-3)

    def step(params, state, *args):
        value, gradient = jax.value_and_grad(loss)(params, *args)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    jax.jit(step).lower(params, optimizer.init(params), *args).compile()


def find(loss: Callable, params: Any, args: tuple) -> None:
    """Find the groups, by proof and by measurement."""
    psi_optax.find_groups(loss, params, *args)


WORK = {"step": compile_step, "find": find}


def measure(problem: Problem, work: str) -> dict[str, float]:
    """Return the seconds of one kind of work on a network.

    Args:
        problem: the network.
        work: a key of `WORK`.

    Returns:
        The CPU time, of all threads, and the time that passed.
    """
    params, args = draw(problem.params), draw(problem.args)
    # The compiler itself is loaded before the clock starts.
    jax.jit(lambda x: jnp.tanh(x).sum()).lower(np.ones(3)).compile()
    cpu, wall = time.process_time(), time.perf_counter()
    WORK[work](problem.loss, params, args)
    return {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
    }


def measure_alone(name: str, work: str) -> dict[str, float]:
    """Return the same from a fresh process."""
    command = [sys.executable, "-m", "benchmarks.find_groups_compile"]
    cold = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(
        [*command, "--alone", name, "--work", work],
        cwd=_ROOT,
        env={**os.environ, **cold},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def run(runs: int) -> dict[str, Any]:
    """Measure all networks; the two kinds of work take turns."""
    rows = {}
    for name, network in NETWORKS.items():
        turns = [
            {work: measure_alone(name, work) for work in WORK}
            for _ in range(runs)
        ]
        rows[network.title] = {
            work: {
                key: statistics.median(turn[work][key] for turn in turns)
                for key in ("cpu_s", "wall_s")
            }
            for work in WORK
        }
    machine = {"cores": os.cpu_count(), "jax": jax.__version__}
    return {"machine": machine, "runs": runs, "networks": rows}


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return a line for each network, in Markdown, from what `run` returns."""
    head = ["", "step, CPU", "find, CPU", "ratio", "step", "find", "ratio"]
    lines = [
        [title, *_cells(row, "cpu_s"), *_cells(row, "wall_s")]
        for title, row in rows.items()
    ]
    return pages.table([head, *lines], right=True)


def _cells(row: dict[str, dict[str, float]], key: str) -> list[str]:
    step, found = row["step"][key], row["find"][key]
    return [f"{step:.2f} s", f"{found:.2f} s", f"{found / step:.2f}"]


def section(results: dict[str, Any]) -> str:
    """Return what goes between the markers of the page."""
    machine = results["machine"]
    about = (
        f"{machine['cores']} CPU cores, JAX {machine['jax']}; median of"
        f" {results['runs']} runs of each, in a process of its own, without a"
        " persistent cache; CPU time is that of all threads."
    )
    return f"{table(results['networks'])}\n\n{about}"


@one_message()
def main(argv: list[str] | None = None) -> None:
    """Measures all networks; prints a table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=at_least(1), default=3)
    parser.add_argument("--out", type=pathlib.Path, default="results")
    parser.add_argument("--docs", action="store_true", help=f"write {_PAGE}")
    parser.add_argument(
        "--alone", type=one_of(NETWORKS), help=argparse.SUPPRESS
    )
    parser.add_argument(
        "--work", type=one_of(WORK), default="find", help=argparse.SUPPRESS
    )
    args = parser.parse_args(argv)

    if args.alone:
        problem = NETWORKS[args.alone].make()
        print(json.dumps(measure(problem, args.work)))
        return
    files.make_folder(args.out)
    if args.docs:
        pages.check(_PAGE, "find_groups_compile")
    results = run(args.runs)
    print(table(results["networks"]))
    path = args.out / "find_groups_compile.json"
    files.write(path, json.dumps(results, indent=1) + "\n")
    print(f"Numbers: {path}")
    if args.docs:
        pages.refill(_PAGE, "find_groups_compile", section(results))
        pages.keep(path, _PAGE)
        print(f"Page: {_PAGE}")


if __name__ == "__main__":
    main()
