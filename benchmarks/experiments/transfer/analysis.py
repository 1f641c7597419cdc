"""The move of the best rate, what keeping the rate costs, and rules."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.experiments.transfer.curves import (
    Curve,
    best_rate,
    interval,
    loss_at,
    resamples,
)

RULES = {
    "factor^-2": -2.0,
    "factor^-3/2": -1.5,
    "1 / factor": -1.0,
    "1 / √factor": -0.5,
    "constant": 0.0,
    "√factor": 0.5,
    "factor": 1.0,
    "factor²": 2.0,
}
"""The powers of a factor that a learning rate may be proportional to."""

HALF_OCTAVE = 0.5
"""Largest median error of a rule that holds, in octaves."""


class Move(NamedTuple):
    """The best rate at a point, beside that of the base.

    Attributes:
        factor: the value of the factor.
        octaves: log2 of the best rate over that of the base.
        interval: of a bootstrap over seeds; None of one seed.
        base: log2 of the best rate of the base, with the same seeds.
        edge: whether one of both is at the edge of its grid.
        kept: loss at the best rate of the base, less the lowest loss.
        curve: that of the point.
    """

    factor: float
    octaves: float
    interval: tuple[float, float] | None
    base: float
    edge: bool
    kept: float
    curve: Curve


def move(base: Curve, at: Curve, factor: float) -> Move:
    """Compare a point with the base, over the seeds that both have."""
    count = min(base.losses.shape[1], at.losses.shape[1])
    base, at = base.seeds(range(count)), at.seeds(range(count))
    first = best_rate(base)
    draws = [
        best_rate(at.seeds(x)) - best_rate(base.seeds(x))
        for x in (resamples(count) if count > 1 else [])
    ]
    return Move(
        factor,
        best_rate(at) - first,
        interval(draws),
        first,
        bool(base.edge or at.edge),
        excess(at, first),
        at,
    )


def excess(at: Curve, x: float) -> float:
    """Return the loss at log2 of a rate, less the lowest of the curve.

    The lowest is that at the best rate, if it is below those of the grid.
    """
    lowest = np.nanmin([at.means.min(), loss_at(at, best_rate(at))])
    return max(loss_at(at, x) - float(lowest), 0.0)


class Verdict(NamedTuple):
    """A rule, fitted on the first half of the points, on the other half.

    Attributes:
        rule: its name in `RULES`.
        error: median error of the predicted rates, in octaves.
        excess: largest loss at a predicted rate, less the lowest one there.
        spread: largest excess that is within the spread of the seeds.
        tested: number of points that it was tested on.
        holds: whether errors and excesses are small.
    """

    rule: str
    error: float
    excess: float
    spread: float
    tested: int
    holds: bool


def error_of(power: float, one: Move) -> float:
    """Return by how many octaves a power of the factor misses a move."""
    return abs(power * float(np.log2(one.factor)) - one.octaves)


def fit(moves: Sequence[Move]) -> str:
    """Return the rule with the lowest mean error; the nearest to constant.

    Examples:
        >>> moves = [Move(4, -0.9, None, 0, False, 0, None)]
        >>> fit(moves)
        '1 / √factor'
    """

    def merit(name: str) -> tuple[float, float]:
        errors = [error_of(RULES[name], x) for x in moves]
        return round(float(np.mean(errors)), 9), abs(RULES[name])

    return min(RULES, key=merit)


def halves(moves: Sequence[Move]) -> tuple[list[Move], list[Move]]:
    """Split moves by the distance of their factors from 1, the first larger.

    A rule is fitted near the base and tested beyond. Of factors at the same
    distance, such as 1/16 and 16, the smaller one is in the first half.
    """
    order = sorted(moves, key=lambda x: (abs(np.log2(x.factor)), x.factor))
    half = -(-len(order) // 2)
    return order[:half], order[half:]


def judge(
    rows: Sequence[Sequence[Move]], spreads: Sequence[float]
) -> Verdict | None:
    """Fit a rule on the first halves of rows, and test it on the others.

    Each row has the moves of one problem, and a spread of its seeds. None where
    a half is empty, or a best rate is unknown.
    """
    split = [halves(row) for row in rows]
    known = [x for row, _ in split for x in row]
    tested = [
        (x, spread)
        for (_, row), spread in zip(split, spreads, strict=True)
        for x in row
    ]
    octaves = [x.octaves for x in [*known, *(x for x, _ in tested)]]
    if not (known and tested and np.isfinite(octaves).all()):
        return None
    rule = fit(known)
    power = RULES[rule]
    error = float(np.median([error_of(power, x) for x, _ in tested]))
    found = [(excess(x.curve, _predict(power, x)), s) for x, s in tested]
    # NaN, of a prediction outside of the grid, is not within the spread.
    within = all(loss <= spread for loss, spread in found)
    worst = max(
        found, key=lambda pair: np.nan_to_num(pair[0] - pair[1], nan=np.inf)
    )
    holds = error <= HALF_OCTAVE and within
    return Verdict(rule, error, *worst, len(tested), holds)


def _predict(power: float, one: Move) -> float:
    """Return log2 of the rate that a power of the factor predicts."""
    return one.base + power * float(np.log2(one.factor))
