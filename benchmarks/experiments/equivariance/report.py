"""Tables of the equivariance page, and the claims that do not hold."""

import itertools
from typing import Any

import numpy as np

from benchmarks.experiments.equivariance.problem import KINDS
from benchmarks.harness import pages
from benchmarks.harness.results import Content

EXACT, TO_EPSILON = 1e-12, 1e-3
"""The largest direction errors of what is called exact, and nearly so."""

STILL, FARTHEST = 0.05, 2.0
"""Directions have to move by more, and cannot move by more than the latter."""

HEAD = (
    *("optimizer", *KINDS, "moved", "growth"),
    *("may be rescaled", "same bits"),
)

TABLES = ("psi_optax", "optax", "other libraries")

Row = dict[str, Any]


def verdict(errors: dict[str, float]) -> str:
    """Return the finest rescaling that has no effect, as coarser ones, or none.

    Examples:
        >>> verdict({"network": 1e-15, "tensor": 2e-15, "filter": 0.3})
        'tensor'
        >>> verdict({"network": 1e-9, "tensor": 1e-8, "filter": 2e-8})
        'filter, to epsilon'
        >>> verdict({"network": 0.2, "tensor": 0.3, "filter": 0.1})
        'none'
    """
    worst = np.maximum.accumulate([errors[kind] for kind in KINDS])
    for kind, error in reversed([*zip(KINDS, worst, strict=True)]):
        if error <= EXACT:
            return kind
        if error <= TO_EPSILON:
            return f"{kind}, to epsilon"
    return "none"


def faults(content: Content) -> list[str]:
    """Return the claims that do not hold, and runs that show nothing."""
    found = []
    for name, row in content["parts"].items():
        seen, claim = verdict(row["errors"]), row["claim"]
        if claim not in ("", seen):
            found.append(f"{name}: claimed is {claim}, found is {seen}.")
        if row["powers_of_two"]:
            found.append(f"{name}: rescaling by powers of two changes bits.")
        if not STILL < row["moved"] <= FARTHEST:
            found.append(f"{name} hardly moves or diverges: change its rate.")
    return found


def report(content: Content) -> str:
    """Return a table for each kind of library, and the versions."""
    rows = sorted(content["parts"].values(), key=_table)
    versions = {"JAX": content["versions"]["jax"]}
    versions |= {row["library"]: row["version"] for row in rows}
    tables = [
        f"### {TABLES[index]}\n\n{pages.table([HEAD, *map(_cells, group)])}"
        for index, group in itertools.groupby(rows, _table)
    ]
    listed = ", ".join(map(" ".join, versions.items()))
    return "\n\n".join([*tables, pages.wrap(f"{listed}.")])


def _table(row: Row) -> int:
    """Return the index of the table that shows a row."""
    return [*TABLES[:-1], row["library"]].index(row["library"])


def _cells(row: Row) -> list[str]:
    library = "" if row["library"] in TABLES else f"{row['library']} "
    powers = row["powers_of_two"]
    numbers = [row["errors"][kind] for kind in KINDS]
    numbers += row["moved"], row["growth"]
    return [
        f"{library}`{row['optimizer']}`",
        *(f"{x:.2f}" if x >= 0.01 else f"{x:.1e}" for x in numbers),
        verdict(row["errors"]),
        "" if powers is None else "no" if powers else "yes",
    ]
