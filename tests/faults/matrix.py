"""Runs of two steps with a fault in the first, and what came of them."""

from typing import NamedTuple

import jax
import numpy as np
import optax

from tests.compilation import quick_jit
from tests.faults.cases import (
    COLUMN,
    NUMBERS,
    ODD,
    ODD_GRADIENTS,
    draw,
    flat,
    leave,
    unit,
)


class Fault(NamedTuple):
    """What is done to weights, before `init`, and to the first gradients."""

    weights: object
    gradients: object


CLEAN = Fault(leave, leave)

# What becomes of the updates of what is struck:
#     0   exactly zero, nothing moves
#     X   nothing is finite
#     x   what the (first) gradient has is not finite, and no more
#     =   what they are without the fault, which is not looked at
#     p   the gradient itself
#     e   zero or next to it: less than 1e-15, of gradients of 1e-30
#     r   zero but for rounding: four of 6e-8 of the gradient
#     f   finite, not all zero
#     .   finite
OUTCOMES = {
    "0": lambda u, clean, g: not u.any(),
    "X": lambda u, clean, g: not np.isfinite(u).any(),
    "x": lambda u, clean, g: np.array_equal(np.isfinite(u), np.isfinite(g)),
    "=": lambda u, clean, g: np.array_equal(u, clean),
    "p": lambda u, clean, g: np.array_equal(u, g),
    "e": lambda u, clean, g: np.abs(u).max() < 1e-15,
    "r": lambda u, clean, g: np.all(np.abs(u) < 2.4e-7 * np.abs(g)),
    "f": lambda u, clean, g: np.isfinite(u).all() and u.any(),
    ".": lambda u, clean, g: np.isfinite(u).all(),
}


class Steps(NamedTuple):
    """Two steps from the same weights; what can be struck is in a row."""

    where: np.ndarray  # what was struck
    gradients: np.ndarray  # the first ones
    first: np.ndarray
    second: np.ndarray  # of gradients that are good
    odd: dict  # the other leaves, of the first step
    states: list  # before the steps and after them


class Run:
    """A transform, compiled once."""

    def __init__(self, tx, numbers=NUMBERS, promotion="strict"):
        # What is never struck is a constant.
        self.init = quick_jit(lambda w: tx.init({**w, **ODD}))
        self.update = quick_jit(
            lambda g, state, w: tx.update(
                {**g, **ODD_GRADIENTS}, state, {**w, **ODD}
            )
        )
        self.numbers = numbers
        self.promotion = promotion
        self.clean = self.strike(CLEAN, COLUMN)

    def strike(self, fault, group):
        """Lets a fault befall a group, and takes a good step after it."""
        where = unit(group, self.numbers)
        weights = fault.weights(draw(0), where)
        gradients = fault.gradients(draw(1), where)
        updates, states = [], []
        with jax.numpy_dtype_promotion(self.promotion):
            states.append(self.init(weights))
            for some in gradients, draw(1):
                update, state = self.update(some, states[-1], weights)
                updates.append(jax.device_get(update))
                states.append(state)
        return Steps(
            flat(where).astype(bool),
            flat(gradients),
            *map(flat, updates),
            {name: updates[0][name] for name in ODD},
            states[::2],
        )

    def complaints(self, what, fault, group, now, later=None):
        """What is not as it should be, if this befalls a group."""
        steps, clean = self.strike(fault, group), self.clean
        own = steps.where

        def outcome(code, update, without):
            return OUTCOMES[code](
                update[own], without[own], steps.gradients[own]
            )

        checks = {
            f"now {now}": outcome(now, steps.first, clean.first),
            f"later {later}": later is None
            or outcome(later, steps.second, clean.second),
            # To the last bit, through the state as well.
            "others": np.array_equal(steps.first[~own], clean.first[~own])
            and np.array_equal(steps.second[~own], clean.second[~own]),
            "radii": later is None or np.array_equal(*map(radii, steps.states)),
        }
        return [
            (what, group, check) for check, fine in checks.items() if not fine
        ]


def radii(state):
    """All radii of a state, in a row."""
    found = [x for _, x in optax.tree.get_all_with_path(state, "radius")]
    return np.concatenate([np.zeros(0), *map(np.ravel, jax.tree.leaves(found))])
