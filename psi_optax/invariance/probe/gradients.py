r"""Euler's terms \(w\,\partial f/\partial w\) of the parameters of a loss."""

import functools

from psi_optax.invariance.probe.evaluation import Weights
from psi_optax.invariance.probe.points import (
    NOTICEABLE,
    Groups,
    Points,
    largest,
)


class Gradients:
    """Gradients of a loss, each times its weights.

    Attributes:
        compiled: the parameters whose gradient is compiled where that of any of
            them is needed; all by default.
    """

    def __init__(self, points: Points) -> None:
        self.compiled = points.paths
        self._points = points
        self._prepared: frozenset[str] = frozenset()
        self._cached = functools.cache(self._at_place)
        self._shares_among = functools.cache(
            lambda paths: self._shares(self._cached(paths, 0))
        )

    def prepare(self, paths: frozenset[str]) -> Weights:
        """Compile one gradient; those of fewer parameters are parts of it.

        Returns:
            As `euler`, of all these parameters.

        Raises:
            UnmeasurableError: the loss has no derivative.
        """
        euler = self._cached(paths, 0)
        self._prepared = paths
        return euler

    def euler(self, path: str, place: int = 0) -> Weights:
        r"""Return \(w\,\partial f/\partial w\) of a parameter and others.

        Args:
            path: the parameter.
            place: 0 for `Points.moved`, 1 for other weights in general
                position.
        """
        return self._cached(self._compiled_with(path), place)

    def _compiled_with(self, path: str) -> frozenset[str]:
        """Return the parameters that a gradient is compiled for, with one."""
        return self.compiled if path in self.compiled else self._points.paths

    def _at_place(self, paths: frozenset[str], place: int = 0) -> Weights:
        points = self._points
        if place == 0 and paths < self._prepared:
            euler = self._cached(self._prepared, 0)
            return {path: euler[path] for path in paths}
        weights = points.elsewhere() if place else points.moved.weights
        return self._at(weights, paths)

    def _at(self, weights: Weights, paths: frozenset[str]) -> Weights:
        compiled = self._prepared if paths <= self._prepared else paths
        data = self._points.data
        _, gradient = self._points.evaluate(weights, data, compiled)
        return {path: weights[path] * gradient[path] for path in paths}

    def is_zero(self, path: str) -> bool:
        """Check that a parameter has no gradient beyond rounding."""
        share = self._shares_among(self._compiled_with(path))[path]
        return share <= self._points.tolerance

    def is_nonzero(self, path: str, groups: Groups) -> bool:
        """Check that neither rounding nor an epsilon explains a gradient.

        The part of an epsilon is small, and falls as the parameter grows with
        the groups.
        """
        if self.is_zero(path):
            return False
        # The rounding may be that of other parameters' gradients.
        points = self._points
        share = self._shares_among(points.paths)[path]
        if share <= points.tolerance:
            return False
        if share > NOTICEABLE:
            return True
        return all(
            self._shares(self._at(point.weights, points.paths))[path]
            > points.tolerance
            for point, _ in points.large({path, *groups})
        )

    def zeros(self, paths: frozenset[str]) -> frozenset[str]:
        """Return those of some parameters whose gradient is rounding.

        Beside fewer of the others, fewer of them are.
        """
        shares, tolerance = self._shares_among(paths), self._points.tolerance
        return frozenset(p for p, share in shares.items() if share <= tolerance)

    def _shares(self, euler: Weights) -> dict[str, float]:
        """Return the size of the terms of each parameter, relative to all."""
        sizes = {p: largest(x) for p, x in euler.items()}
        size = max(self._points.size, *sizes.values())
        return {path: own / size for path, own in sizes.items()}
