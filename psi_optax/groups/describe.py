"""A table of groups, with the groups that can never move."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax._text import format_table
from psi_optax.groups.frameworks import weights_of
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.groups.plan import GroupedLeaf, Plan, make_plan
from psi_optax.groups.types import Groups, Tree

_HEADER = ("path", "shape", "axes", "groups", "size", "tie", "radius", "notes")
_ZERO = "norm zero: never moves; initialize it, or give it None"
_SINGLE = "one element: has no direction, never moves; tie it, or give it None"
_NOT_FINITE = "non-finite"


def describe_groups(params: Tree, groups: Groups) -> str:
    """Return a table of parameters and their scale groups.

    Args:
        params: arrays, or `jax.ShapeDtypeStruct`s, whose radii are unknown; or
            a model, as for `find_groups`.
        groups: scale groups in any form.

    Returns:
        A line for each parameter: its path and shape; the axes along which
        its groups lie, "axis:n" for an axis cut into n blocks; the number of
        groups and of weights in each, tied leaves included; the tie; the
        least and greatest radius; notes on groups that are zero, of one
        element or non-finite, with a remedy.

    Raises:
        ValueError: groups do not fit params; see `ScaleGroup`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> params = {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}
        >>> print(describe_groups(params, {"kernel": ScaleGroup(0),
        ...                                "bias": None}))
        path    shape   axes      groups  size  tie  radius  notes
        bias    (2,)    ordinary
        kernel  (4, 2)  0         2       4          2
        2 groups in 1 of 2 parameters
    """
    params = weights_of(params)
    plan = make_plan(groups, params)
    radii = _radii(plan, params)
    grouped = {leaf.path: leaf for leaf in plan.leaves}
    rows: list[tuple[str, ...]] = [_HEADER]
    for entry in leaves_with_paths(params):
        if entry.is_placeholder:
            continue
        path, x = entry
        head = (path or "(root)", str(np.shape(x)))
        if path in grouped:
            rows.append(head + _cells(grouped[path], plan, radii))
        else:
            rows.append((*head, "ordinary", *[""] * 5))
    shapes = {leaf.name: leaf.group_shape for leaf in plan.leaves}
    total = sum(math.prod(shape) for shape in shapes.values())
    counted = f"{total} group{'s' * (total != 1)}"
    tail = f"{counted} in {len(grouped)} of {len(rows) - 1} parameters"
    return "\n".join([*format_table(rows), tail])


def describe_zero_groups(params: Tree, groups: Groups) -> dict[str, str]:
    """Return notes on parameters with groups of norm zero, by path.

    Shapes without values have no notes. Norms are computed only of leaves that
    contain a zero: computing all takes as long as finding the groups.
    """
    plan = make_plan(groups, params)
    notes = {}
    leaves = dict(leaves_with_paths(params))
    for name, part in plan.parts().items():
        here = [leaves[path] for path in part.paths]
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in here):
            continue
        if not any(np.any(np.asarray(x) == 0) for x in here):
            continue
        radius = _norms(part, params)[name]
        if np.any(radius == 0):
            note = _count(_ZERO, radius == 0)
            notes |= dict.fromkeys(part.paths, note)
    return notes


def _radii(plan: Plan, params: Tree) -> dict[str, np.ndarray]:
    leaves = jax.tree.leaves(params)
    if any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
        return {}
    return _norms(plan, params)


def _norms(plan: Plan, params: Tree) -> dict[str, np.ndarray]:
    w = plan.select(params)
    return {
        name: np.asarray(jnp.sqrt(square))
        for name, square in plan.dot(w, w).items()
    }


def _cells(
    leaf: GroupedLeaf, plan: Plan, radii: dict[str, np.ndarray]
) -> tuple[str, ...]:
    blocks = dict(leaf.group.blocks)
    axes = ", ".join(
        f"{axis}:{blocks[axis]}" if axis in blocks else str(axis)
        for axis in leaf.group.axes
    )
    radius = radii.get(leaf.name)
    return (
        axes or "()",
        str(math.prod(leaf.group_shape)),
        str(plan.sizes[leaf.name]),
        leaf.group.tie or "",
        "" if radius is None or not radius.size else _range(radius),
        "; ".join(_notes(leaf, plan, radius)),
    )


def _range(radius: np.ndarray) -> str:
    low, high = f"{radius.min():.4g}", f"{radius.max():.4g}"
    return low if low == high else f"{low} to {high}"


def _notes(
    leaf: GroupedLeaf, plan: Plan, radius: np.ndarray | None
) -> Iterator[str]:
    if leaf.name in plan.singletons:
        yield _SINGLE
    if radius is None:
        return
    for note, which in [
        (_ZERO, radius == 0),
        (_NOT_FINITE, ~np.isfinite(radius)),
    ]:
        if np.any(which):
            yield _count(note, which)


def _count(note: str, which: np.ndarray) -> str:
    return f"{np.sum(which)} of {which.size} {note}"
