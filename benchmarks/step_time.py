"""What one optimizer step costs, as a ratio to the inner optimizer alone.

    python -m benchmarks.step_time
    python -m benchmarks.step_time --docs  # and docs/choosing.md anew

State and parameters of ResNet-50 are updated by one jitted, donated call; the
gradients are fixed. Cases run in turns, so that whatever else the machine does
falls on all of them alike, and the ratio is formed turn by turn. Absolute times
mean nothing on a shared machine.
"""

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks import pages
from benchmarks.shapes import resnet50

_GROUPED = r".*(stem|conv_\d|shortcut)/kernel"


class Case(NamedTuple):
    """A compiled optimizer step with what it works on."""

    step: Callable
    params: dict
    state: optax.OptState
    temporary_mb: float
    compile_s: float


def optimizers(params: dict) -> dict[str, optax.GradientTransformation]:
    """Baselines and ours; the name says which baseline a case is held to."""
    groups = psi_optax.output_channels(params, where=_GROUPED)
    sgd = optax.sgd(0.01, momentum=0.9)
    return {
        "optax.sgd(momentum)": sgd,
        "psi_sgd(momentum)": psi_optax.psi_sgd(0.01, groups, momentum=0.9),
        "psi(optax.sgd(momentum))": psi_optax.psi(sgd, groups),
        "psi_sgdm": psi_optax.psi_sgdm(0.01, groups, momentum=0.9),
        "sgd_g": psi_optax.sgd_g(0.01, groups),
        "sgdp": psi_optax.sgdp(0.01, groups),
        "weight_rescaling(optax.sgd(momentum))": psi_optax.weight_rescaling(
            sgd, groups
        ),
        "rotational(optax.trace)": psi_optax.rotational(
            0.01, optax.trace(0.9), groups
        ),
        "hyperball(optax.trace)": psi_optax.hyperball(
            0.01, optax.trace(0.9), groups
        ),
        "optax.lars": optax.lars(0.01, momentum=0.9),
        "optax.adam": optax.adam(1e-3),
        "psi_adam": psi_optax.psi_adam(1e-3, groups),
        "psi(optax.adam)": psi_optax.psi(optax.adam(1e-3), groups),
        "adam_g": psi_optax.adam_g(1e-3, groups),
        "adamp": psi_optax.adamp(1e-3, groups),
        "adamh": psi_optax.adamh(1e-3, groups),
        "optax.lamb": optax.lamb(1e-3),
    }


def baseline(name: str) -> str:
    """The optimizer that a case is compared with."""
    adam = "adam" in name or "lamb" in name
    return "optax.adam" if adam else "optax.sgd(momentum)"


def compile_case(tx: optax.GradientTransformation, params, gradients) -> Case:
    """Compiles one step, in place."""
    params = jax.tree.map(jnp.copy, params)
    state = jax.jit(tx.init)(params)

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    start = time.perf_counter()
    compiled = (
        jax.jit(step, donate_argnums=(0, 1))
        .lower(params, state, gradients)
        .compile()
    )
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    temporary = memory.temp_size_in_bytes / 2**20 if memory else float("nan")
    return Case(compiled, params, state, temporary, seconds)


def time_in_turns(
    cases: dict[str, Case], gradients, turns: int, steps: int
) -> dict[str, list[float]]:
    """Seconds per step of each case, one figure a turn."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(turns + 1):
        for name, case in cases.items():
            params, state = case.params, case.state
            start = time.perf_counter()
            for _ in range(steps):
                params, state = case.step(params, state, gradients)
            jax.block_until_ready((params, state))
            if turn:  # The first turn warms up.
                seconds[name].append((time.perf_counter() - start) / steps)
            cases[name] = case._replace(params=params, state=state)
    return seconds


def report(cases: dict[str, Case], seconds: dict[str, list[float]]) -> list:
    """One row a case: its ratio to its baseline, with the quartiles."""
    rows = []
    for name, case in cases.items():
        ratios = [
            ours / theirs
            for ours, theirs in zip(
                seconds[name], seconds[baseline(name)], strict=True
            )
        ]
        low, middle, high = (
            statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        )
        rows.append(
            {
                "optimizer": name,
                "baseline": baseline(name),
                "ratio": middle,
                "quartiles": [low, high],
                "state": _bytes(case.state) / _bytes(case.params),
                "temporary_mb": case.temporary_mb,
                "compile_ratio": case.compile_s
                / cases[baseline(name)].compile_s,
            }
        )
    return rows


def _bytes(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def table(rows: list) -> str:
    """The rows in Markdown."""
    head = ["one step", "ratio", "to", "state", "temporaries", "compile"]
    lines = [
        [
            f"`{row['optimizer']}`",
            "{:.1f} ({:.1f} to {:.1f})".format(row["ratio"], *row["quartiles"]),
            f"`{row['baseline']}`",
            f"{row['state']:.1f}",
            f"{row['temporary_mb']:.0f} MB",
            f"{row['compile_ratio']:.1f}",
        ]
        for row in rows
    ]
    return pages.table([head, *lines])


def main(argv: list[str] | None = None) -> None:
    """Runs all cases; prints a table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", nargs="+", help="optimizers; all by default")
    parser.add_argument(
        "--docs", action="store_true", help="put the table into the docs"
    )
    parser.add_argument("--out", type=pathlib.Path, default="results")
    args = parser.parse_args(argv)

    draw = np.random.default_rng(0)
    params = {
        path: jnp.asarray(draw.normal(0, 0.05, shape), jnp.float32)
        for path, shape in resnet50().items()
    }
    gradients = jax.tree.map(lambda w: 1e-3 * jnp.flip(w), params)
    cases = {
        name: compile_case(tx, params, gradients)
        for name, tx in optimizers(params).items()
        if not args.only or name in {*args.only, *map(baseline, args.only)}
    }
    rows = report(
        cases, time_in_turns(cases, gradients, args.turns, args.steps)
    )

    print(f"ResNet-50 parameters, float32, {jax.devices()[0].device_kind}")
    print(table(rows))
    if args.docs:
        versions = f"JAX {jax.__version__}, optax {optax.__version__}."
        text = f"{table(rows)}\n\n{versions}"
        pages.refill(pages.DOCS / "choosing.md", "step time", text)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "step_time.json"
    path.write_text(
        json.dumps({"jax": jax.__version__, "rows": rows}, indent=1)
    )
    print(f"Numbers: {path}")


if __name__ == "__main__":
    main()
