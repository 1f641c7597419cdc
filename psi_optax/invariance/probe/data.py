"""Other values of data that may be a state: flags, counters, statistics.

A loss may be invariant in one state alone, such as that of the first batch.
Data whose elements are all equal may be a state; others are inputs.
"""

from collections.abc import Iterator
from typing import Any, Literal

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

# The kinds that are moved, most first: an index out of bounds, or a mask of
# nothing, may make the loss non-finite.
_ALL: Kinds = frozenset({"flag", "counter", "float", "mask", "indices"})
_NO_ARRAYS: Kinds = frozenset({"flag", "counter", "float"})
_NO_FLOATS: Kinds = frozenset({"flag", "counter", "mask", "indices"})
_LEAST: Kinds = frozenset({"flag", "counter"})
_ATTEMPTS = (_ALL, _ALL, _ALL, _NO_ARRAYS, _NO_FLOATS, _LEAST)
_LATER_ATTEMPTS = (_ALL, _ALL, _NO_ARRAYS, _LEAST)


class StateData:
    """The data of a loss, with other values in place of states.

    Attributes:
        kinds: the kinds of states among the data.
        moved: the data with all states moved, or None if there are none.
        trials: the number of sizes of counters that are worth a trial.
    """

    def __init__(self, data: Any, random: np.random.Generator) -> None:
        self._leaves, self._structure = jax.tree.flatten(data)
        self._found = [kind_of(x) for x in self._leaves]
        self._random = random
        self.kinds: Kinds = frozenset(kind for kind in self._found if kind)
        self.moved = self._move(_ALL, 0, 0) if self.kinds else None
        self.trials = 1 if self.kinds else 0
        if any(map(_may_count, self._leaves, self._found)):
            self.trials = len(_OFFSETS)

    def attempts(self, trial: int) -> Iterator[tuple[Any, Kinds]]:
        """Yield data of a trial, and the kinds that are moved.

        Those with most kinds come first; data that are drawn at random are
        drawn again.
        """
        attempts = _LATER_ATTEMPTS if trial else _ATTEMPTS
        for attempt, wanted in enumerate(attempts):
            kinds = self.kinds & wanted
            if not trial and not attempt:
                yield self.moved, kinds
            elif kinds:
                yield self._move(kinds, trial, attempt), kinds

    def _move(self, kinds: Kinds, trial: int, attempt: int) -> Any:
        moved = [
            _place(x, self._other(x, kind, trial, attempt))
            if kind in kinds
            else x
            for x, kind in zip(self._leaves, self._found, strict=True)
        ]
        return jax.tree.unflatten(self._structure, moved)

    def _other(self, x: Any, kind: Kind, trial: int, attempt: int) -> Any:
        """Return another value of a state, as a NumPy array."""
        held = np.asarray(jax.device_get(x))
        if kind == "float" and not (trial and _may_count(x, kind)):
            return move_state(held, self._random)
        if kind in ("flag", "mask"):
            return _negated(held, attempt, self._random)
        return _counted(held, _OFFSETS[trial], attempt)


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

    A one that is no integer is a factor rather, such as a temperature.
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
    held: np.ndarray, attempt: int, random: np.random.Generator
) -> np.ndarray:
    """Return flags negated; in later attempts, some of several."""
    if not attempt or held.size == 1:
        return np.asarray(~held)
    some = random.random(held.shape) < 0.25
    some.flat[random.integers(held.size)] = True
    return held ^ some


def _counted(held: np.ndarray, offset: int, attempt: int) -> np.ndarray:
    """Return later counters; the one before if the next is out of bounds."""
    first, limits = int(held.flat[0]), _limits(held.dtype)
    if attempt % 2 and first and offset == 1:
        offset = -1
    moved = min(first + offset, limits)
    return np.full_like(held, moved if moved != first else first - 1)


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
    if x.weak_type and jnp.issubdtype(x.dtype, np.integer):
        # Another type would be compiled anew.
        return x * 0 + int(moved.flat[0])
    return jax.device_put(moved)
