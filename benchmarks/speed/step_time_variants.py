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
from benchmarks.speed.step_time.report import short_table
from benchmarks.speed.steps import Case, compile_in_turns
from benchmarks.speed.turns import quartiles, time_in_turns

__all__ = ["MEASUREMENT", "VARIANTS", "build", "steps_of_the_package"]

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


def _fan_in(w: jax.Array) -> tuple[int, ...]:
    return tuple(range(w.ndim - 1))


def _plain(w, d, _):
    axes = _fan_in(w)
    return jnp.sum(w * w, axes), jnp.sum(w * d, axes), jnp.sum(d * d, axes)


def _known_norm(w, d, radius):
    """Take the norm to be the radius."""
    axes = _fan_in(w)
    return radius * radius, jnp.sum(w * d, axes), jnp.sum(d * d, axes)


def _none(w, d, radius):
    """Take a row in place of each sum."""
    row = (0,) * (w.ndim - 1)
    return radius * radius, w[row] * d[row], d[row] * d[row]


def _packed(w, d, _):
    axes = _fan_in(w)
    both = jnp.sum(jax.lax.complex(w * d, d * d), axes)
    return jnp.sum(w * w, axes), both.real, both.imag


def _together(rows: int) -> Sums:
    """Reduce three operands over so many rows, then the rest."""

    def sums(w, d, _):
        fan_in, width = w.shape[-2:]
        count = rows
        while fan_in % count:
            count //= 2
        shape = (*w.shape[:-2], fan_in // count, count, width)
        zero = jnp.zeros([], w.dtype)
        partial = jax.lax.reduce(
            tuple(x.reshape(shape) for x in (w * w, w * d, d * d)),
            (zero, zero, zero),
            lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
            (len(shape) - 2,),
        )
        return tuple(jnp.sum(x, _fan_in(x)) for x in partial)

    return sums


VARIANTS: dict[str, Sums] = {
    "three sums, as in the package": _plain,
    "two, the norm being known": _known_norm,
    "none": _none,
    "two of the three as a complex sum": _packed,
    "one reduction of three operands, 8 rows first": _together(8),
    "one reduction of three operands, 32 rows first": _together(32),
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
            g = gradients[path]
            if sums is None:
                d = _MOMENTUM * momentum[path] + g
                moved[path] = w - _RATE * d
            else:
                r = radius[path]
                d = _MOMENTUM * momentum[path] + r * g
                moved[path] = _moved(w, d, r, sums(w, d, r))
            trace[path] = d
        return moved, (trace, radius)

    radius = jax.tree.map(
        lambda w: jnp.sqrt(jnp.sum(w * w, _fan_in(w))), params
    )
    copies = jax.tree.map(jnp.copy, params)
    return Case(step, copies, (jax.tree.map(jnp.zeros_like, params), radius))


def _sums(settings: Settings) -> list[Row]:
    """Measure a row for each variant: its ratio, and its temporaries."""
    chosen = SETS[settings.set]
    params, gradients = (
        {x: w for x, w in tree.items() if re.fullmatch(chosen.grouped, x)}
        for tree in draw(chosen)
    )
    cases = {_SGD: build(params, None)} | {
        name: build(params, sums) for name, sums in VARIANTS.items()
    }
    cases, compilations = compile_in_turns(cases, gradients, 1)
    runs = {name: case.run(gradients) for name, case in cases.items()}
    seconds = time_in_turns(runs, settings.turns, settings.steps)
    return [
        {
            "variant": name,
            "quartiles": quartiles(own, seconds[_SGD]),
            "temporary_mb": compilations[name].temporary_mb,
        }
        for name, own in seconds.items()
    ]


ELSEWHERE: dict[str, tuple[str, list[str]]] = {
    "waiting": (
        "--xla_force_host_platform_device_count=2",
        ["psi(optax.sgd(momentum))", "psi_adam", "psi(optax.adam)"],
    ),
    "scheduler": (
        "--xla_cpu_enable_concurrency_optimized_scheduler=false",
        [
            *("psi_sgd(momentum)", "psi(optax.sgd(momentum))", "optax.lars"),
            *("psi_adam", "psi(optax.adam)", "optax.lamb"),
        ],
    ),
}
"""Flags of XLA, and the optimizers of the package's steps."""

_SHOWN = (
    *("optimizer", "baseline", "ratio", "quartiles"),
    *("bytes_per_weight", "temporary_mb", "compile_ratio"),
)


def steps_of_the_package(
    name: str, turns: int, steps: int, only: list[str]
) -> list[Row]:
    """Measure a row for each optimizer."""
    rows = measure_set(name, turns, steps, 1, only)["rows"]
    return [{key: row[key] for key in _SHOWN} for row in rows]


def measure(settings: Settings, results: Results) -> None:
    """Measure the variants of sums, and the orders of the program."""
    results.expect(1 + len(ELSEWHERE))
    results.part("sums", lambda: _sums(settings))
    sizes = dataclasses.astuple(settings)
    for name, (flag, only) in ELSEWHERE.items():
        environment = {"XLA_FLAGS": flag}
        call = steps_of_the_package, *sizes, only
        part = functools.partial(alone, *call, environment=environment)
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
    device = content["versions"]["device"]
    return {
        ("step-time.md", name): short_table(content["parts"][name], device)
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
