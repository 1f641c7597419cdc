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
        self._cached = functools.cache(self._at_place)

    def euler(self, path: str, place: int = 0) -> Weights:
        r"""Return \(w\,\partial f/\partial w\) of a parameter and others.

        Args:
            path: the parameter.
            place: 0 for `Points.moved`, 1 for other weights in general
                position.
        """
        is_compiled = path in self.compiled
        paths = self.compiled if is_compiled else self._points.paths
        return self._cached(paths, place)

    def _at_place(self, paths: frozenset[str], place: int = 0) -> Weights:
        points = self._points
        weights = points.elsewhere() if place else points.moved.weights
        return self._at(weights, paths)

    def _at(self, weights: Weights, paths: frozenset[str]) -> Weights:
        _, gradient = self._points.evaluate(weights, self._points.data, paths)
        return {path: weights[path] * gradient[path] for path in paths}

    def is_zero(self, path: str) -> bool:
        """Check that a parameter has no gradient beyond rounding."""
        return self._share(self.euler(path), path) <= self._points.tolerance

    def is_nonzero(self, path: str, groups: Groups) -> bool:
        """Check that neither rounding nor an epsilon explains a gradient.

        The part of an epsilon is small, and falls as the parameter grows with
        the groups.
        """
        if self.is_zero(path):
            return False
        # The rounding may be that of other parameters' gradients.
        points = self._points
        share = self._share(self._cached(points.paths), path)
        if share <= points.tolerance:
            return False
        if share > NOTICEABLE:
            return True
        return all(
            self._share(self._at(point.weights, points.paths), path)
            > points.tolerance
            for point, _ in points.large({path, *groups})
        )

    def _share(self, euler: Weights, path: str) -> float:
        """Return the size of the terms of a parameter, relative to all."""
        sizes = {p: largest(x) for p, x in euler.items()}
        return sizes[path] / max(self._points.size, *sizes.values())
