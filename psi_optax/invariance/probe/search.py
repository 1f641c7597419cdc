r"""Search, by numbers, for groups without a proof.

If the loss does not change when a group of weights w is multiplied by a > 0,
then by Euler's identity \(\sum w \cdot \partial f/\partial w = 0\) over the
group. Nor does it change with the whole parameter, or pair: this test takes no
gradient and leaves few candidates, or none. For these, one gradient gives the
sums over all groupings. Those whose sums vanish, at two points, are rescaled.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.probe.points import Groups
from psi_optax.invariance.probe.probe import Probe
from psi_optax.invariance.probe.screening import CANDIDATE, Screen

# The relative change of a loss that is tolerated from an epsilon.
_EPSILON = 1e-3


class Candidates(NamedTuple):
    """Parameters that may have groups.

    Attributes:
        alone: parameters that may have groups, or no effect.
        pairs: pairs of one layer that may have groups when tied.
    """

    alone: list[str]
    pairs: list[tuple[str, str]]

    @property
    def paths(self) -> set[str]:
        """All candidates."""
        return {*self.alone, *itertools.chain(*self.pairs)}


def find_candidates(
    probe: Probe, paths: Iterable[str], screen: Screen
) -> Candidates:
    """Return the parameters that no rescaling as a whole rules out.

    Args:
        probe: the measurements.
        paths: the parameters to try.
        screen: those of them that need not be rescaled.
    """
    moved = probe.points.moved.weights
    whole = {path: ScaleGroup(tuple(range(moved[path].ndim))) for path in paths}

    @functools.cache
    def may_hold(*some: str) -> bool:
        return probe.may_hold({path: whole[path] for path in some}, _EPSILON)

    alone = [path for path in whole if screen.passes(path) and may_hold(path)]
    pairs = [
        pair
        for pair in _pairs_of_layers(whole)
        if screen.may_vanish(*pair) and not any(map(may_hold, pair))
    ]
    pairs = _with_opposite_slopes(probe, pairs)
    return Candidates(alone, [pair for pair in pairs if may_hold(*pair)])


def _pairs_of_layers(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Return all pairs of parameters of one layer, in the order of paths."""
    position = {path: index for index, path in enumerate(paths)}
    layers: dict[str, list[str]] = {}
    for path in position:
        layers.setdefault(_layer(path), []).append(path)
    pairs = itertools.chain.from_iterable(
        itertools.combinations(layer, 2) for layer in layers.values()
    )
    return sorted(pairs, key=lambda pair: position[pair[0]])


def _with_opposite_slopes(
    probe: Probe, pairs: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return the pairs whose slopes cancel, of more pairs than parameters."""
    paired = {*itertools.chain(*pairs)}
    if len(pairs) <= len(paired):
        return pairs
    slopes = {path: probe.slope(path) for path in paired}
    return [
        (a, b)
        for a, b in pairs
        if _cancel(slopes[a], slopes[b], probe.slope_noise)
    ]


def _cancel(a: np.ndarray, b: np.ndarray, noise: float) -> bool:
    bound = CANDIDATE * np.maximum(np.abs(a), np.abs(b))
    return bool(np.all(np.abs(a + b) <= np.maximum(bound, noise)))


def _layer(path: str) -> str:
    return path.rpartition("/")[0]


def find_measured(
    probe: Probe, candidates: Candidates
) -> dict[str, ScaleGroup | None]:
    """Find the finest groups that measure as invariant.

    Returns:
        The groups of parameters that have any, by path; None for inert ones.
    """
    silent = [path for path in candidates.alone if probe.seems_inert(path)]
    # One that has an effect in another state only stays ordinary.
    inert = [path for path in silent if not probe.has_effect(path)]
    alone = [path for path in candidates.alone if path not in silent]
    return dict.fromkeys(inert) | _Search(probe).find(alone, candidates.pairs)


class _Search:
    """A search among candidates that have an effect."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._sums_over = functools.cache(self._sum_over)

    def find(
        self, alone: list[str], pairs: list[tuple[str, str]]
    ) -> dict[str, ScaleGroup]:
        """Return the groups of parameters alone, then of pairs, by path."""
        found: dict[str, ScaleGroup] = {}
        for path in alone:
            for group in self._groups(path):
                if self._is_invariant({path: group}):
                    found[path] = group
                    break
        for a, b in pairs:
            if a not in found and b not in found:
                found |= self._tie(a, b)
        return found

    def _is_invariant(self, groups: Groups) -> bool:
        """Check that groups without a proof are invariant, by all tests."""
        probe = self._probe
        return (
            not probe.points.coarse
            and probe.is_near_invariant(groups, _EPSILON)
            and probe.is_smooth(groups)
            and probe.holds_in_all_states(groups)
        )

    def _groups(self, path: str) -> list[ScaleGroup]:
        """Return groups whose Euler sums vanish, the finest first."""
        shape = self._shape(path)
        found = [g for g in _possible(shape) if self._vanishes({path: g})]
        return sorted(found, key=lambda g: -math.prod(g.group_shape(shape)))

    def _tie(self, a: str, b: str) -> dict[str, ScaleGroup]:
        """Find groups of a pair that are invariant only when tied."""
        shapes = self._shape(a), self._shape(b)
        pairs = [
            (one, other)
            for one in _possible(shapes[0])
            for other in _possible(shapes[1])
            if one.group_shape(shapes[0]) == other.group_shape(shapes[1])
        ]
        pairs.sort(key=lambda pair: -math.prod(pair[0].group_shape(shapes[0])))
        for one, other in pairs:
            tied = {
                a: dataclasses.replace(one, tie=a),
                b: dataclasses.replace(other, tie=a),
            }
            if self._vanishes(tied) and self._is_invariant(tied):
                return tied
        return {}

    def _shape(self, path: str) -> tuple[int, ...]:
        return self._probe.points.moved.weights[path].shape

    def _vanishes(self, groups: Groups) -> bool:
        """Check that Euler's sums over groups vanish at two points."""
        return all(self._vanishes_at(place, groups) for place in (0, 1))

    def _vanishes_at(self, place: int, groups: Groups) -> bool:
        total, size = 0.0, 0.0
        for path, group in groups.items():
            signed, absolute = self._sums(place, path, group)
            total, size = total + signed, size + absolute
        # All terms of a dead unit are rounding.
        rounding = self._probe.tolerance * np.max(size, initial=0)
        return bool(np.all(np.abs(total) <= CANDIDATE * size + rounding))

    def _sums(self, place: int, path: str, group: ScaleGroup) -> np.ndarray:
        """Return Euler's sums over groups, and sums of absolute values."""
        blocked = dict(group.blocks)
        whole = tuple(a for a in group.axes if a not in blocked)
        sums = self._sums_over(place, path, whole)
        for axis, count in group.blocks:
            at = 1 + axis - sum(a < axis for a in whole)
            shape = sums.shape
            cut = (*shape[:at], count, -1, *shape[at + 1 :])
            sums = sums.reshape(cut).sum(at + 1)
        return sums

    def _sum_over(
        self, place: int, path: str, axes: tuple[int, ...]
    ) -> np.ndarray:
        x = self._probe.gradients.euler(path, place)[path]
        return np.stack([x.sum(axes), np.abs(x).sum(axes)])


def _possible(shape: tuple[int, ...]) -> list[ScaleGroup]:
    """Return all subsets of axes, each also with one axis cut in blocks."""
    groups = []
    single = {axis for axis, length in enumerate(shape) if length == 1}
    for count in range(1, len(shape) + 1):
        for axes in itertools.combinations(range(len(shape)), count):
            if single - set(axes):
                continue
            groups.append(ScaleGroup(axes))
            for axis in axes:
                blocks = _divisors(shape[axis])
                groups += [ScaleGroup(axes, {axis: n}) for n in blocks]
    return groups or [ScaleGroup(())]


def _divisors(n: int) -> list[int]:
    return [k for k in range(2, min(n, 64)) if n % k == 0]
