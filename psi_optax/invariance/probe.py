r"""The measurement: what a loss does when its weights are rescaled.

In double precision, at weights that are moved away from zeros and symmetries.
If multiplying a group of weights w by a > 0 changes nothing, then by Euler's
identity \(\sum w \cdot \partial f/\partial w = 0\) over the group: one backward
pass gives these sums for all parameters and all ways to group them. What they
let through is rescaled indeed.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.groups import ScaleGroup, make_plan
from psi_optax.groups.paths import Tree, entries, map_with_path
from psi_optax.invariance import compat

# In numpy: in JAX each shape of an array would be compiled for.
Leaves = dict[str, np.ndarray]

# Sums that are this small a part of what they consist of may be zero, up to the
# epsilon of a norm: it is the rescaling that decides.
_CANDIDATE = 1e-3
# How much larger weights are made for the epsilon of a norm to be nothing, and
# what it may do where they are not.
_GROWN = 1e3
_EPSILON = 1e-3
# How often weights of which nothing is proved are rescaled.
_DRAWS = 4


class Probe:
    """A loss in double precision, at generic weights."""

    def __init__(self, loss: Callable, params: Tree, args: tuple, seed: int):
        self._random = np.random.default_rng(seed)
        widen = _wide if _takes_doubles(loss, params, args) else _as_given
        self.args = jax.tree.map(widen, args)
        shown = [entry for entry in entries(params) if not entry.is_hole]
        floats = {e.path: e.leaf for e in shown if _is_float(e.leaf)}
        # Shards stay where they are: a loss may depend on it.
        self._shardings = {
            path: leaf.sharding
            for path, leaf in floats.items()
            if isinstance(leaf, jax.Array) and len(leaf.devices()) > 1
        }
        self.given = {path: widen(np.asarray(w)) for path, w in floats.items()}
        self.moved = {p: self._moved(w) for p, w in self.given.items()}
        self._loss = jax.jit(functools.partial(_flat_loss, loss, params))
        precision = _precision(self._loss, self.given, self.args)
        # Powers of four are exact in any precision, roots included.
        self._coarse = precision > 1e-6
        self.tolerance = 1e-4 if self._coarse else max(1e-9, 30 * precision)
        value = self.value(self.moved)
        self._check(value)
        # A loss that is nothing but rounding has no size of its own.
        self.size = max(float(np.max(np.abs(value), initial=0)), 1e-3)

    def value(self, leaves: Leaves) -> np.ndarray:
        """All that the loss returns, as one vector."""
        return np.asarray(self._loss(self._placed(leaves), self.args))

    def _placed(self, leaves: Leaves) -> Any:
        return leaves | {
            path: jax.device_put(leaves[path], sharding)
            for path, sharding in self._shardings.items()
        }

    def _check(self, value: np.ndarray) -> None:
        if not np.all(np.isfinite(value)):
            raise ValueError(
                "the loss is not finite at weights near the given ones: check"
                ' the arguments, or take method="analysis".'
            )
        again = self.value(self.moved)
        if not np.array_equal(value, again):
            raise ValueError(
                "the loss differs between two calls: pass random keys as"
                " arguments, or fix them inside of the loss."
            )

    def _moved(self, w: np.ndarray) -> np.ndarray:
        """Weights in general position: zeros and ones would prove too much."""
        wide = w.astype(np.float64)
        size = float(np.sqrt(np.mean(wide * wide))) if w.size else 0.0
        noise = self._random.normal(size=w.shape)
        return (wide + 0.3 * (size or 1.0) * noise).astype(w.dtype)

    @functools.cached_property
    def euler(self) -> Leaves:
        r"""\(w\,\partial f/\partial w\) for every weight, f a random sum."""
        weights = self._random.normal(size=self.value(self.moved).shape)

        def total(leaves):
            return jnp.vdot(jnp.asarray(weights), self._loss(leaves, self.args))

        gradient = jax.jit(jax.grad(total))(self._placed(self.moved))
        return {p: w * np.asarray(gradient[p]) for p, w in self.moved.items()}

    def rescaled(
        self, leaves: Leaves, groups: Mapping[str, ScaleGroup]
    ) -> Leaves:
        """Weights with all their groups multiplied by random numbers."""
        tree = {path: groups.get(path) for path in leaves}
        plan = make_plan(tree, leaves)
        factors = {
            name: self._factors(shape)
            for name, shape in plan.group_shapes.items()
        }
        return leaves | {
            leaf.path: _times(leaves[leaf.path], factors[leaf.name], leaf.group)
            for leaf in plan.leaves
        }

    def _factors(self, shape: tuple[int, ...]) -> np.ndarray:
        if self._coarse:
            return 4.0 ** self._random.integers(-1, 2, size=shape)
        return np.exp2(self._random.uniform(-1, 1, size=shape))

    def deviation(self, groups: Mapping[str, ScaleGroup]) -> float:
        """By how much rescaling groups changes the loss, relative to its size.

        By random numbers between 1/2 and 2, at the given weights.
        """
        return self._change(self.given, self._given_value, groups)

    def deviation_if_large(self, groups: Mapping[str, ScaleGroup]) -> float:
        """The same at weights so large that epsilons do nothing."""
        return self._change_at(_GROWN, groups)

    @functools.cached_property
    def _given_value(self) -> np.ndarray:
        return self.value(self.given)

    def _change_at(self, factor: float, groups) -> float:
        grown = {
            p: _times(w, factor) if p in groups else w
            for p, w in self.moved.items()
        }
        return self._change(grown, self.value(grown), groups)

    def _change(self, leaves: Leaves, before: np.ndarray, groups) -> float:
        after = self.value(self.rescaled(leaves, groups))
        change = np.max(np.abs(after - before), initial=0)
        size = max(self.size, np.max(np.abs(before), initial=0))
        return float(change / size) if math.isfinite(change) else math.inf

    def is_inert(self, path: str) -> bool:
        """Whether other weights in its place change nothing."""
        moved = self.moved[path]
        other = self._random.normal(size=moved.shape)
        leaves = self.moved | {path: (moved + other).astype(moved.dtype)}
        change = np.abs(self.value(leaves) - self.value(self.moved))
        return bool(np.max(change, initial=0) <= self.tolerance * self.size)

    # -- candidates -------------------------------------------------------

    def find(self, paths: Iterable[str]) -> dict[str, ScaleGroup]:
        """The finest groups of parameters that measure as invariant."""
        paths = list(paths)
        found: dict[str, ScaleGroup] = {}
        for path in paths:
            for group in self._candidates(path):
                if self._seems({path: group}):
                    found[path] = group
                    break
        rest = [path for path in paths if path not in found]
        for a, b in itertools.combinations(rest, 2):
            if a not in found and b not in found:
                found |= self._tie(a, b)
        return found

    def holds(self, groups: Mapping[str, ScaleGroup]) -> bool:
        """Whether groups are invariant, up to the epsilon of norms."""
        return self.deviation_if_large(groups) <= self.tolerance

    def _seems(self, groups: Mapping[str, ScaleGroup]) -> bool:
        """Whether groups of which nothing is proved are invariant.

        Up to an epsilon, whose effect falls with the square of the weights:
        other things too do nothing to large ones, thresholds for one.
        """
        if self._coarse:
            return False
        here, larger = (
            max(self._change_at(factor, groups) for _ in range(_DRAWS))
            for factor in (1.0, 30.0)
        )
        falls = larger <= max(self.tolerance, here / 50)
        return here <= _EPSILON and falls and self.holds(groups)

    def _candidates(self, path: str) -> list[ScaleGroup]:
        """Ways to group it in which Euler's sums vanish, the finest first."""
        shape = self.moved[path].shape
        able = [g for g in _ways(shape) if self._vanishes({path: g})]
        return sorted(able, key=lambda g: -math.prod(g.group_shape(shape)))

    def _tie(self, a: str, b: str) -> dict[str, ScaleGroup]:
        """Groups of two parameters of one layer that only hold jointly."""
        if a.rpartition("/")[0] != b.rpartition("/")[0]:
            return {}
        shapes = self.moved[a].shape, self.moved[b].shape
        pairs = [
            (one, other)
            for one in _ways(shapes[0])
            for other in _ways(shapes[1])
            if one.group_shape(shapes[0]) == other.group_shape(shapes[1])
        ]
        pairs.sort(key=lambda pair: -math.prod(pair[0].group_shape(shapes[0])))
        for one, other in pairs:
            tied = {
                a: dataclasses.replace(one, tie=a),
                b: dataclasses.replace(other, tie=a),
            }
            if self._vanishes(tied) and self._seems(tied):
                return tied
        return {}

    def _vanishes(self, groups: Mapping[str, ScaleGroup]) -> bool:
        total, size = 0.0, 0.0
        for path, group in groups.items():
            signed, absolute = self._sums(path, group)
            total, size = total + signed, size + absolute
        return bool(np.all(np.abs(total) <= _CANDIDATE * size))

    def _sums(self, path: str, group: ScaleGroup) -> np.ndarray:
        """Euler's sums over groups, and those of their absolute values."""
        blocked = dict(group.blocks)
        whole = tuple(a for a in group.axes if a not in blocked)
        sums = self._sums_over(path, whole)
        for axis, count in group.blocks:
            place = 1 + axis - sum(a < axis for a in whole)
            shape = sums.shape
            cut = (*shape[:place], count, -1, *shape[place + 1 :])
            sums = sums.reshape(cut).sum(place + 1)
        return sums

    @functools.cache  # noqa: B019 - a probe lives for one call
    def _sums_over(self, path: str, axes: tuple[int, ...]) -> np.ndarray:
        x = np.asarray(self.euler[path])
        return np.stack([x.sum(axes), np.abs(x).sum(axes)])


def _ways(shape: tuple[int, ...]) -> list[ScaleGroup]:
    """Subsets of axes, and each with one of its axes cut into blocks."""
    ways = []
    single = {axis for axis, length in enumerate(shape) if length == 1}
    for count in range(1, len(shape) + 1):
        for axes in itertools.combinations(range(len(shape)), count):
            if single - set(axes):
                continue
            ways.append(ScaleGroup(axes))
            for axis in axes:
                blocks = _divisors(shape[axis])
                ways += [ScaleGroup(axes, {axis: n}) for n in blocks]
    return ways or [ScaleGroup(())]


def _divisors(n: int) -> list[int]:
    return [k for k in range(2, min(n, 64)) if n % k == 0]


def _is_float(x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, np.floating)


def _times(w: np.ndarray, factors: Any, group: ScaleGroup | None = None):
    """The weights, in their dtype, with each group times its factor."""
    if group is not None:
        blocks = dict(group.blocks)
        unblocked = tuple(a for a in group.axes if a not in blocks)
        factors = np.expand_dims(factors, unblocked)
        for axis, count in blocks.items():
            factors = np.repeat(factors, w.shape[axis] // count, axis)
    return (w * factors).astype(w.dtype)


def _as_given(x: Any) -> Any:
    return x if isinstance(x, np.ndarray) else jnp.asarray(x)


def _wide(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x.astype(np.float64) if _is_float(x) else x
    return jnp.asarray(x, jnp.float64) if _is_float(x) else x


def _takes_doubles(loss: Callable, params: Tree, args: tuple) -> bool:
    """Whether a loss can be traced in double precision.

    One that writes to single-precision variables of its own, running averages
    for example, may refuse.
    """
    try:
        jax.eval_shape(lambda *x: loss(*jax.tree.map(_wide, x)), params, *args)
    except (TypeError, ValueError):
        return False
    return True


def _flat_loss(loss, params: Tree, leaves: Leaves, args) -> jax.Array:
    tree = map_with_path(lambda path, w: leaves.get(path, w), params)
    found = [jnp.ravel(x) for x in jax.tree.leaves(loss(tree, *args))]
    floats = [x.astype(jnp.float64) for x in found]
    return jnp.concatenate(floats)


def _precision(function: Callable, *args: Any) -> float:
    """The rounding of the coarsest dtype that the program computes in."""
    jaxpr, _ = compat.make_jaxpr(function, *args)
    floats = [d for d in compat.dtypes(jaxpr) if jnp.issubdtype(d, np.floating)]
    return max((float(jnp.finfo(d).eps) for d in floats), default=0.0)
