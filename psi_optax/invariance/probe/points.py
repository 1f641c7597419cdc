"""A loss at several points: given, moved, and rescaled weights and data."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.probe.data import StateData, Trial, kind_of
from psi_optax.invariance.probe.evaluation import Evaluator, Weights
from psi_optax.invariance.probe.perturbation import (
    move,
    multiply,
    rescale,
)
from psi_optax.invariance.tracing import TracedLoss

Groups = Mapping[str, ScaleGroup]
# Draws exponents of a shape.
Draw = Callable[[tuple[int, ...]], np.ndarray]

# The relative change of a loss, or the share of a gradient, that is tolerated
# from an epsilon at the given weights.
NOTICEABLE = 1e-2
# The sizes of large weights, and the largest factors that these are multiplied
# by, as powers of two. At the first size, an epsilon of 1e-3 is less than
# rounding even after multiplication by the smallest factor. Smaller sizes are
# tried where the loss is non-finite, or where a layer without a signal makes
# rounding as large as its epsilon. A scale shows at all sizes.
SIZES = ((25, 10), (14, 4), (10, 1))
COARSE_SIZES = ((14, 8), (12, 4), (10, 2))


class Point(NamedTuple):
    """Weights and data, and the loss there.

    Attributes:
        weights: the weights, by path.
        data: see `Evaluator`.
        value: all arrays that the loss returns, as one vector.
    """

    weights: Weights
    data: Any
    value: np.ndarray


class Points:
    """A loss at several points.

    Attributes:
        random: the generator of all random numbers.
        evaluate: the loss.
        precision: the rounding of the coarsest dtype that it computes in.
        coarse: whether the loss computes in low precision.
        tolerance: the relative change of the loss that rounding explains.
        moved: weights in general position near the given ones.
        size: the size of the loss.

    Raises:
        ValueError: the loss is non-finite, or differs between two calls.
    """

    def __init__(self, loss: TracedLoss, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.evaluate = Evaluator(loss, self.random)
        self.precision = self.evaluate.precision
        self.coarse = self.precision > 1e-6
        self.tolerance = 1e-4 if self.coarse else max(1e-9, 30 * self.precision)
        self._devices_differ = loss.devices_differ
        self._state_data = StateData(self.data, self.random)
        self.moved = self.at(self.elsewhere())
        self._check()
        # A loss that is nothing but rounding has no size of its own.
        self.size = max(largest(self.moved.value), 1e-3)

    def _check(self) -> None:
        value = self.moved.value
        if not np.all(np.isfinite(value)):
            raise ValueError(
                "the loss is not finite at the given weights, or near them:"
                ' check the arguments, or pass method="analysis".'
            )
        if not np.array_equal(value, self.at(self.moved.weights).value):
            raise ValueError(
                "the loss differs between two calls: pass random keys as"
                " arguments, or fix them inside of the loss."
            )

    # -- points -----------------------------------------------------------

    @property
    def data(self) -> Any:
        """The data as they are given."""
        return self.evaluate.data

    @property
    def paths(self) -> frozenset[str]:
        """The paths of all weights."""
        return frozenset(self.evaluate.given)

    def at(self, weights: Weights, data: Any = None) -> Point:
        """Evaluate the loss, on the given data by default."""
        data = self.data if data is None else data
        value, _ = self.evaluate(weights, data)
        return Point(weights, data, value)

    @functools.cached_property
    def given(self) -> Point:
        """The given weights."""
        return self.at(self.evaluate.given)

    def elsewhere(self) -> Weights:
        """Return other weights in general position near the given ones."""
        given = self.evaluate.given
        return {path: move(w, self.random) for path, w in given.items()}

    def all_data(self) -> Iterator[Any]:
        """Yield the data, and others if any of them may be a state."""
        yield self.data
        if self._state_data.moved is not None:
            yield self._state_data.moved

    # -- states -----------------------------------------------------------

    @property
    def states(self) -> list[Point]:
        """The moved weights with the given data, and with other states.

        The loss is finite in each. Where states differ in the size of counters
        alone, they are kept if the loss differs.
        """
        return self._states[0]

    @property
    def untried(self) -> str:
        """Why no measurement can be trusted without a proof; "" if it can."""
        if not self._devices_differ:
            return "all devices have the same data"
        if any(map(kind_of, self.evaluate.fixed)):
            return "a function that is jitted in a loop closes over a constant"
        if self._states[1]:
            return (
                "the loss is not finite with other flags, counters or constant"
                " data"
            )
        return ""

    @functools.cached_property
    def _states(self) -> tuple[list[Point], frozenset[int]]:
        """The states, and the leaves that no finite one has moved."""
        points, untried = [self.moved], self._state_data.indices
        for trial in self._state_data.trials:
            point, tried = self._finite_state(trial)
            untried -= tried
            is_first = trial == self._state_data.trials[0]
            if point and (is_first or _is_new(point, points)):
                points.append(point)
        return points, untried

    def _finite_state(
        self, trial: Trial
    ) -> tuple[Point | None, frozenset[int]]:
        """Return a point in another state, and the leaves that are moved."""
        for data, moved in self._state_data.attempts(trial):
            point = self.at(self.moved.weights, data)
            if np.all(np.isfinite(point.value)):
                return point, moved
        return None, frozenset()

    @functools.cached_property
    def given_states(self) -> list[Point]:
        """The given weights in all states in which the loss is finite."""
        weights = self.given.weights
        others = [self.at(weights, point.data) for point in self.states[1:]]
        finite = [p for p in others if np.all(np.isfinite(p.value))]
        return [self.given, *finite]

    # -- rescaled weights -------------------------------------------------

    @property
    def step(self) -> int:
        """The smallest exponent of two whose power multiplies exactly.

        Powers of four are exact in any precision, roots included.
        """
        return 2 if self.coarse else 1

    def rescaled(self, point: Point, groups: Groups, draw: Draw) -> Weights:
        """Multiply groups by powers of two with drawn exponents."""

        def factors(shape: tuple[int, ...]) -> np.ndarray:
            exponents = np.asarray(draw(shape), np.float64)
            if self.coarse:
                exponents = 2 * np.round(exponents / 2)
            return np.exp2(exponents)

        return rescale(point.weights, groups, factors)

    def times(self, paths: Iterable[str], factor: float) -> Weights:
        """Return the moved weights, some of them multiplied by a factor."""
        weights = self.moved.weights
        some = {path: weights[path] for path in paths}
        return weights | multiply(some, factor)

    def large(
        self, paths: Iterable[str], data: Any = None
    ) -> Iterator[tuple[Point, int]]:
        """Yield points with large weights and a finite loss.

        Args:
            paths: the parameters that are large.
            data: other data.

        Yields:
            A point, and the exponent of the largest factor to multiply by.
        """
        paths = list(paths)
        for exponent, end in self.sizes:
            point = self.at(self.times(paths, 2.0**exponent), data)
            if np.all(np.isfinite(point.value)):
                yield point, end

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The exponents of large weights, and of factors on them."""
        return COARSE_SIZES if self.coarse else SIZES

    def draws(self, end: float) -> Iterator[Draw]:
        """Yield ways to draw exponents: both ends, jointly, and at random."""
        yield all_by(-end)
        yield all_by(end)
        yield lambda shape: self.random.choice([-end, 0.0, end], size=shape)
        yield self.uniform(self.step)

    def uniform(self, end: float) -> Draw:
        """Return a way to draw uniform exponents."""
        return lambda shape: self.random.uniform(-end, end, size=shape)

    # -- changes of the loss ----------------------------------------------

    def change(self, point: Point, weights: Weights) -> float:
        """Return the relative change of the loss with other weights."""
        other, _ = self.evaluate(weights, point.data)
        change = largest(other - point.value)
        if not math.isfinite(change):
            return math.inf
        return change / max(self.size, largest(point.value))

    def changes(
        self, point: Point, groups: Groups, draws: Iterable[Draw]
    ) -> Iterator[float]:
        """Yield the relative change of the loss by each rescaling."""
        for draw in draws:
            yield self.change(point, self.rescaled(point, groups, draw))

    def largest_change(self, point: Point, groups: Groups, end: float) -> float:
        """Return the largest change by factors between 2^-end and 2^end."""
        return max(self.changes(point, groups, self.draws(end)))

    def noise(self, point: Point) -> float:
        """Return the relative change of the loss when weights are rounded."""

        def rounded(w: np.ndarray) -> np.ndarray:
            signs = self.random.choice([-1.0, 1.0], w.shape)
            return (w * (1 + self.precision * signs)).astype(w.dtype)

        weights = point.weights
        return max(
            self.change(point, {p: rounded(w) for p, w in weights.items()})
            for _ in range(4)
        )


def all_by(exponent: float) -> Draw:
    """Return a way to draw one exponent."""
    return lambda shape: np.full(shape, exponent)


def _is_new(point: Point, points: Iterable[Point]) -> bool:
    return not any(np.array_equal(point.value, p.value) for p in points)


def largest(x: np.ndarray) -> float:
    """Return the largest absolute value; 0 of an empty array."""
    return float(np.max(np.abs(x), initial=0))
