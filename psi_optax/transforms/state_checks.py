"""States of transforms: finding them, and checking that they fit."""

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax.groups import Plan, Scalars, Tree
from psi_optax.groups.paths import leaves_with_paths

_State = TypeVar("_State")


class HasCount(Protocol):
    """A state that counts its steps."""

    @property
    def count(self) -> jax.typing.ArrayLike:
        """Steps taken."""
        ...


_Counted = TypeVar("_Counted", bound=HasCount)


def find_states(
    opt_state: optax.OptState, *kinds: type[_State]
) -> Iterator[_State]:
    """Yield the states of some classes in a state, outer before inner."""
    is_found = lambda x: isinstance(x, kinds)  # noqa: E731
    for node in jax.tree.leaves(opt_state, is_leaf=is_found):
        if is_found(node):
            yield node
            yield from find_states(tuple(node), *kinds)


def read_states(
    opt_state: optax.OptState, kind: type[_Counted], advice: str
) -> list[_Counted]:
    """Return the states of one class, of a single run.

    Args:
        opt_state: the state of any optimizer.
        kind: a class with a `count`.
        advice: tells how to get such a state.

    Raises:
        ValueError: there is none, or they are of several steps or seeds.
    """
    states = list(find_states(opt_state, kind))
    if not states:
        raise ValueError(f"the state has no {kind.__name__}: {advice}")
    if any(jnp.ndim(state.count) for state in states):
        raise ValueError(
            f"this {kind.__name__} is of several steps or seeds together: use"
            " vmap, or take one of them, as by"
            " jax.tree.map(lambda x: x[0], state)."
        )
    return states


def stored_scalars(name: str, stored: Any, plan: Plan) -> Scalars:
    """Return the scalars of groups that a state holds.

    Args:
        name: of the field, for an error.
        stored: its value.
        plan: the groups.

    Raises:
        ValueError: the state was made for other groups.
    """
    have = stored if isinstance(stored, dict) else {}
    shapes = {path: jnp.shape(x) for path, x in have.items()}
    if shapes != plan.group_shapes:
        raise ValueError(
            f"the state holds {name} of shapes {shapes}, but the groups have"
            f" {plan.group_shapes}: make a new state with init(params)."
        )
    return have


def state_or_placeholder(scalars: Scalars) -> Any:
    """Return scalars, or an array of shape () if there are no groups.

    optax's placeholder for params hides all groups. A state made from it must
    be a prefix of the state of params: an empty dictionary would not be.
    """
    return scalars or jnp.zeros([])


def check_state_type(
    state: Any, kind: type[tuple], where: str = "state"
) -> None:
    """Require a state of one class.

    Raises:
        ValueError: the state is that of another optimizer, or not a state.
    """
    if type(state) is not kind:
        raise ValueError(
            f"{where} is of type {type(state).__name__}, where this optimizer"
            f" has a {kind.__name__}: pass the state that its own init or"
            " update returned, between updates and params. After a change of"
            " optimizers begin with init(params); restore a checkpoint into the"
            " structure of init(params)."
        )


def check_structure(
    state: Any, expected: Any, where: str = "state", *, shapes: bool
) -> None:
    """Require a state whose classes are the expected ones.

    Chains and partitions are followed down to the trees that are like params.

    Args:
        state: of an optimizer.
        expected: the shapes of the state of its `init`.
        where: how an error names the state.
        shapes: whether to compare the shapes of these trees as well.

    Raises:
        ValueError: the state is that of another optimizer or of other params.
    """
    if isinstance(expected, dict) and isinstance(state, dict):
        for key in expected.keys() & state.keys():
            check_structure(
                state[key], expected[key], f"{where}[{key!r}]", shapes=shapes
            )
    if not isinstance(expected, tuple):
        if shapes:
            _check_shapes(state, expected, where)
        return
    check_state_type(state, type(expected), where)
    if len(state) != len(expected):
        raise ValueError(
            f"{where} is a chain of {len(state)}, where this optimizer is a"
            f" chain of {len(expected)}: begin with init(params)."
        )
    names = getattr(expected, "_fields", range(len(expected)))
    for name, have, want in zip(names, state, expected, strict=True):
        check_structure(have, want, f"{where}[{name!r}]", shapes=shapes)


def _check_shapes(state: Any, expected: Any, where: str) -> None:
    have, want = shapes_by_path(state), shapes_by_path(expected)
    for path in want | have:
        if have.get(path) != want.get(path):
            at = f" at {path!r}" if path else ""
            raise ValueError(
                f"{where} has {describe_shape(path, have)}{at}, where"
                f" init(params) has {describe_shape(path, want)}: it is the"
                " state of other params. Begin with init(params)."
            )


def shapes_by_path(tree: Tree) -> dict[str, tuple[int, ...] | None]:
    """Return the shape at each path; None for a placeholder."""
    return {
        x.path: None if x.is_placeholder else np.shape(x.leaf)
        for x in leaves_with_paths(tree)
    }


def describe_shape(path: str, shapes: dict[str, Any]) -> str:
    """Return how an error shows the shape at a path."""
    return f"shape {shapes[path]}" if path in shapes else "nothing"
