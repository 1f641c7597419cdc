"""Communication of a step of the optimizer, and a model of its time.

The step of the optimizer alone is compiled for the parameters of real networks
on meshes of eight virtual devices, and the program says what is sent. Nothing
is computed: the counts are exact for this compiler, on any machine.
"""

import collections
import dataclasses
import functools
import itertools
import math
import re
from typing import Annotated, Any

import jax
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import psi_optax
from benchmarks.harness import pages
from benchmarks.harness.colours import LOOKS
from benchmarks.harness.figures import panels
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import one_of, some
from benchmarks.harness.results import Content, Results
from benchmarks.optimizers import OPTIMIZERS
from benchmarks.speed.sets import SETS, ParameterSet
from benchmarks.train.layout import Layout, make_layout

MESHES = ({"fsdp": 8}, {"model": 8}, {"fsdp": 4, "model": 2})

MEASURED, NAMES = ("resnet50", "gpt_124m"), ("psi_sgd", "psi_adam")

# Bytes a weight in float32: weight, gradient and momentum are read, and two of
# them written.
MOVED = 20

# Bytes a second of memory and of network, and seconds of a message: of the
# order of an accelerator of 2024. Each term can be read off the curves.
MEMORY, NETWORK, LATENCY = 3e12, 3e11, 1e-5

# The passes that divide a program are the same; the machine code is not used.
_QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0}

_COLLECTIVE = re.compile(
    r"= (?P<type>\(.*?\)|\S+)"
    r" (?P<kind>all-reduce|all-gather|all-to-all|reduce-scatter"
    r"|collective-permute|collective-broadcast)(-start)?\("
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        sets: Sets of parameters.
    """

    sets: Annotated[tuple[str, ...], some(one_of(SETS))] = MEASURED


def compiled(
    parameters: ParameterSet, layout: Layout, name: str
) -> tuple[str, int]:
    """Compile a step for a mesh; count parameters divided along groups."""
    shape = jax.ShapeDtypeStruct
    shapes = {
        path: shape(sizes, parameters.dtype)
        for path, sizes in parameters.shapes.items()
    }
    groups = psi_optax.output_channels(shapes, where=parameters.grouped)
    tx = OPTIMIZERS[name].make(0.1, groups, decay=1e-4)

    def step(gradients, state, params):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    with jax.set_mesh(layout.mesh):
        params = layout.shapes(shapes)
        places = layout.state_shardings(tx, shapes)
        state = jax.tree.map(
            lambda x, place: shape(x.shape, x.dtype, sharding=place),
            jax.eval_shape(tx.init, shapes),
            places,
        )
        out = layout.shardings(shapes), places
        jitted = jax.jit(step, donate_argnums=(1, 2), out_shardings=out)
        program = jitted.lower(params, state, params).compile(_QUICK)
    cut = sum(
        any(params[path].sharding.spec[: len(x.shape) - 1])
        for path, x in shapes.items()
        if groups[path] is not None
    )
    return str(program.as_text()), cut


def sent(program: str) -> dict[str, Any]:
    """Count the operations of each kind in a program, and their numbers."""
    found = list(_COLLECTIVE.finditer(program))
    shapes = [
        [int(n) for n in shape.split(",") if n]
        for match in found
        for shape in re.findall(r"\w+\[([\d,]*)\]", match["type"])
    ]
    operations = collections.Counter(match["kind"] for match in found)
    return {"operations": operations, "numbers": sum(map(math.prod, shapes))}


def seconds(weights: int, devices: int, operations: int, numbers: int) -> float:
    """Return the time of a step by the model of docs/scaling.md.

    So many operations add up so many numbers in float32, one after the other.
    """
    memory = MOVED * weights / (devices * MEMORY)
    waiting = operations * LATENCY * math.log2(devices)
    ring = 2 * (devices - 1) / devices * 4 * numbers / NETWORK
    return memory + waiting + ring


def measure(settings: Settings, results: Results) -> None:
    """Count a part for each set, mesh and optimizer."""
    cases = list(itertools.product(settings.sets, MESHES, NAMES))
    results.expect(len(cases))
    for name, mesh, optimizer in cases:
        part = functools.partial(_row, name, mesh, optimizer)
        results.part(f"{name} {_text(mesh)} {optimizer}", part)


def _row(name: str, mesh: dict[str, int], optimizer: str) -> dict[str, Any]:
    program, cut = compiled(SETS[name], make_layout(mesh), optimizer)
    row = {"set": name, "weights": SETS[name].weights, "mesh": mesh}
    return {**row, "optimizer": optimizer, "cut": cut, **sent(program)}


def _text(mesh: dict[str, int]) -> str:
    return ",".join(f"{name}={size}" for name, size in mesh.items())


def report(content: Content) -> str:
    """Return a table of what is sent."""
    head = ["parameters", "mesh", "optimizer", "parts of groups"]
    head += ["sent", "kB", "of the gradient"]
    return pages.table([head, *map(_cells, content["parts"].values())])


def _cells(row: dict[str, Any]) -> list[str]:
    sent = [f"{count} {kind}" for kind, count in row["operations"].items()]
    # A device adds this part of the gradient up with others.
    gradient = row["weights"] / row["mesh"].get("model", 1)
    return [
        f"`{row['set']}`",
        _text(row["mesh"]),
        f"`{row['optimizer']}`",
        str(row["cut"]),
        ", ".join(sent) or "nothing",
        f"{4 * row['numbers'] / 1000:.0f}",
        f"{100 * row['numbers'] / gradient:.2f} %",
    ]


def figures(content: Content) -> dict[str, Figure]:
    """Draw the model's time for psi_sgd against the number of devices."""
    rows = content["parts"].values()
    rows = [row for row in rows if row["optimizer"] == NAMES[0]]
    names = sorted({row["set"] for row in rows})
    drawn, [subplots] = panels((1, len(names)), 3.2)
    for axes, name in zip(subplots, names, strict=True):
        _draw(axes, [row for row in rows if row["set"] == name])
        axes.set_title(name)
    return {"scaling": drawn}


def _draw(axes: Axes, rows: list[dict[str, Any]]) -> None:
    devices = [2**power for power in range(11)]
    for row, line, look in zip(rows, ("-", ":", "--"), LOOKS, strict=False):
        sums = sum(row["operations"].values()), row["numbers"]
        times = [1e3 * seconds(row["weights"], n, *sums) for n in devices]
        label = ", ".join(row["mesh"])
        # The next one covers it.
        width = {"linewidth": 4, "markersize": 9} if line == "-" else {}
        style: Any = {**look, **width, "linestyle": line}
        axes.plot(devices, times, label=label, **style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set(xlabel="devices", ylabel="step of psi_sgd (ms, model)")
    axes.legend(title="divided along", title_fontsize=9)


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(("small",)),
    measure=measure,
    report=report,
    page="scaling.md",
    figures=figures,
    selects=("sets",),
    devices=8,
)
