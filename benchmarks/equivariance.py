"""How far a run departs when its first weights are rescaled.

    python -m benchmarks.equivariance
    python -m benchmarks.equivariance --docs  # and docs/equivariance.md anew

Every optimizer of ours and of optax from four starts each, and those of torch's
libraries where `make oracles` has made their environments. The exit status is 1
if one of ours does not do what is claimed of it, or if any hardly moves.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import psi_optax
from benchmarks import equivariance_problem as problem, pages, peers
from benchmarks.equivariance_optimizers import OPTAX, OURS, Entry
from benchmarks.equivariance_peers import missing
from benchmarks.harness import files
from benchmarks.harness.files import one_message
from benchmarks.options import existing

EXACT, TO_EPSILON = 1e-12, 1e-3
"""The largest direction errors of what is called exact, and nearly so."""

STILL = 0.05
"""A run whose directions move by less says nothing."""

Row = dict[str, Any]

_PAGE = pages.DOCS / "equivariance.md"


def measure(entry: Entry, jit: Callable = jax.jit) -> Row:
    """What is found of one JAX optimizer.

    Args:
        entry: the optimizer and what is claimed of it.
        jit: compiles a step.

    Returns:
        What `equivariance_problem.measure` returns, and "claim". With an exact
        claim also "bits": whether float32 directions keep every bit when the
        start is rescaled by powers of two.
    """
    run = follow(entry.tx, jit)
    with jax.enable_x64(True):
        found = {**problem.measure(run), "claim": entry.claim}
    if entry.claim in problem.KINDS:
        found["bits"] = same_bits(run, entry.claim)
    return found


def follow(
    tx: optax.GradientTransformation, jit: Callable = jax.jit
) -> problem.Run:
    """How an optimizer runs: all runs of one dtype by one executable."""

    @jit
    def move(gradients, state, weights):
        updates, state = tx.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state

    def run(weights: problem.Weights) -> problem.Path:
        state, path = tx.init(weights), []
        for step in range(problem.STEPS):
            gradients = problem.gradient(step, weights)
            weights, state = move(gradients, state, weights)
            weights = {name: np.asarray(w) for name, w in weights.items()}
            path.append(weights)
        return problem.stacked(path)

    return run


def same_bits(run: problem.Run, kind: str) -> bool:
    """Whether float32 directions are the same for powers of two."""
    start = problem.start(np.float32)
    path, other = run(start), run(problem.rescaled(start, kind, 2, 20))
    return problem.direction_error(path, other) == 0


def verdict(errors: dict[str, float]) -> str:
    """The finest rescaling that runs do not see.

    Args:
        errors: direction errors by kind of rescaling.

    Returns:
        "filter", "tensor" or "network"; the same with ", to epsilon"; or
        "none". What may be rescaled filter by filter may be so tensor by
        tensor, and as a whole.

    Examples:
        >>> verdict({"network": 1e-15, "tensor": 2e-15, "filter": 0.3})
        'tensor'
        >>> verdict({"network": 1e-9, "tensor": 1e-8, "filter": 2e-8})
        'filter, to epsilon'
        >>> verdict({"network": 0.2, "tensor": 0.3, "filter": 0.1})
        'none'
    """
    for count in range(len(problem.KINDS), 0, -1):
        kinds = problem.KINDS[:count]
        worst = np.max([errors[kind] for kind in kinds])
        if worst <= EXACT:
            return kinds[-1]
        if worst <= TO_EPSILON:
            return f"{kinds[-1]}, to epsilon"
    return "none"


def faults(rows: list[Row]) -> list[str]:
    """What is not as it should be, in words."""
    found = []
    for row in rows:
        name = row["optimizer"]
        if "errors" not in row:
            continue
        seen, claim = verdict(row["errors"]), row.get("claim")
        if claim not in (None, seen):
            found.append(f"{name}: claimed is {claim}, found is {seen}.")
        if row.get("bits") is False:
            found.append(f"{name}: rescaling by powers of two changes bits.")
        if not row["moved"] > STILL:
            found.append(f"{name} hardly moves: raise its rate.")
    return found


def run_peers(sources: pathlib.Path | None) -> list[Row]:
    """A row for every peer, measured where there is an environment with it."""
    rows = {(row["library"], row["optimizer"]): row for row in missing()}
    arguments = ["--sources", str(sources.absolute())] if sources else []
    for found in peers.outputs("benchmarks.equivariance_peers", arguments):
        for row in found:
            rows[row["library"], row["optimizer"]] = row
    return list(rows.values())


def run(sources: pathlib.Path | None) -> dict[str, Any]:
    """All rows, and the versions that they depend on.

    Args:
        sources: a folder of clones, for peers that are on no registry.
    """
    rows = [
        {"library": library, "optimizer": name, **measure(entry)}
        for library, entries in (("psi_optax", OURS), ("optax", OPTAX))
        for name, entry in entries.items()
    ]
    others = run_peers(sources)
    versions = {
        "psi_optax": psi_optax.__version__,
        "JAX": jax.__version__,
        "optax": optax.__version__,
    }
    versions |= {
        row["library"]: row["version"] for row in others if "version" in row
    }
    return {"versions": versions, "rows": rows + others}


def table(rows: list[Row]) -> str:
    """A line for each optimizer, in Markdown."""
    return pages.table([_HEAD, *map(_cells, rows)])


_HEAD = (
    *("optimizer", "network", "tensor", "filter", "moved", "growth"),
    *("may be rescaled", "same bits"),
)


def _cells(row: Row) -> tuple[str, ...]:
    name = f"`{row['optimizer']}`"
    if row["library"] not in ("psi_optax", "optax"):
        name = f"{row['library']} {name}"
    if "errors" not in row:
        return name, "not installed", *[""] * (len(_HEAD) - 2)
    return (
        name,
        *(_error(row["errors"][kind]) for kind in problem.KINDS),
        f"{row['moved']:.2f}",
        f"{row['growth']:.2f}",
        verdict(row["errors"]),
        {True: "yes", False: "no", None: ""}[row.get("bits")],
    )


def _error(value: float) -> str:
    """Two digits.

    Examples:
        >>> _error(0.5), _error(3e-16)
        ('0.50', '3.0e-16')
    """
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1e}"


def section(results: dict[str, Any]) -> str:
    """What goes between the markers: a table for each kind of library."""
    kinds: dict[str, list[Row]] = {}
    for row in results["rows"]:
        ours = row["library"] in ("psi_optax", "optax")
        kind = row["library"] if ours else "other libraries"
        kinds.setdefault(kind, []).append(row)
    tables = [f"### {kind}\n\n{table(rows)}" for kind, rows in kinds.items()]
    versions = [
        f"{name} {version or '(source)'}"
        for name, version in results["versions"].items()
    ]
    return "\n\n".join([*tables, f"{', '.join(versions)}."])


@one_message()
def main(argv: list[str] | None = None) -> None:
    """Runs all; prints tables and writes the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="results")
    parser.add_argument("--docs", action="store_true", help=f"write {_PAGE}")
    parser.add_argument(
        "--sources",
        type=existing,
        help="a folder of clones, as tests/oracles/make.py wants it",
    )
    args = parser.parse_args(argv)

    files.make_folder(args.out)
    results = run(args.sources)
    print(section(results))
    absent = [r["optimizer"] for r in results["rows"] if "errors" not in r]
    if absent:
        print(f"\nNot installed, see `make oracles`: {', '.join(absent)}")
    path = args.out / "equivariance.json"
    files.write(path, json.dumps(results, indent=1) + "\n")
    print(f"Numbers: {path}")
    if args.docs:
        pages.refill(_PAGE, "equivariance", section(results))
        pages.keep(path, _PAGE)
        print(f"Page: {_PAGE}")
    if found := faults(results["rows"]):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
