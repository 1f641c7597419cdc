"""The tuned values, and the curves of rows, from the content of results."""

from collections.abc import Iterator

import numpy as np

from benchmarks.experiments.transfer.analysis import Move, move
from benchmarks.experiments.transfer.curves import Curve, curve
from benchmarks.experiments.transfer.grids import CHOICE
from benchmarks.experiments.transfer.methods import METHODS, MUP, PLAIN
from benchmarks.experiments.transfer.points import BASE, Point
from benchmarks.experiments.transfer.problems import PROBLEMS
from benchmarks.harness.results import Content


def problems(content: Content) -> list[str]:
    """Return the problems that have parts, in their order."""
    found = {part.partition("/")[0] for part in content["parts"]}
    return [name for name in PROBLEMS if name in found]


def chosen(content: Content, problem: str, name: str) -> float:
    """Return the tuned value of a method: a decay or an ordinary rate.

    The decay has the lowest validation loss at any rate. Methods on spheres
    share an ordinary rate: the one whose lowest validation losses at any rate
    have the lowest mean over them.
    """
    method = METHODS[PLAIN if name == MUP else name]
    if not method.is_on_spheres:
        names = [PLAIN if name == MUP else name]
    else:
        names = [
            x
            for x in content["settings"]["methods"]
            if METHODS[x].is_on_spheres
        ]
    losses = [_by_value(content, problem, x) for x in names]
    means = {k: np.mean([row[k] for row in losses]) for k in losses[0]}
    return min(means, key=lambda k: means[k])


def _by_value(content: Content, problem: str, name: str) -> dict[float, float]:
    """Return the lowest validation loss by tuned value."""
    part = content["parts"][f"{problem}/{name}/tuning"]
    found: dict[float, float] = {}
    for value, [loss] in zip(part["tuned"], part[CHOICE], strict=True):
        known = np.inf if loss is None else loss
        found[value] = min(found.get(value, np.inf), known)
    return found


def row(
    content: Content,
    problem: str,
    name: str,
    point: Point,
    kind: str = CHOICE,
) -> Curve:
    """Return the curve of a method at a point; at the base muP is AdamW."""
    name = PLAIN if name == MUP and point == BASE else name
    start, parts = f"{problem}/{name}/{point}/", content["parts"]
    return curve([x for k, x in parts.items() if k.startswith(start)], kind)


def moves(
    content: Content, problem: str, name: str, factor: str, values: list[float]
) -> list[Move]:
    """Return the moves of a method over the values of a factor."""
    base = row(content, problem, name, BASE)
    return [
        move(base, row(content, problem, name, Point(factor, x)), x)
        for x in values
    ]


def spread(
    content: Content, problem: str, factor: str, values: list[float]
) -> float:
    """Return the median spread of seeds at the best rates of a factor.

    It is that of the methods with several seeds. A factor with one seed, and
    methods with one, get that of the base.
    """
    points = [*(Point(factor, x) for x in values), BASE]
    for group in (points[:-1], points[-1:]):
        found = list(_spreads(content, problem, group))
        if found:
            return float(np.median(found))
    return float("nan")


def _spreads(
    content: Content, problem: str, points: list[Point]
) -> Iterator[float]:
    for name in content["settings"]["methods"]:
        for point in points:
            key = f"{problem}/{name}/{point}/0"
            if key in content["parts"]:
                value = row(content, problem, name, point).spread
                if np.isfinite(value):
                    yield value
