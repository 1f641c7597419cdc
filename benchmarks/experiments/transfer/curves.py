"""Losses over learning rates: the best rate, its interval, a loss between."""

import itertools
from typing import Any, NamedTuple

import numpy as np

NEIGHBORS = 2
"""Points on either side of the lowest one that a parabola is fitted to."""

RESAMPLES = 200
"""Largest number of resamples of a bootstrap."""

COVERAGE = 0.95
"""Coverage of its interval."""


class Curve(NamedTuple):
    """Losses at learning rates.

    Attributes:
        x: log2 of the learning rates, ascending, of shape `(n,)`.
        losses: of shape `(n, seeds)`; NaN where a run failed.
    """

    x: np.ndarray
    losses: np.ndarray

    def seeds(self, which: Any) -> "Curve":
        """Return the curve of some seeds, which may be repeated."""
        return self._replace(losses=self.losses[:, list(which)])

    @property
    def means(self) -> np.ndarray:
        """Means over seeds; infinite where one failed."""
        means = self.losses.mean(1)
        return np.where(np.isfinite(means), means, np.inf)

    @property
    def failures(self) -> int:
        """Number of runs that failed."""
        return int((~np.isfinite(self.losses)).sum())

    @property
    def lowest(self) -> int:
        """Index of the lowest mean loss."""
        return int(np.argmin(self.means))

    @property
    def edge(self) -> int:
        """-1 or 1 if the lowest mean loss is at that edge, else 0.

        If all rates fail, lower ones may not.
        """
        if not np.isfinite(self.means).any() or self.lowest == 0:
            return -1
        return int(self.lowest == len(self.x) - 1)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds at the lowest mean loss."""
        row = self.losses[self.lowest]
        return float(row.std(ddof=1)) if len(row) > 1 else float("nan")


def curve(parts: list[dict[str, Any]], kind: str) -> Curve:
    """Return the curve of parts with `rates` and losses of this kind.

    Examples:
        >>> parts = [{"rates": [2.0, 1.0], "test": [[0.1], [None]]}]
        >>> curve(parts, "test").x.tolist()
        [0.0, 1.0]
    """
    x = np.log2(np.concatenate([part["rates"] for part in parts]))
    losses = np.concatenate([np.array(part[kind], float) for part in parts])
    order = np.argsort(x)
    return Curve(x[order], losses[order])


def best_rate(of: Curve) -> float:
    """Return log2 of the best learning rate; NaN if all fail.

    It is the minimum of a parabola through the 3 to 5 finite points around the
    lowest one. Where one side of it has none, it is the lowest point.

    Examples:
        >>> x = np.arange(6.0)
        >>> round(best_rate(Curve(x, (x[:, None] - 2.3) ** 2)), 6)
        2.3
    """
    means, at = of.means, of.lowest
    if not np.isfinite(means[at]):
        return float("nan")
    left, right = _finite(means[:at][::-1]), _finite(means[at + 1 :])
    if not left or not right:
        return float(of.x[at])
    for reach in range(NEIGHBORS, 0, -1):
        low, high = at - min(left, reach), at + min(right, reach)
        a, b, _ = np.polyfit(of.x[low : high + 1], means[low : high + 1], 2)
        # Of three points it is convex with its minimum near the middle one.
        if a > 0 and of.x[at - 1] <= (found := -b / (2 * a)) <= of.x[at + 1]:
            return float(found)
    return float(of.x[at])


def _finite(means: np.ndarray) -> int:
    """Return the number of finite means before the first other one."""
    return len(list(itertools.takewhile(np.isfinite, means)))


def loss_at(of: Curve, x: float) -> float:
    """Return the mean loss at log2 of a rate, between the points.

    It is that of a parabola through the three nearest points, or of a line
    through two if the third failed. It is infinite where one of the two
    adjacent points failed, and NaN outside of the grid.

    Examples:
        >>> x = np.arange(6.0)
        >>> round(loss_at(Curve(x, (x[:, None] - 2.3) ** 2), 3.8), 6)
        2.25
    """
    if not of.x[0] <= x <= of.x[-1]:
        return float("nan")
    order = np.argsort(np.abs(of.x - x), kind="stable")
    if of.x[order[0]] == x:
        return float(of.means[order[0]])
    high = int(np.searchsorted(of.x, x))
    adjacent = [high - 1, high]
    third = next((i for i in order if i not in adjacent), adjacent[0])
    near = [*adjacent, third] if np.isfinite(of.means[third]) else adjacent
    known = of.means[near]
    if not np.isfinite(known).all():
        return float("inf")
    points = of.x[near]
    return float(np.polyval(np.polyfit(points, known, len(set(near)) - 1), x))


def resamples(seeds: int) -> list[tuple[int, ...]]:
    """Return draws of seeds with replacement: all, or some at random.

    Examples:
        >>> len(resamples(3)), len(resamples(10))
        (27, 200)
    """
    if seeds**seeds <= RESAMPLES:
        return list(itertools.product(range(seeds), repeat=seeds))
    random = np.random.RandomState(0)
    drawn = random.randint(seeds, size=(RESAMPLES, seeds)).tolist()
    return [tuple(row) for row in drawn]


def interval(values: list[float]) -> tuple[float, float] | None:
    """Return the interval of a bootstrap; None if it has one value alone."""
    finite = [x for x in values if np.isfinite(x)]
    if len(finite) < max(len(values), 2):
        return None
    tail = 50 * (1 - COVERAGE)
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)
