"""Time of the step of psi_sgd with its sums, or its order, otherwise.

The step of `psi_optax.geometry.step` is written down once more without the
package, on the grouped parameters, with its three sums a group (of w², w d and
d²) formed in several ways, or left out: that gives no optimizer, but tells what
a sum costs. The ratios are those to SGD with momentum, in the same turns.

Further parts are steps of the package in processes of their own: "waiting" with
a second device, where no direction waits for sums, and "scheduler" with a flag
of XLA by which the program is ordered to need little memory.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from benchmarks.harness import pages
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, one_of
from benchmarks.harness.processes import alone
from benchmarks.harness.results import Content, Results
from benchmarks.speed.sets import SETS
from benchmarks.speed.step_time.cases import draw
from benchmarks.speed.step_time.experiment import measure_set
from benchmarks.speed.step_time.report import SHORT, table
from benchmarks.speed.steps import Case, time_cases
from benchmarks.speed.turns import quartiles

Row = dict[str, Any]

Sums = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]

_RATE, _MOMENTUM = 0.01, 0.9
_SGD = "SGD with momentum"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        set: Set of parameters.
        turns: Number of turns of each case.
        steps: Number of steps of a turn, at most.
    """

    set: Annotated[str, one_of(SETS)] = "resnet50"
    turns: Count = 11
    steps: Count = 6


def _sum(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    axes = tuple(range(arrays[0].ndim - 1))
    return tuple(jnp.sum(x, axes, keepdims=True) for x in arrays)


def _none(w, d, radius):
    """Take a row in place of each sum."""
    row = (slice(0, 1),) * (w.ndim - 1)
    return radius * radius, w[row] * d[row], d[row] * d[row]


def _packed(w, d, _):
    [both] = _sum(jax.lax.complex(w * d, d * d))
    return *_sum(w * w), both.real, both.imag


def _together(w, d, _, rows: int):
    """Reduce three operands over so many rows, then the rest."""
    fan_in, width = w.shape[-2:]
    while fan_in % rows:
        rows //= 2
    shape = (*w.shape[:-2], fan_in // rows, rows, width)
    partial = jax.lax.reduce(
        tuple(x.reshape(shape) for x in (w * w, w * d, d * d)),
        (jnp.zeros([], w.dtype),) * 3,
        lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
        (len(shape) - 2,),
    )
    return _sum(*partial)


_REDUCED = "one reduction of three operands"

# From weights, directions and radii: the sums of w², w d and d².
VARIANTS: dict[str, Sums] = {
    "three sums, as in the package": lambda w, d, _: _sum(w * w, w * d, d * d),
    "two, the norm being known": lambda w, d, r: (r * r, *_sum(w * d, d * d)),
    "none": _none,
    "two of the three as a complex sum": _packed,
    f"{_REDUCED}, 8 rows first": functools.partial(_together, rows=8),
    f"{_REDUCED}, 32 rows first": functools.partial(_together, rows=32),
}


def _moved(w, d, radius, sums):
    """Return the new weights, as `psi_optax.geometry.step` without guards."""
    square, inner, length = sums
    s = jnp.sqrt(square)
    v_d = inner / s
    q = _RATE**2 * jnp.maximum(length - v_d * v_d, 0)
    reach = 1 / jnp.sqrt(1 + q)
    fall = -q * reach * reach / (1 + reach)
    gap = (radius * radius - square) / (radius + s)
    alpha = (gap + radius * (fall + _RATE * v_d * reach)) / s
    return w + (alpha * w - _RATE * radius * reach * d)


def build(params: dict[str, Any], sums: Sums | None) -> Case:
    """Build a step with these sums, or that of SGD with momentum."""

    def step(params, state, gradients):
        momentum, radius = state
        moved, trace = {}, {}
        for path, w in params.items():
            r, g = radius[path], gradients[path]
            if sums is None:
                d = _MOMENTUM * momentum[path] + g
                moved[path] = w - _RATE * d
            else:
                d = _MOMENTUM * momentum[path] + r * g
                moved[path] = _moved(w, d, r, sums(w, d, r))
            trace[path] = d
        return moved, (trace, radius)

    radius = jax.tree.map(lambda w: jnp.sqrt(*_sum(w * w)), params)
    copies = jax.tree.map(jnp.copy, params)
    return Case(step, copies, (jax.tree.map(jnp.zeros_like, params), radius))


def _sums(settings: Settings) -> list[Row]:
    """Measure a row for each variant: its ratio, and its temporaries."""
    chosen = SETS[settings.set]
    params, gradients = (
        {x: w for x, w in tree.items() if re.fullmatch(chosen.grouped, x)}
        for tree in draw(chosen)
    )
    variants: dict[str, Sums | None] = {_SGD: None, **VARIANTS}
    cases = {name: build(params, sums) for name, sums in variants.items()}
    sizes = settings.turns, settings.steps, 1
    seconds, costs = time_cases(cases, gradients, *sizes)
    return [
        {
            "variant": name,
            "quartiles": quartiles(own, seconds[_SGD]),
            "temporary_mb": costs[name]["temporary_mb"],
        }
        for name, own in seconds.items()
    ]


_AROUND = ("psi(optax.sgd(momentum))", "psi_adam", "psi(optax.adam)")

# Flags of XLA, and the optimizers of the package's steps.
ELSEWHERE = {
    "waiting": ("--xla_force_host_platform_device_count=2", _AROUND),
    "scheduler": (
        "--xla_cpu_enable_concurrency_optimized_scheduler=false",
        ("psi_sgd(momentum)", "optax.lars", *_AROUND, "optax.lamb"),
    ),
}


def steps_of_the_package(
    name: str, turns: int, steps: int, only: list[str]
) -> list[Row]:
    """Measure a row for each optimizer: the columns of the short table."""
    shown = ("optimizer", "baseline", "ratio", "quartiles")
    shown += ("bytes_per_weight", "temporary_mb", "compile_ratio")
    rows = measure_set(name, turns, steps, 1, only)["rows"]
    return [{key: row[key] for key in shown} for row in rows]


def measure(settings: Settings, results: Results) -> None:
    """Measure the variants of sums, and the orders of the program."""
    results.expect(1 + len(ELSEWHERE))
    results.part("sums", lambda: _sums(settings))
    sizes = dataclasses.astuple(settings)
    for name, (flag, only) in ELSEWHERE.items():
        call = functools.partial(alone, steps_of_the_package, *sizes, only)
        part = functools.partial(call, environment={"XLA_FLAGS": flag})
        results.part(name, part)


def report(content: Content) -> str:
    """Return the table of the variants of sums."""
    lines = [
        [
            row["variant"],
            "{1:.1f} ({0:.1f} to {2:.1f})".format(*row["quartiles"]),
            f"{row['temporary_mb']:.0f} MB",
        ]
        for row in content["parts"]["sums"]
    ]
    return pages.table([["sums", "ratio", "temporaries"], *lines])


def sections(content: Content) -> dict[tuple[str, str], str]:
    """Return the tables of the orders of the program."""
    parts, device = content["parts"], content["versions"]["device"]
    return {
        ("step-time.md", name): table(parts[name], device, SHORT)
        for name in ELSEWHERE
    }


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings("small", 1, 1),
    measure=measure,
    report=report,
    page="step-time.md",
    sections=sections,
    timed=True,
)
