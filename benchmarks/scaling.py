"""What a step of the optimizer sends between devices, and a model of its time.

    python -m benchmarks.scaling --docs

Compiles the step of the optimizer alone, on meshes of eight virtual devices and
for the parameters of real networks, and reads from the program what is sent.
Nothing is computed: the counts are exact for this compiler, and the same on any
machine.
"""

import argparse
import collections
import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import psi_optax
from benchmarks import pages
from benchmarks.harness import files
from benchmarks.harness.files import one_message
from benchmarks.options import one_of
from benchmarks.report import versions
from benchmarks.step_time_sets import SETS, ParameterSet
from benchmarks.train.layout import Layout, make_layout
from benchmarks.train.optimizers import OPTIMIZERS

__all__ = ["Machine", "Sent", "compiled", "main", "seconds", "sent"]

MESHES = ({"fsdp": 8}, {"model": 8}, {"fsdp": 4, "model": 2})

NAMES = ("psi_sgd", "psi_adam")

# Weight, gradient and momentum are read, and two of them written; of Adam, both
# moments. Bytes a weight in float32.
MOVED = {"psi_sgd": 20, "psi_adam": 28}

# The passes that divide a program are the same; the machine code is not used.
_QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0}

_COLLECTIVE = re.compile(
    r"= (?P<type>\(.*?\)|\S+)"
    r" (?P<kind>all-reduce|all-gather|all-to-all|reduce-scatter"
    r"|collective-permute|collective-broadcast)(-start)?\("
)


class Sent(NamedTuple):
    """What a program sends.

    Attributes:
        operations: how many of each kind.
        numbers: how many numbers all results have, on one device.
    """

    operations: dict[str, int]
    numbers: int


class Machine(NamedTuple):
    """What the model assumes of a machine.

    Attributes:
        memory: bytes a second that a device reads and writes.
        network: bytes a second that it sends.
        latency: seconds of a message.
    """

    memory: float
    network: float
    latency: float


def compiled(
    parameters: ParameterSet, layout: Layout, name: str
) -> tuple[str, int]:
    """The step of an optimizer, compiled for a mesh.

    Args:
        parameters: shapes, and which of them are grouped.
        layout: what lies where.
        name: one of `OPTIMIZERS`.

    Returns:
        The program, and how many of the grouped parameters are divided along
        their groups.
    """
    shapes = {
        path: jax.ShapeDtypeStruct(shape, parameters.dtype)
        for path, shape in parameters.shapes.items()
    }
    groups = psi_optax.output_channels(shapes, where=parameters.grouped)
    tx = OPTIMIZERS[name](rate=0.1, decay=1e-4, momentum=0.9, groups=groups)
    with jax.set_mesh(layout.mesh):
        params = layout.shapes(shapes)
        states = layout.state_shardings(tx, shapes)
        state = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=place
            ),
            jax.eval_shape(tx.init, shapes),
            states,
        )

        def step(gradients, state, params):
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        program = (
            jax.jit(
                step,
                donate_argnums=(1, 2),
                out_shardings=(layout.shardings(shapes), states),
            )
            .lower(params, state, params)
            .compile(_QUICK)
        )
    cut = sum(
        any(params[path].sharding.spec[: len(x.shape) - 1])
        for path, x in shapes.items()
        if groups[path] is not None
    )
    return str(program.as_text()), cut


def sent(program: str) -> Sent:
    """What a compiled program sends between devices.

    Examples:
        >>> sent("%x = (f32[8]{0}, f32[2,3]{1,0}) all-reduce(%a, %b)")
        Sent(operations={'all-reduce': 1}, numbers=14)
    """
    found = list(_COLLECTIVE.finditer(program))
    shapes = [
        shape
        for match in found
        for shape in re.findall(r"\w+\[([\d,]*)\]", match["type"])
    ]
    numbers = sum(
        math.prod(int(n) for n in shape.split(",") if n) for shape in shapes
    )
    operations = collections.Counter(match["kind"] for match in found)
    return Sent(dict(operations), numbers)


def seconds(
    weights: int,
    devices: int,
    machine: Machine,
    moved: float = 20,
    operations: int = 0,
    numbers: int = 0,
) -> float:
    r"""The model: how long a step of the optimizer takes.

    \[T(n) = \frac{B P}{n\,\beta} + A \lambda \log_2 n
       + 2\,\frac{n - 1}{n}\,\frac{4 S}{\gamma}\]

    Args:
        weights: their number P.
        devices: among how many, n, they are divided.
        machine: its memory \(\beta\), network \(\gamma\) and latency
            \(\lambda\).
        moved: the bytes B that are moved for each weight.
        operations: the number A of all-reduces one after the other.
        numbers: how many numbers S they add up, in float32.

    Returns:
        The time in seconds.

    Examples:
        >>> machine = Machine(memory=1e12, network=1e11, latency=1e-5)
        >>> print(f"{seconds(10**9, 8, machine):.4f}")
        0.0025
    """
    memory = moved * weights / (devices * machine.memory)
    waiting = operations * machine.latency * math.log2(devices)
    ring = 2 * (devices - 1) / devices * 4 * numbers / machine.network
    return memory + waiting + ring


def measure(names: Sequence[str]) -> list[dict[str, Any]]:
    """What is sent, a row for each set, mesh and optimizer."""
    rows = []
    for name in names:
        for sizes in MESHES:
            for optimizer in NAMES:
                program, cut = compiled(
                    SETS[name], make_layout(sizes), optimizer
                )
                found = sent(program)
                rows.append(
                    {
                        "set": name,
                        "weights": SETS[name].weights,
                        "mesh": sizes,
                        "optimizer": optimizer,
                        "cut": cut,
                        **found._asdict(),
                    }
                )
                print(rows[-1])
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    head = ["parameters", "mesh", "optimizer", "parts of groups"]
    head += ["sent", "kB", "of the gradient"]
    lines = [
        [
            f"`{row['set']}`",
            ",".join(f"{k}={v}" for k, v in row["mesh"].items()),
            f"`{row['optimizer']}`",
            str(row["cut"]),
            ", ".join(f"{n} {k}" for k, n in row["operations"].items())
            or "nothing",
            f"{4 * row['numbers'] / 1000:.0f}",
            f"{100 * row['numbers'] / _gradient(row):.2f} %",
        ]
        for row in rows
    ]
    return pages.table([head, *lines])


def _gradient(row: dict[str, Any]) -> float:
    """How many numbers of the gradient a device adds up with others."""
    return row["weights"] / row["mesh"].get("model", 1)


# Of the order of an accelerator of 2024; what the curves say does not hang on
# it, for all three terms can be read off them.
ASSUMED = Machine(memory=3e12, network=3e11, latency=1e-5)


def figure(rows: list[dict[str, Any]]) -> Figure:
    """The model's time against the number of devices."""
    drawn = Figure(figsize=(7.5, 3.6), layout="constrained")
    names = sorted({row["set"] for row in rows})
    devices = 2.0 ** np.arange(11)
    for axes, name in zip(
        np.atleast_1d(drawn.subplots(1, len(names))), names, strict=True
    ):
        some = [r for r in rows if r["set"] == name]
        for row, style in zip(
            [r for r in some if r["optimizer"] == "psi_sgd"],
            ("-", ":", "--"),
            strict=True,
        ):
            sums = sum(row["operations"].values())
            times = [
                1e3
                * seconds(
                    row["weights"],
                    int(n),
                    ASSUMED,
                    MOVED["psi_sgd"],
                    sums if n > 1 else 0,
                    row["numbers"],
                )
                for n in devices
            ]
            mesh = ", ".join(row["mesh"])
            axes.plot(devices, times, style, label=mesh, lw=2)
        axes.set(
            xscale="log",
            yscale="log",
            title=name,
            xlabel="devices",
            ylabel="step of psi_sgd (ms, model)",
        )
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.3)
        axes.legend(title="divided along")
    return drawn


@one_message()
def main(argv: Sequence[str] | None = None) -> None:
    """Reads what is sent; prints the table and writes JSON and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    sets = ["resnet50", "gpt_124m"]
    add("--sets", nargs="+", choices=SETS, type=one_of(SETS), default=sets)
    add("--docs", action="store_true", help="write docs/scaling.md as well")
    add("--out", type=pathlib.Path, default=pathlib.Path("results"))
    given = parser.parse_args(argv)
    folder = pages.DOCS if given.docs else given.out
    files.make_folder(folder)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    rows = measure(given.sets)
    text = table(rows)
    print(text)
    found = {"versions": versions(), "rows": rows}
    files.write(folder / "scaling.json", json.dumps(found, indent=1) + "\n")
    files.write_figure(folder / "scaling.png", figure(rows))
    if given.docs:
        pages.refill(pages.DOCS / "scaling.md", "sent", text)


if __name__ == "__main__":
    main()
