r"""The measurement: what a loss does when its weights are rescaled.

In double precision, at weights that are moved away from zeros and symmetries.
A loss that does not change with the scale of a group must not do so at any of
several scales, and where nothing but an epsilon makes it change, that falls
with the square of the weights.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from psi_optax.groups.paths import Tree
from psi_optax.invariance.probe.evaluation import Evaluator, Leaves
from psi_optax.invariance.probe.perturbation import (
    Groups,
    move,
    move_number,
    multiply,
    rescale,
)

# The change of a loss, relative to it, that is tolerated from an epsilon at the
# weights that are given.
NOTICEABLE = 1e-2
# The largest factors that weights are multiplied by, as powers of two.
_END = 10
# How much larger weights are made, and by which largest factors they are then
# multiplied, as powers of two. First, so that an epsilon of 1e-3 is less than
# rounding after a multiplication by the smallest factor. Less, where the loss
# is not finite, or where a layer without a signal makes rounding as large as
# its epsilon: what has a scale shows in all of these.
_GROWN = ((25, 10), (14, 4), (10, 1))
# The same in low precision.
_GROWN_COARSE = ((14, 8), (12, 4), (10, 2))
# With each halving of the weights an epsilon's effect grows fourfold, except
# where it happens to pass through zero. That of a threshold begins at nothing.
_RISE = 100
# The change of a loss by rounding, relative to it, beside which others show.
_INFORMATIVE = 1e-6
# Changes of a loss, relative to it, that are proportional to their cause.
_FIRST_ORDER = 1e-4


class Point(NamedTuple):
    """Weights and data, and the loss there.

    Attributes:
        leaves: the weights, by path.
        data: see `Evaluator`.
        value: all that the loss returns, as one vector.
    """

    leaves: Leaves
    data: Any
    value: np.ndarray


class Probe:
    """Measurements of a loss.

    Attributes:
        paths: the parameters whose gradient is compiled where that of any of
            them is needed; all by default.
        moved: weights in general position near the given ones.
        tolerance: the relative change of the loss that rounding explains.
        coarse: whether the loss computes in low precision.
    """

    def __init__(
        self,
        loss: Callable,
        params: Tree,
        args: tuple,
        seed: int,
    ):
        self.random = np.random.default_rng(seed)
        self._evaluate = Evaluator(loss, params, args, self.random)
        self.paths = self._all
        self._euler = functools.cache(self._form_euler)
        self._precision = self._evaluate.precision
        self.coarse = self._precision > 1e-6
        self.tolerance = (
            1e-4 if self.coarse else max(1e-9, 30 * self._precision)
        )
        self._moved_data = jax.tree.map(
            lambda x: move_number(x, self.random), self._data
        )
        self.moved = self._point(self._elsewhere())
        self._check()
        # A loss that is nothing but rounding has no size of its own.
        self.size = max(_largest(self.moved.value), 1e-3)

    @property
    def _data(self) -> Any:
        return self._evaluate.data

    @functools.cached_property
    def given(self) -> Point:
        """The weights that are given."""
        return self._point(self._evaluate.given)

    def value(self, leaves: Leaves, data: Any = None) -> np.ndarray:
        """Return all that the loss returns, as one vector."""
        data = self._data if data is None else data
        return self._evaluate(leaves, data)[0]

    def _point(self, leaves: Leaves, data: Any = None) -> Point:
        data = self._data if data is None else data
        return Point(leaves, data, self.value(leaves, data))

    def _check(self) -> None:
        value = self.moved.value
        if not np.all(np.isfinite(value)):
            raise ValueError(
                "the loss is not finite at the given weights, or near them:"
                ' check the arguments, or take method="analysis".'
            )
        again = self.value(self.moved.leaves)
        if not np.array_equal(value, again):
            raise ValueError(
                "the loss differs between two calls: pass random keys as"
                " arguments, or fix them inside of the loss."
            )

    # -- weights and data -------------------------------------------------

    def _elsewhere(self) -> Leaves:
        """Return weights in general position near the given ones."""
        given = self._evaluate.given
        return {path: move(w, self.random) for path, w in given.items()}

    def _all_data(self) -> Iterator[Any]:
        """Yield the data, and others if any of them are one number."""
        yield self._data
        pairs = zip(
            jax.tree.leaves(self._data),
            jax.tree.leaves(self._moved_data),
            strict=True,
        )
        if any(moved is not x for x, moved in pairs):
            yield self._moved_data

    def _rescaled(self, point: Point, groups: Groups, draw: Callable) -> Leaves:
        """Multiply groups by powers of two, whose exponents are drawn."""

        def factors(shape):
            exponents = np.asarray(draw(shape), np.float64)
            # Powers of four are exact in any precision, roots included.
            return np.exp2(
                2 * np.round(exponents / 2) if self.coarse else exponents
            )

        return rescale(point.leaves, groups, factors)

    def _draws(self, end: float) -> Iterator[Callable]:
        """Yield ways to draw exponents: the ends, jointly, and at random."""
        yield _all_by(-end)
        yield _all_by(end)
        yield lambda shape: self.random.choice([-end, 0.0, end], size=shape)
        near = 2 if self.coarse else 1
        yield lambda shape: self.random.uniform(-near, near, size=shape)

    # -- what is said of groups -------------------------------------------

    def deviation(self, groups: Groups) -> float:
        """Return by how much, relatively, rescaling changes the loss.

        At the given weights, by numbers between 1/2 and 2 (1/4 and 4 in low
        precision), jointly and group by group.
        """
        end = 2 if self.coarse else 1
        return max(self._changes(self.given, groups, self._draws(end)))

    def deviation_if_large(self, groups: Groups) -> float:
        """Return the same at weights so large that epsilons have no effect.

        By numbers between 2^-10 and 2^10, and at other values of data that are
        one number. Of several sizes the one with the least deviation counts.
        """
        return max(
            self._deviation_at_large(groups, data) for data in self._all_data()
        )

    def _deviation_at_large(self, groups: Groups, data: Any) -> float:
        found = []
        for grown, end in self._grown(groups, data):
            change = max(self._changes(grown, groups, self._draws(end)))
            if change <= self.tolerance:
                return change
            noise = self._noise(grown)
            if noise <= _INFORMATIVE:
                found.append(0.0 if change <= 30 * noise else change)
        # Where rounding decides the loss at all sizes, nothing is known.
        return min(found, default=0.0)

    def _noise(self, point: Point) -> float:
        """Return the relative change of the loss when weights are rounded."""

        def other(w):
            signs = self.random.choice([-1.0, 1.0], w.shape)
            return (w * (1 + self._precision * signs)).astype(w.dtype)

        return max(
            self._change(point, {p: other(w) for p, w in point.leaves.items()})
            for _ in range(4)
        )

    def _grown(
        self, groups: Iterable[str], data: Any
    ) -> Iterator[tuple[Point, float]]:
        """Yield large weights with a finite loss, and factors for each."""
        for exponent, end in self._sizes:
            point = self._point(self._times(groups, 2.0**exponent), data)
            if np.all(np.isfinite(point.value)):
                yield point, end

    def _times(self, paths: Iterable[str], factor: float) -> Leaves:
        """Return the moved weights, some of them multiplied by a factor."""
        leaves = self.moved.leaves
        return leaves | multiply({path: leaves[path] for path in paths}, factor)

    @property
    def _sizes(self) -> tuple[tuple[int, int], ...]:
        return _GROWN_COARSE if self.coarse else _GROWN

    def holds(self, groups: Groups) -> bool:
        """Return whether groups are invariant, up to the epsilon of norms."""
        return self.deviation_if_large(groups) <= self.tolerance

    def holds_within_bound(self, groups: Groups) -> bool:
        """Return whether groups are invariant where a bound does not act.

        From the given weights on, up to an epsilon, whose effect falls with the
        square of the weights: that of a bound grows. Where it acts on all that
        is clipped, nothing changes any more, and there is no gradient.
        """
        return all(np.any(self.euler(path)[path]) for path in groups) and all(
            self._falls(leaves, groups, data)
            for leaves in (self.given.leaves, self.moved.leaves)
            for data in self._all_data()
        )

    def _falls(self, leaves: Leaves, groups: Groups, data: Any) -> bool:
        end, allowed = (2 if self.coarse else 1), NOTICEABLE
        enough = self.tolerance
        for exponent in range(0, _END + 1, 2):
            some = {path: leaves[path] for path in groups}
            grown = self._point(leaves | multiply(some, 2.0**exponent), data)
            change = max(self._changes(grown, groups, self._draws(end)))
            if change <= enough:
                return True
            if change > allowed:
                return False
            enough = max(self.tolerance, _INFORMATIVE)
            allowed = change / 4
        return False

    def is_near_invariant(self, groups: Groups, bound: float) -> bool:
        """Return whether factors between 1/2 and 2 change the loss by less."""
        draws = [lambda shape: self.random.uniform(-1, 1, size=shape)] * 4
        changes = self._changes(self.moved, groups, draws)
        return all(change <= bound for change in changes)

    def may_hold(self, groups: Groups, bound: float) -> bool:
        """Return False where one factor, common to groups, tells otherwise.

        Where they are doubled, and where they are of a medium size, as larger
        ones hide more.
        """
        double = [_all_by(2 if self.coarse else 1)]
        if max(self._changes(self.moved, groups, double)) > bound:
            return False
        exponent, end = self._sizes[1]
        grown = self._point(self._times(groups, 2.0**exponent))
        if not np.all(np.isfinite(grown.value)):
            return True
        change = max(self._changes(grown, groups, [_all_by(-end)]))
        return change <= max(_INFORMATIVE, self.tolerance)

    def slope(self, path: str) -> np.ndarray:
        """Return the derivative of the loss in the logarithm of a scale.

        By a difference, relative to the size of the loss. It is the sum in
        Euler's identity over a whole parameter.
        """
        step = self._precision**0.5
        other = self.value(self._times([path], 1 + step))
        return (other - self.moved.value) / (step * self.size)

    @property
    def slope_noise(self) -> float:
        """The part of a slope that is rounding, or the size of its step."""
        return 10 * self._precision**0.5

    def is_smooth(self, groups: Groups) -> bool:
        """Return whether no threshold is passed as groups are rescaled.

        Jointly, from 2^-10 to 2^10 times the given weights and those near
        them. The effect of an epsilon grows fourfold with each halving. That of
        a bound on norms, or of a clamp, begins suddenly.
        """
        return all(
            self._fades_in(point, groups) for point in (self.given, self.moved)
        )

    def _fades_in(self, point: Point, groups: Groups) -> bool:
        step = 2 if self.coarse else 1
        rungs = [
            self._point(self._rescaled(point, groups, _all_by(k)))
            for k in range(_END, -_END - 1, -step)
        ]
        top = rungs[0].value
        size = max(self.size, _largest(top))
        changes = np.array([_largest(r.value - top) / size for r in rungs])
        # At half of the weights and from there up nothing is noticeable.
        if not np.all(changes[: (_END + 1) // step + 1] <= NOTICEABLE):
            return False
        # From the largest weights on, up to where a change is not small.
        beyond = np.flatnonzero(~(changes <= _FIRST_ORDER))
        last = beyond[0] if beyond.size else len(changes) - 1
        above = np.maximum.accumulate(changes)[:last]
        below = changes[1 : last + 1]
        rise = _RISE * 4 ** (step - 1)
        sudden = np.flatnonzero(below > (above + self.tolerance) * rise)
        return all(below[i] <= 30 * self._noise(rungs[i + 1]) for i in sudden)

    def _changes(
        self, point: Point, groups: Groups, draws: Iterable[Callable]
    ) -> Iterator[float]:
        """Yield the relative change of the loss by each rescaling."""
        for draw in draws:
            yield self._change(point, self._rescaled(point, groups, draw))

    def _change(self, point: Point, leaves: Leaves) -> float:
        change = _largest(self.value(leaves, point.data) - point.value)
        if not math.isfinite(change):
            return math.inf
        return change / max(self.size, _largest(point.value))

    # -- what is said of single parameters --------------------------------

    def is_inert(self, path: str) -> bool:
        """Return whether a parameter has no gradient, nor any effect."""
        if self._share(self.euler(path), path) > self.tolerance:
            return False
        return not self.has_effect(path)

    def has_effect(self, path: str) -> bool:
        """Return whether other weights in its place change the loss."""
        moved = self.moved.leaves
        other = moved[path] + self.random.normal(size=moved[path].shape)
        leaves = moved | {path: other.astype(moved[path].dtype)}
        return self._change(self.moved, leaves) > self.tolerance

    def has_gradient(self, path: str, groups: Groups) -> bool:
        """Return whether a parameter has a gradient that nothing explains.

        Rounding does, and the epsilon of a norm, whose part is small and falls
        as the parameter grows with the groups.
        """
        if self._share(self.euler(path), path) <= self.tolerance:
            return False
        # Rounding may be that of other parameters' gradients.
        size = self._share(self._euler(self._all), path)
        if size <= self.tolerance:
            return False
        if size > NOTICEABLE:
            return True
        large = self._grown({path, *groups}, self._data)
        return all(
            self._share(self._euler_at(grown.leaves, self._all), path)
            > self.tolerance
            for grown, _ in large
        )

    def _share(self, euler: Leaves, path: str) -> float:
        sizes = {p: _largest(x) for p, x in euler.items()}
        return sizes[path] / max(self.size, *sizes.values())

    def euler(self, path: str, place: int = 0) -> Leaves:
        r"""Return \(w\,\partial f/\partial w\) of a parameter and others.

        Args:
            path: the parameter.
            place: 0 for `moved`, 1 for other weights in general position.
        """
        return self._euler(
            self.paths if path in self.paths else self._all, place
        )

    def _form_euler(self, paths: frozenset[str], place: int = 0) -> Leaves:
        leaves = self._elsewhere() if place else self.moved.leaves
        return self._euler_at(leaves, paths)

    def _euler_at(self, leaves: Leaves, paths: frozenset[str]) -> Leaves:
        _, gradient = self._evaluate(leaves, self._data, paths)
        return {path: leaves[path] * gradient[path] for path in paths}

    @property
    def _all(self) -> frozenset[str]:
        return frozenset(self._evaluate.given)


def _all_by(exponent: float) -> Callable:
    return lambda shape: np.full(shape, exponent)


def _largest(x: np.ndarray) -> float:
    return float(np.max(np.abs(x), initial=0))
