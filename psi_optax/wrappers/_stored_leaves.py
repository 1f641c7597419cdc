"""Weights that the states of wrappers hold, by path."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from psi_optax.groups import Tree
from psi_optax.groups.paths import is_placeholder, leaves_with_paths


class StoredLeaf(NamedTuple):
    """One leaf that a state holds, and this state."""

    leaf: jax.Array
    state: Any


def stored_leaves(
    field: str, states: Sequence[Any], params: Tree
) -> dict[str, StoredLeaf]:
    """Return the leaves of one field of several states, by path.

    Args:
        field: of the states, a tree like a part of params.
        states: of one run, for different parameters.
        params: the current weights.

    Raises:
        ValueError: two states hold one parameter; a leaf has another shape than
            its parameter.
    """
    shapes = {
        x.path: np.shape(x.leaf)
        for x in leaves_with_paths(params)
        if not x.is_placeholder
    }
    found: dict[str, StoredLeaf] = {}
    for state in states:
        for path, leaf in leaves_with_paths(getattr(state, field)):
            if is_placeholder(leaf):
                continue
            if path in found:
                raise ValueError(f"two {field}s of {path!r}: keep one.")
            if shapes.get(path) != leaf.shape:
                raise ValueError(
                    f"the {field} of {path!r} has shape {leaf.shape}, but"
                    f" params have {shapes.get(path, 'nothing')} there: pass"
                    " the params and the state of one run."
                )
            found[path] = StoredLeaf(leaf, state)
    return found
