r"""Rule out groups by one gradient, where many parameters are to be tried.

Euler's identity over each group makes the sum of its terms
\(w\,\partial f/\partial w\) vanish, and so the sum over all groups. One
gradient has these sums for all parameters. To rescale each by itself takes as
many evaluations as there are parameters.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from psi_optax.invariance.probe.costs import is_gradient_cheaper
from psi_optax.invariance.probe.evaluation import UnmeasurableError
from psi_optax.invariance.probe.probe import Probe

# Sums up to this, relative to their terms, may be zero up to an epsilon: the
# rescaling decides.
CANDIDATE = 1e-3


class Sums(NamedTuple):
    """Sums of the terms of one parameter.

    Attributes:
        total: the sum.
        size: the sum of their absolute values.
        count: their number.
    """

    total: float
    size: float
    count: int


class Screen:
    """The groups that one gradient does not rule out.

    A search accepts sums over groups of at most c = `CANDIDATE` times the size
    of a group, and t = `Points.tolerance` times that of the largest group. Over
    n groups of total size S these add up to (c + t n) S at most. A parameter
    has at most one group for each term. The bound here has twice the c: the
    other half is for the rounding of sums.

    Args:
        sums: by path; parameters without any are not ruled out.
        silent: the paths of parameters whose gradient may be zero.
        tolerance: see `Points`.
    """

    def __init__(
        self,
        sums: Mapping[str, Sums],
        silent: Iterable[str] = (),
        tolerance: float = 0.0,
    ) -> None:
        self._sums = sums
        self._silent = frozenset(silent)
        self._tolerance = tolerance

    def passes(self, path: str) -> bool:
        """Check that a parameter may have groups alone, or no effect."""
        return path in self._silent or self.may_vanish(path)

    def may_vanish(self, *paths: str) -> bool:
        """Check that the sums over groups may vanish, tied if of several."""
        if not self._sums.keys() >= set(paths):
            return True
        some = [self._sums[path] for path in paths]
        size = sum(x.size for x in some)
        count = max(x.count for x in some)
        bound = (2 * CANDIDATE + self._tolerance * count) * size
        return abs(sum(x.total for x in some)) <= bound


def make_screen(
    probe: Probe, paths: Iterable[str], others: Iterable[str] = ()
) -> Screen:
    """Return a screen of some parameters, if it takes less time than it saves.

    Args:
        probe: the measurements. Its gradients are compiled for all paths.
        paths: the parameters to try.
        others: parameters whose gradient is needed as well.
    """
    paths = list(paths)
    if not is_gradient_cheaper(probe.points.evaluate.program, len(paths)):
        return Screen({})
    gradients, tolerance = probe.gradients, probe.points.tolerance
    compiled = frozenset({*paths, *others})
    try:
        euler = gradients.prepare(compiled)
    except UnmeasurableError:
        return Screen({})  # A gradient may not be needed.
    sums = {
        path: Sums(float(x.sum()), float(np.abs(x).sum()), x.size)
        for path, x in euler.items()
    }
    return Screen(sums, gradients.zeros(compiled), tolerance)
