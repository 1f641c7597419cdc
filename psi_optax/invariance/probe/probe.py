r"""Measure how a loss changes when its weights are rescaled.

In double precision, at weights that are moved away from zeros and symmetries. A
loss that does not change with the scale of a group must not do so at any of
several scales. Where only an epsilon makes it change, the change falls with the
square of the weights.
"""

import math
from typing import Any

import numpy as np

from psi_optax.invariance.probe.evaluation import Weights
from psi_optax.invariance.probe.gradients import Gradients
from psi_optax.invariance.probe.perturbation import multiply
from psi_optax.invariance.probe.points import (
    NOTICEABLE,
    Groups,
    Point,
    Points,
    all_by,
    largest,
)
from psi_optax.invariance.tracing import TracedLoss

# The exponent of the largest factor that given weights are multiplied by.
_END = 10
# A halving of the weights multiplies the effect of an epsilon by four, except
# where it passes through zero. The effect of a threshold begins at nothing: it
# grows by more than this.
_SUDDEN_GROWTH = 100
# The relative change of a loss by rounding up to which other changes show.
_INFORMATIVE = 1e-6
# Relative changes of a loss up to this are proportional to their cause.
_FIRST_ORDER = 1e-4


class Probe:
    """Measurements of a loss.

    Attributes:
        points: the loss at given, moved and rescaled weights.
        gradients: its gradients.
    """

    def __init__(self, loss: TracedLoss, seed: int) -> None:
        self.points = Points(loss, seed)
        self.gradients = Gradients(self.points)

    @property
    def tolerance(self) -> float:
        """The relative change of the loss that rounding explains."""
        return self.points.tolerance

    # -- groups of large weights ------------------------------------------

    def holds(self, groups: Groups) -> bool:
        """Check that groups are invariant, up to the epsilon of norms."""
        return self.deviation_if_large(groups) <= self.tolerance

    def deviation_if_large(self, groups: Groups) -> float:
        """Return the relative change of the loss by rescaling large weights.

        Epsilons have no effect on weights of this size. The factors lie between
        2^-10 and 2^10. Data that may be a state take other values as well. Of
        several sizes, the least change counts.
        """
        all_data = self.points.all_data()
        return max(self._deviation_if_large(groups, data) for data in all_data)

    def holds_in_all_states(self, groups: Groups) -> bool:
        """Check that groups are invariant without a proof."""
        return self.deviation_in_all_states(groups) <= self.tolerance

    def deviation_in_all_states(self, groups: Groups) -> float:
        """Return what `deviation_if_large` does, for groups without a proof.

        In states of counters of several sizes. A loss that is finite with large
        weights in none of the sizes changes.
        """
        otherwise = 0.0 if self.points.coarse else math.inf
        return max(
            self._deviation_if_large(groups, point.data, otherwise)
            for point in self.points.states
        )

    def _deviation_if_large(
        self, groups: Groups, data: Any, if_not_finite: float = 0.0
    ) -> float:
        points, found = self.points, []
        # Where rounding decides the loss at all sizes, nothing is known.
        unknown = if_not_finite
        for point, end in points.large(groups, data):
            unknown = 0.0
            change = points.largest_change(point, groups, end)
            if change <= self.tolerance:
                return change
            noise = points.noise(point)
            if noise <= _INFORMATIVE:
                found.append(0.0 if change <= 30 * noise else change)
        return min(found, default=unknown)

    def may_hold(self, groups: Groups, bound: float) -> bool:
        """Return False where one factor, common to groups, rules them out.

        The groups are doubled; and they are reduced from a medium size, as a
        larger one hides more.
        """
        points = self.points
        double = [all_by(points.step)]
        if max(points.changes(points.moved, groups, double)) > bound:
            return False
        exponent, end = points.sizes[1]
        point = points.at(points.times(groups, 2.0**exponent))
        if not np.all(np.isfinite(point.value)):
            return True
        change = max(points.changes(point, groups, [all_by(-end)]))
        return change <= max(_INFORMATIVE, self.tolerance)

    # -- groups of given weights ------------------------------------------

    def deviation(self, groups: Groups) -> float:
        """Return the relative change of the loss by rescaling given weights.

        By factors between 1/2 and 2 (1/4 and 4 in low precision), jointly and
        independently.
        """
        points = self.points
        return points.largest_change(points.given, groups, points.step)

    def deviations(self, groups: Groups) -> list[float]:
        """Return the `deviation` in each state, the given one first."""
        points = self.points
        return [
            points.largest_change(point, groups, points.step)
            for point in points.given_states
        ]

    def is_near_invariant(self, groups: Groups, bound: float) -> bool:
        """Check that factors between 1/2 and 2 change the loss by less.

        In all states: a scale that large weights hide, such as that in front of
        a bounded activation, shows here.
        """
        points = self.points
        draws = [points.uniform(1)] * 4
        return all(
            change <= bound
            for point in points.states
            for change in points.changes(point, groups, draws)
        )

    def holds_within_bound(self, groups: Groups) -> bool:
        """Check that groups are invariant where a bound does not act.

        From the given weights on, up to an epsilon. The effect of an epsilon
        falls with the square of the weights, and that of a bound grows. Where a
        bound acts on all clipped values, the loss is constant, and there is no
        gradient.
        """
        points, euler = self.points, self.gradients.euler
        return all(np.any(euler(path)[path]) for path in groups) and all(
            self._falls(weights, groups, data)
            for weights in (points.given.weights, points.moved.weights)
            for data in points.all_data()
        )

    def _falls(self, weights: Weights, groups: Groups, data: Any) -> bool:
        """Check that the change of the loss falls as weights grow."""
        points = self.points
        some = {path: weights[path] for path in groups}
        allowed, enough = NOTICEABLE, self.tolerance
        for exponent in range(0, _END + 1, 2):
            grown = points.at(weights | multiply(some, 2.0**exponent), data)
            change = points.largest_change(grown, groups, points.step)
            if change <= enough:
                return True
            if change > allowed:
                return False
            enough = max(self.tolerance, _INFORMATIVE)
            allowed = change / 4
        return False

    def is_smooth(self, groups: Groups) -> bool:
        """Check that no threshold is passed as groups are rescaled jointly.

        From 2^-10 to 2^10 times the given weights and those near them. The
        effect of an epsilon grows fourfold with each halving. That of a bound
        on norms, or of a clamp, begins suddenly.
        """
        points = self.points
        return all(
            self._is_smooth_from(point, groups)
            for point in (points.given, points.moved)
        )

    def _is_smooth_from(self, point: Point, groups: Groups) -> bool:
        points = self.points
        step = points.step
        rungs = [
            points.at(points.rescaled(point, groups, all_by(k)))
            for k in range(_END, -_END - 1, -step)
        ]
        top = rungs[0].value
        size = max(points.size, largest(top))
        changes = np.array([largest(r.value - top) / size for r in rungs])
        # At half of the weights and above, no change is noticeable.
        if not np.all(changes[: (_END + 1) // step + 1] <= NOTICEABLE):
            return False
        growth = _SUDDEN_GROWTH * 4 ** (step - 1)
        sudden = _sudden_changes(changes, growth, self.tolerance)
        return all(changes[i] <= 30 * points.noise(rungs[i]) for i in sudden)

    # -- single parameters ------------------------------------------------

    def slope(self, path: str) -> np.ndarray:
        """Return the derivative of the loss in the logarithm of a scale.

        By a difference, relative to the size of the loss. It is the sum in
        Euler's identity over a whole parameter.
        """
        points = self.points
        step = points.precision**0.5
        other = points.at(points.times([path], 1 + step)).value
        return (other - points.moved.value) / (step * points.size)

    @property
    def slope_noise(self) -> float:
        """The part of a slope that is rounding, or the size of its step."""
        return 10 * self.points.precision**0.5

    def seems_inert(self, path: str) -> bool:
        """Check that a parameter has neither a gradient nor an effect.

        With the given data; `has_effect` tries other states.
        """
        return self.gradients.is_zero(path) and not self._has_effect_at(
            self.points.moved, path
        )

    def has_effect(self, path: str) -> bool:
        """Check that other weights of a parameter change the loss.

        In any of the states.
        """
        states = self.points.states
        return any(self._has_effect_at(point, path) for point in states)

    def _has_effect_at(self, point: Point, path: str) -> bool:
        points = self.points
        w = point.weights[path]
        other = w + points.random.normal(size=w.shape)
        weights = point.weights | {path: other.astype(w.dtype)}
        return points.change(point, weights) > self.tolerance


def _sudden_changes(
    changes: np.ndarray, growth: float, tolerance: float
) -> np.ndarray:
    """Return the indices of changes that are much larger than those before.

    From the first on, up to where changes are not small.
    """
    beyond = np.flatnonzero(~(changes <= _FIRST_ORDER))
    last = beyond[0] if beyond.size else len(changes) - 1
    before = np.maximum.accumulate(changes)[:last]
    after = changes[1 : last + 1]
    return 1 + np.flatnonzero(after > (before + tolerance) * growth)
