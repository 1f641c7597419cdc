r"""The measurement: what a loss does when its weights are rescaled.

In double precision, at weights that are moved away from zeros and symmetries.
A loss that does not change with the scale of a group must not do so at any of
several scales, and where nothing but an epsilon makes it change, that falls
with the square of the weights.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.groups import ScaleGroup, make_plan
from psi_optax.groups.paths import Tree, entries, map_with_path
from psi_optax.invariance import compat

# In numpy: in JAX each shape of an array would be compiled for.
Leaves = dict[str, np.ndarray]
Groups = Mapping[str, ScaleGroup]

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


class Probe:
    """A loss in double precision, at generic weights.

    Attributes:
        given: the weights that are given, by path.
        moved: weights in general position near them.
        tolerance: the relative change of the loss that rounding explains.
    """

    def __init__(self, loss: Callable, params: Tree, args: tuple, seed: int):
        self.random = np.random.default_rng(seed)
        widen = _wide if _takes_doubles(loss, params, args) else _as_given
        args = jax.tree.map(widen, args)
        shown = [entry for entry in entries(params) if not entry.is_hole]
        floats = {e.path: e.leaf for e in shown if _is_float(e.leaf)}
        # Shards stay where they are: a loss may depend on it.
        self._shardings = {
            path: leaf.sharding
            for path, leaf in floats.items()
            if isinstance(leaf, jax.Array) and len(leaf.devices()) > 1
        }
        self.given = {
            path: widen(jax.device_get(w)) for path, w in floats.items()
        }
        self.moved = {p: self._moved(w) for p, w in self.given.items()}
        program, _ = compat.make_jaxpr(
            functools.partial(_flat_loss, loss, params),
            self._placed(self.given),
            args,
        )
        self._precision = _precision(program)
        self.coarse = self._precision > 1e-6
        self.tolerance = (
            1e-4 if self.coarse else max(1e-9, 30 * self._precision)
        )
        call, constants = compat.without_constants(program)

        def value(leaves, data):
            constants, args = data
            [found] = call(constants, *jax.tree.leaves((leaves, args)))
            return found

        self._value = jax.jit(value)
        self._data = constants, args
        self._moved_data = jax.tree.map(self._moved_number, self._data)
        self._check()

    def value(self, leaves: Leaves, data: Any = None) -> np.ndarray:
        """Return all that the loss returns, as one vector."""
        data = self._data if data is None else data
        return jax.device_get(self._value(self._placed(leaves), data))

    def _placed(self, leaves: Leaves) -> dict[str, jax.Array]:
        return {
            path: jax.device_put(w, self._shardings.get(path))
            for path, w in leaves.items()
        }

    def _check(self) -> None:
        value = self.value(self.moved)
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
        # A loss that is nothing but rounding has no size of its own.
        self.size = max(float(np.max(np.abs(value), initial=0)), 1e-3)

    # -- weights and data -------------------------------------------------

    def _moved(self, w: np.ndarray) -> np.ndarray:
        """Return weights in general position: zeros would prove too much."""
        wide = w.astype(np.float64)
        size = float(np.sqrt(np.mean(wide * wide))) if w.size else 0.0
        noise = self.random.normal(size=w.shape)
        return (wide + 0.3 * (size or 1.0) * noise).astype(w.dtype)

    def _moved_number(self, x: Any) -> Any:
        """Return data that are one number, a counter or a gate, as another."""
        if not isinstance(x, np.ndarray | jax.Array) or not x.size:
            return x
        if isinstance(x, jax.Array) and len(x.devices()) > 1:
            return x
        integer = jnp.issubdtype(x.dtype, np.signedinteger) and x.size == 1
        if not integer and not _is_float(x):
            return x
        held = jax.device_get(x)
        if integer:
            return jax.device_put(
                held + held.dtype.type(self.random.integers(1, 100))
            )
        if np.any(held != held.flat[0]):
            return x
        return jax.device_put(self._moved(held))

    def rescaled(
        self, leaves: Leaves, groups: Groups, draw: Callable
    ) -> Leaves:
        """Multiply groups by powers of two, whose exponents are drawn."""
        plan = make_plan({path: groups.get(path) for path in leaves}, leaves)
        factors = {
            name: np.exp2(self._exact(np.asarray(draw(shape), np.float64)))
            for name, shape in plan.group_shapes.items()
        }
        return leaves | {
            leaf.path: times(leaves[leaf.path], factors[leaf.name], leaf.group)
            for leaf in plan.leaves
        }

    def _exact(self, exponents: np.ndarray) -> np.ndarray:
        # Powers of four are exact in any precision, roots included.
        return 2 * np.round(exponents / 2) if self.coarse else exponents

    def _draws(self, end: float) -> Iterator[Callable]:
        """Yield ways to draw exponents: the ends, jointly, and at random."""
        yield lambda shape: np.full(shape, -end)
        yield lambda shape: np.full(shape, end)
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
        return self.change(self.given, groups, self._draws(end))

    def deviation_if_large(self, groups: Groups) -> float:
        """Return the same at weights so large that epsilons have no effect.

        By numbers between 2^-10 and 2^10, and at other values of data that are
        one number. Of several sizes the one with the least deviation counts.
        """
        return max(
            self._deviation_at_large(groups, data)
            for data in (self._data, self._moved_data)
        )

    def _deviation_at_large(self, groups: Groups, data: Any) -> float:
        found = []
        for grown, end in self._grown(groups, data):
            change = self.change(grown, groups, self._draws(end), data)
            if change <= self.tolerance:
                return change
            noise = self._noise(grown, data)
            if noise <= _INFORMATIVE:
                found.append(0.0 if change <= 30 * noise else change)
        # Where rounding decides the loss at all sizes, nothing is known.
        return min(found, default=0.0)

    def _noise(self, leaves: Leaves, data: Any) -> float:
        """Return the relative change of the loss when weights are rounded."""
        before = self.value(leaves, data)
        size = max(self.size, np.max(np.abs(before), initial=0))
        found = []
        for _ in range(4):
            signs = {
                path: self.random.choice([-1.0, 1.0], w.shape)
                for path, w in leaves.items()
            }
            other = {
                path: (w * (1 + self._precision * signs[path])).astype(w.dtype)
                for path, w in leaves.items()
            }
            found.append(np.max(np.abs(self.value(other, data) - before)))
        change = float(max(found) / size)
        return change if math.isfinite(change) else math.inf

    def _grown(
        self, groups: Iterable[str], data: Any
    ) -> Iterator[tuple[Leaves, float]]:
        """Yield large weights with a finite loss, and factors for each."""
        for exponent, end in _GROWN_COARSE if self.coarse else _GROWN:
            grown = self.moved | {
                path: times(self.moved[path], 2.0**exponent) for path in groups
            }
            if np.all(np.isfinite(self.value(grown, data))):
                yield grown, end

    def holds(self, groups: Groups) -> bool:
        """Return whether groups are invariant, up to the epsilon of norms."""
        return self.deviation_if_large(groups) <= self.tolerance

    def holds_within_bound(self, groups: Groups) -> bool:
        """Return whether groups are invariant where a bound does not act.

        From the given weights on, up to an epsilon, whose effect falls with the
        square of the weights: that of a bound grows. Where it acts on all that
        is clipped, nothing changes any more, and there is no gradient.
        """
        return all(np.any(self.euler[path]) for path in groups) and all(
            self._falls(leaves, groups, data)
            for leaves in (self.given, self.moved)
            for data in [self._data, self._moved_data]
        )

    def _falls(self, leaves: Leaves, groups: Groups, data: Any) -> bool:
        end, allowed = (2 if self.coarse else 1), NOTICEABLE
        enough = self.tolerance
        for exponent in range(0, _END + 1, 2):
            grown = leaves | {
                path: times(leaves[path], 2.0**exponent) for path in groups
            }
            change = self.change(grown, groups, self._draws(end), data)
            if change <= enough:
                return True
            if change > allowed:
                return False
            enough = max(self.tolerance, _INFORMATIVE)
            allowed = change / 4
        return False

    def is_smooth(self, groups: Groups) -> bool:
        """Return whether no threshold is passed as groups are rescaled.

        Jointly, from 2^-10 to 2^10 times the given weights and those near
        them. The effect of an epsilon grows fourfold with each halving. That of
        a bound on norms, or of a clamp, begins suddenly.
        """
        return all(self._fades_in(w, groups) for w in (self.given, self.moved))

    def _fades_in(self, leaves: Leaves, groups: Groups) -> bool:
        step = 2 if self.coarse else 1
        rungs = [
            self.rescaled(leaves, groups, lambda s, k=k: np.full(s, float(k)))
            for k in range(_END, -_END - 1, -step)
        ]
        values = [self.value(rung) for rung in rungs]
        size = max(self.size, np.max(np.abs(values[0]), initial=0))
        changes = np.array(
            [np.max(np.abs(v - values[0]), initial=0) / size for v in values]
        )
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
        return all(
            below[i] <= 30 * self._noise(rungs[i + 1], self._data)
            for i in sudden
        )

    def change(
        self,
        leaves: Leaves,
        groups: Groups,
        draws: Iterable[Callable],
        data: Any = None,
    ) -> float:
        """Return the largest relative change of the loss by rescalings."""
        before = self.value(leaves, data)
        size = max(self.size, np.max(np.abs(before), initial=0))
        change = max(
            np.max(
                np.abs(
                    self.value(self.rescaled(leaves, groups, d), data) - before
                ),
                initial=0,
            )
            for d in draws
        )
        return float(change / size) if math.isfinite(change) else math.inf

    # -- what is said of single parameters --------------------------------

    def is_inert(self, path: str) -> bool:
        """Return whether other weights in its place change nothing."""
        moved = self.moved[path]
        other = self.random.normal(size=moved.shape)
        leaves = self.moved | {path: (moved + other).astype(moved.dtype)}
        change = np.abs(self.value(leaves) - self.value(self.moved))
        same = np.max(change, initial=0) <= self.tolerance * self.size
        return bool(same and not self.has_gradient(path))

    def has_gradient(self, path: str, groups: Groups | None = None) -> bool:
        """Return whether a parameter has a gradient that nothing explains.

        Rounding does, and the epsilon of a norm, whose part is small and falls
        as the parameter grows with the groups.
        """
        size = self._share(self.euler, path)
        if size <= self.tolerance:
            return False
        if size > NOTICEABLE:
            return True
        large = self._grown({path: None, **(groups or {})}, self._data)
        return all(
            self._share(self._euler_at(grown), path) > self.tolerance
            for grown, _ in large
        )

    def _share(self, euler: Leaves, path: str) -> float:
        sizes = {p: np.max(np.abs(x), initial=0) for p, x in euler.items()}
        return float(sizes[path] / max(self.size, *sizes.values()))

    @functools.cached_property
    def euler(self) -> Leaves:
        r"""\(w\,\partial f/\partial w\) for every weight, f a random sum."""
        return self._euler_at(self.moved)

    def _euler_at(self, leaves: Leaves) -> Leaves:
        gradient = jax.device_get(
            self._gradient(self._placed(leaves), self._data)
        )
        return {path: w * gradient[path] for path, w in leaves.items()}

    @functools.cached_property
    def _gradient(self) -> Callable:
        weights = self.random.normal(size=self.value(self.moved).shape)

        def total(leaves, data):
            return jnp.vdot(jnp.asarray(weights), self._value(leaves, data))

        return jax.jit(jax.grad(total))


def times(
    w: np.ndarray, factors: Any, group: ScaleGroup | None = None
) -> np.ndarray:
    """Multiply each group of weights by its factor, in their dtype."""
    if group is not None:
        blocks = dict(group.blocks)
        unblocked = tuple(a for a in group.axes if a not in blocks)
        factors = np.expand_dims(factors, unblocked)
        for axis, count in blocks.items():
            factors = np.repeat(factors, w.shape[axis] // count, axis)
    return (w * factors).astype(w.dtype)


def _is_float(x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, np.floating)


def _as_given(x: Any) -> Any:
    return x if isinstance(x, np.ndarray) else jnp.asarray(x)


def _wide(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x.astype(np.float64) if _is_float(x) else x
    return jnp.asarray(x, jnp.float64) if _is_float(x) else x


def _takes_doubles(loss: Callable, params: Tree, args: tuple) -> bool:
    """Return whether a loss can be traced in double precision.

    One that writes to single-precision variables of its own, running averages
    for example, may refuse.
    """
    try:
        jax.eval_shape(lambda *x: loss(*jax.tree.map(_wide, x)), params, *args)
    except (TypeError, ValueError):
        return False
    return True


def _flat_loss(loss, params: Tree, leaves: Mapping, args) -> jax.Array:
    tree = map_with_path(lambda path, w: leaves.get(path, w), params)
    found = [jnp.ravel(x) for x in jax.tree.leaves(loss(tree, *args))]
    floats = [x.astype(jnp.float64) for x in found]
    return jnp.concatenate(floats)


def _precision(program: Any) -> float:
    """Return the rounding of the coarsest dtype that a program computes in."""
    floats = [
        d for d in compat.dtypes(program) if jnp.issubdtype(d, np.floating)
    ]
    return max((float(jnp.finfo(d).eps) for d in floats), default=0.0)
