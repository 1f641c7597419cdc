"""Other values of data that may be a state: flags, counters, statistics.

A loss may be invariant in one state alone, such as that of the first batch.
Data whose elements are all equal may be a state; others are inputs.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.invariance.probe.evaluation import is_float

# A mask is an array of flags; indices are an array of counters.
Kind = Literal["flag", "counter", "mask", "indices", "float"]
Kinds = frozenset[Kind]

# Counters are moved past thresholds of a first step, an epoch and a warm-up.
# No small number divides the latter two.
_OFFSETS = (1, 5_003, 1_000_003)

# More counters, such as those of random streams, are tried together only.
_FEW = 4

# The kinds that are moved, most first, and whether in another way: an index out
# of bounds, or a mask of nothing, may make the loss non-finite.
_ALL: Kinds = frozenset({"flag", "counter", "float", "mask", "indices"})
_NO_ARRAYS: Kinds = frozenset({"flag", "counter", "float"})
_NO_FLOATS: Kinds = frozenset({"flag", "counter", "mask", "indices"})
_LEAST: Kinds = frozenset({"flag", "counter"})
_ATTEMPTS = (
    (_ALL, False),
    (_ALL, True),
    (_NO_ARRAYS, False),
    (_NO_FLOATS, True),
    (_LEAST, False),
)


class Trial(NamedTuple):
    """States to move together.

    Attributes:
        offset: the number that is added to counters.
        indices: the leaves of the data.
    """

    offset: int
    indices: frozenset[int]


class StateData:
    """The data of a loss, with other values in place of states.

    Attributes:
        indices: the leaves of the data that may be states.
        moved: the data with all of them moved, or None if there are none.
        trials: all states with counters of several sizes; then parts of them,
            as one may hide the effect of another.
    """

    def __init__(self, data: Any, random: np.random.Generator) -> None:
        self._leaves, self._structure = jax.tree.flatten(data)
        kinds = map(kind_of, self._leaves)
        self._kinds = {i: kind for i, kind in enumerate(kinds) if kind}
        self._random = random
        self.indices = frozenset(self._kinds)
        self.trials = list(self._trials()) if self._kinds else []
        self.moved = self._move(self.indices, 1) if self._kinds else None

    def _trials(self) -> Iterator[Trial]:
        counts = any(
            _may_count(self._leaves[i], kind) for i, kind in self._kinds.items()
        )
        for offset in _OFFSETS if counts else _OFFSETS[:1]:
            yield Trial(offset, self.indices)
        if len(self._kinds) > 1:
            for part in self._parts():
                yield Trial(_OFFSETS[1], part)

    def _parts(self) -> Iterator[frozenset[int]]:
        """Yield parts of the states: of any two, one is without the other."""
        flags, counters = (
            [frozenset({i}) for i, kind in self._kinds.items() if kind in kinds]
            for kinds in (("flag", "mask"), ("counter", "indices"))
        )
        if len(counters) > _FEW:
            counters = [frozenset().union(*counters)]
        units = list(enumerate([*flags, *counters]))
        for bit in range(max(1, (len(units) - 1).bit_length())):
            for side in (0, 1):
                part = [unit for i, unit in units if i >> bit & 1 == side]
                if part:
                    yield frozenset().union(*part)

    def attempts(self, trial: Trial) -> Iterator[tuple[Any, frozenset[int]]]:
        """Yield data of a trial, and the states that are moved, most first."""
        if trial == self.trials[0]:
            yield self.moved, self.indices
        for kinds, again in _ATTEMPTS:
            some = frozenset(
                i for i in trial.indices if self._kinds[i] in kinds
            )
            if some:
                yield self._move(some, trial.offset, again), some

    def _move(
        self, indices: frozenset[int], offset: int, again: bool = False
    ) -> Any:
        moved = [
            _place(x, self._other(x, self._kinds[i], offset, again))
            if i in indices
            else x
            for i, x in enumerate(self._leaves)
        ]
        return jax.tree.unflatten(self._structure, moved)

    def _other(self, x: Any, kind: Kind, offset: int, again: bool) -> Any:
        """Return another value of a state, as a NumPy array."""
        held = np.asarray(jax.device_get(x))
        if kind == "float" and not (offset > 1 and _may_count(x, kind)):
            return move_state(held, self._random)
        if kind in ("flag", "mask"):
            return _negated(held, again, self._random)
        return _counted(held, offset, again)


def kind_of(x: Any) -> Kind | None:
    """Return the kind of a state; None of inputs, which stay."""
    if not _is_constant(x):
        return None
    if is_float(x):
        return "float"
    is_flag = x.dtype == np.bool_
    if x.size == 1:
        return "flag" if is_flag else "counter"
    return "mask" if is_flag else "indices"


def _is_constant(x: Any) -> bool:
    """Check that an array holds one real and finite number; no random key."""
    if not isinstance(x, np.ndarray | np.generic | jax.Array) or not x.size:
        return False
    if x.dtype == np.uint32 and x.shape == (2,):
        return False
    is_real = x.dtype == np.bool_ or jnp.issubdtype(x.dtype, np.integer)
    if not (is_real or is_float(x)):
        return False
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return False
    held = np.asarray(jax.device_get(x))
    first = held.flat[0]
    return bool(np.all(held == first)) and abs(float(first)) < np.inf


def _may_count(x: Any, kind: Kind | None) -> bool:
    """Check that a state may be a number of steps.

    A floating-point one is a factor rather, such as a temperature.
    """
    if kind != "float" or x.size != 1:
        return kind in ("counter", "indices")
    number = float(np.asarray(jax.device_get(x)).item())
    return number >= 0 and number.is_integer() and number != 1


def move_state(held: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return other floating-point numbers near those of a state.

    They have its sign, as variances and epsilons must.
    """
    wide = held.astype(np.float64)
    size = abs(float(wide.flat[0]))
    noise = random.normal(size=held.shape)
    # Some of several counters that are zero pass a threshold of one.
    scale = 0.3 * size if size else 0.3 if held.size == 1 else 1.0
    moved = np.abs(np.abs(wide) + scale * noise)
    return np.copysign(moved, np.where(wide < 0, -1.0, 1.0)).astype(held.dtype)


def _negated(
    held: np.ndarray, again: bool, random: np.random.Generator
) -> np.ndarray:
    """Return flags negated; some of several if again."""
    if not again or held.size == 1:
        return np.asarray(~held)
    some = random.random(held.shape) < 0.25
    some.flat[random.integers(held.size)] = True
    return held ^ some


def _counted(held: np.ndarray, offset: int, again: bool) -> np.ndarray:
    """Return later counters; those before if again, or beyond the dtype."""
    first = int(held.flat[0])
    moved = min(first + offset, _limits(held.dtype))
    is_before = first and (again or moved == first)
    return np.full_like(held, first - 1 if is_before else moved)


def _limits(dtype: Any) -> int:
    """Return the largest number of a dtype."""
    is_integer = jnp.issubdtype(dtype, np.integer)
    return int((jnp.iinfo if is_integer else jnp.finfo)(dtype).max)


def _place(x: Any, moved: np.ndarray) -> Any:
    """Return moved data where and as the given ones are."""
    if not isinstance(x, jax.Array):
        return moved.reshape(x.shape)
    if len(x.devices()) > 1:
        return jax.device_put(moved, x.sharding)
    first = moved.flat[0]
    if x.weak_type and np.all(moved == first):
        # Of another type, the loss would be compiled anew.
        return x * 0 + first.item()
    return jax.device_put(moved)
