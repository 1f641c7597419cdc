"""Moments and step counts in the state of any optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from psi_optax.groups import Leaves, Plan, Tree
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.optimizers.psi import PsiState
from psi_optax.optimizers.psi_sgdm import PsiSgdmState
from psi_optax.transforms.rescaling import RescaleWeightsState
from psi_optax.transforms.state_checks import describe_shape, shapes_by_path

# Degree of each field in the gradients, by the kind of state.
MOMENTS: dict[type, dict[str, int]] = {
    optax.ScaleByAdamState: {"mu": 1, "nu": 2},
    optax.ScaleByAmsgradState: {"mu": 1, "nu": 2, "nu_max": 2},
    optax.ScaleByLionState: {"mu": 1},
    optax.ScaleByRmsState: {"nu": 2},
    optax.EmaState: {"ema": 1},
    optax.TraceState: {"trace": 1},
    optax.contrib.MuonState: {"mu": 1},
}

# Field that counts the steps of the run, as do states of a count alone.
_COUNTS: dict[type, str] = {
    PsiState: "count",
    PsiSgdmState: "count",
    RescaleWeightsState: "count",
    optax.InjectStatefulHyperparamsState: "count",
    optax.MultiStepsState: "gradient_step",
}

# function(where, state, paths whose gradients psi multiplies by their norm)
_Function = Callable[[str, Any, frozenset[str]], Any]


class Held(NamedTuple):
    """Moments of one state.

    Attributes:
        kind: of the state.
        count: of its steps; None if it has none.
        fields: the moments by field and path.
        scaled: paths whose gradients `psi` multiplied by their norm.
    """

    kind: type
    count: int | None
    fields: dict[str, Leaves]
    scaled: frozenset[str]


def is_state(x: Any) -> bool:
    """Return whether x is a named tuple, as states are."""
    return isinstance(x, tuple) and hasattr(x, "_fields")


def map_states(
    function: _Function,
    state: Any,
    plan: Plan,
    scaled: frozenset[str] = frozenset(),
    where: str = "",
) -> Any:
    """Apply a function to every state in a state, inner before outer.

    Args:
        function: maps (where, state, scaled paths) to a state.
        state: of any optimizer.
        plan: the groups.
        scaled: the scaled paths here.
        where: the place of the state.

    Raises:
        ValueError: a `PsiState` has other groups; a state of several runs.
    """

    def visit(path: tuple[Any, ...], node: Any) -> Any:
        if not is_state(node):
            return node
        here = where + jax.tree_util.keystr(path)
        _check_one_run(here, node)
        if type(node) in MOMENTS:
            return function(here, node, scaled)
        is_psi = isinstance(node, PsiState)
        below = _scaled_paths(node, plan) if is_psi else scaled
        inner = {
            field: map_states(function, x, plan, below, f"{here}.{field}")
            for field, x in node._asdict().items()
        }
        return function(here, node._replace(**inner), scaled)

    return jax.tree_util.tree_map_with_path(visit, state, is_leaf=is_state)


def _scaled_paths(state: PsiState, plan: Plan) -> frozenset[str]:
    """Return the paths of the groups of `psi`.

    Raises:
        ValueError: these are not the given groups.
    """
    if state.radius is None:
        return frozenset(plan.paths)
    radii = state.radius if isinstance(state.radius, dict) else {}
    for name, radius in radii.items():
        shape = np.shape(single_leaf(radius))
        if plan.group_shapes.get(name) != shape:
            have = describe_shape(name, plan.group_shapes)
            raise ValueError(
                f"the PsiState has a radius of shape {shape} at {name!r}, where"
                f" groups have {have}: pass the groups of that optimizer, which"
                " are joint_groups(groups) for adamh and muonh."
            )
    return frozenset(x.path for x in plan.leaves if x.name in radii)


def single_leaf(tree: Any) -> Any:
    """Return the only leaf, which NNX keeps in a variable."""
    (leaf,) = jax.tree.leaves(tree)
    return leaf


def count_field(state: Any) -> str | None:
    """Return the field that counts the steps of the run, None without one."""
    if state._fields == ("count",):
        return "count"
    return _COUNTS.get(type(state))


def read_fields(state: Any) -> dict[str, Leaves]:
    """Return the moments of a state by field and path."""
    return {
        field: {
            x.path: x.leaf
            for x in leaves_with_paths(getattr(state, field))
            if not x.is_placeholder
        }
        for field in MOMENTS[type(state)]
    }


def paths_of(fields: dict[str, Leaves]) -> list[str]:
    """Return the paths of moments, which all fields share."""
    return list(next(iter(fields.values())))


def read_moments(state: Any, plan: Plan) -> tuple[list[Held], set[int]]:
    """Return the moments in a state, and the counts of its steps.

    Moments of the output of other moments are omitted.
    """
    held: list[Held] = []
    counts: set[int] = set()
    seen: set[str] = set()

    def read(_: str, node: Any, scaled: frozenset[str]) -> Any:
        if type(node) in MOMENTS:
            fields = read_fields(node)
            if seen.isdisjoint(paths_of(fields)):
                count = _read_count(node, "count")
                held.append(Held(type(node), count, fields, scaled))
            seen.update(paths_of(fields))
        elif field := count_field(node):
            counts.add(int(single_leaf(getattr(node, field))))
        return node

    map_states(read, state, plan)
    own = {x.count for x in held if x.count is not None}
    return held, counts or own


def _read_count(state: Any, field: str) -> int | None:
    if field not in state._fields:
        return None
    return int(single_leaf(getattr(state, field)))


def check_moments(name: str, state: Any, plan: Plan, params: Tree) -> None:
    """Require moments of the shapes of params.

    Args:
        name: of the state, for an error.
        state: of any optimizer.
        plan: the groups.
        params: arrays or shapes.

    Raises:
        ValueError: a state of other params.
    """
    want = shapes_by_path(params)

    def check(where: str, node: Any, _: frozenset[str]) -> Any:
        for field in MOMENTS.get(type(node), ()):
            have = shapes_by_path(getattr(node, field))
            for path, shape in have.items():
                if shape is not None and shape != want.get(path):
                    raise ValueError(
                        f"{name}{where}.{field} has shape {shape} at {path!r},"
                        f" where params have {describe_shape(path, want)}: pass"
                        " a state of these params."
                    )
        return node

    map_states(check, state, plan)


def _check_one_run(where: str, state: Any) -> None:
    """Reject the state of an ensemble, whose members each have a count."""
    own = "count" if "count" in state._fields else None
    field = own if type(state) in MOMENTS else count_field(state)
    counts = jax.tree.leaves(getattr(state, field)) if field else []
    if shapes := [np.shape(x) for x in counts if np.shape(x)]:
        raise ValueError(
            f"the {type(state).__name__}{where} has a {field} of shape"
            f" {shapes[0]}, as in an ensemble under jax.vmap: carry the moments"
            " of each member apart, of jax.tree.map(lambda x: x[i], state) and"
            " its params, and stack the results."
        )
