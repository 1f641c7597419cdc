"""Groups for people: a table; and for optax: labels."""

import math
from typing import Any

import jax
import numpy as np

from psi_optax.geometry import norm
from psi_optax.groups.paths import leaves_with_paths, map_with_path
from psi_optax.groups.plan import GroupedLeaf, Plan, make_plan
from psi_optax.groups.types import Tree

_HEADER = ("path", "shape", "axes", "groups", "size", "tie", "radius", "notes")
_ZERO = "norm zero: never moves; initialize it, or give it None"
_SINGLE = "one element: has no direction, never moves; tie it, or give it None"
_NOT_FINITE = "not finite"


def group_labels(params: Tree, groups: Any) -> Tree:
    """Labels every parameter "scale" or "ordinary".

    For `optax.partition`, and for masks such as that of
    `optax.add_decayed_weights`: decay has no meaning for weights without scale.
    Hand these a function, `lambda tree: group_labels(tree, groups)`: a tree of
    labels has to be of the very type of the updates, and `nnx.Optimizer` shows
    trees of different types to `init` and to `update`.

    Args:
        params: arrays, or anything of their structure with shapes.
        groups: scale groups in any form.

    Returns:
        A tree like params.

    Raises:
        ValueError: groups do not fit params; see `ScaleGroup`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
        >>> group_labels(params, {"kernel": ScaleGroup(0), "bias": None})
        {'bias': 'ordinary', 'kernel': 'scale'}
    """
    grouped = {leaf.path for leaf in make_plan(groups, params).leaves}
    return map_with_path(
        lambda path, _: "scale" if path in grouped else "ordinary", params
    )


def describe_groups(params: Tree, groups: Any) -> str:
    """A table of what is grouped, and how.

    Args:
        params: arrays, or `jax.ShapeDtypeStruct`s, whose radii are unknown.
        groups: scale groups in any form.

    Returns:
        A line for each parameter: its path and shape; the axes along which
        its groups lie, "axis:n" for one cut into n blocks; how many groups
        there are and of how many weights, tied leaves included; the tie; the
        least and greatest radius; notes on groups of norm zero, of one
        element, or not finite, with what to do.

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
    plan = make_plan(groups, params)
    radii = _radii(plan, params)
    grouped = {leaf.path: leaf for leaf in plan.leaves}
    rows: list[tuple[str, ...]] = [_HEADER]
    for path, x in (
        entry for entry in leaves_with_paths(params) if not entry.is_placeholder
    ):
        head = (path or "(root)", str(np.shape(x)))
        if path in grouped:
            rows.append(head + _cells(grouped[path], plan, radii))
        else:
            rows.append((*head, "ordinary", *[""] * 5))
    shapes = {leaf.name: leaf.group_shape for leaf in plan.leaves}
    total = sum(math.prod(shape) for shape in shapes.values())
    counted = f"{total} group{'s' * (total != 1)}"
    tail = f"{counted} in {len(grouped)} of {len(rows) - 1} parameters"
    return "\n".join([*aligned(rows), tail])


def zero_notes(params: Tree, groups: Any) -> dict[str, str]:
    """What to say of parameters that have groups of norm zero, by path.

    Of shapes, nothing. Norms are formed only where there is a zero, as forming
    all of them takes as long as finding the groups.
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
        radius = np.asarray(norm(part, part.select(params))[name])
        if np.any(radius == 0):
            note = _count(_ZERO, radius == 0)
            notes |= dict.fromkeys(part.paths, note)
    return notes


def _radii(plan: Plan, params: Tree) -> dict[str, np.ndarray]:
    leaves = jax.tree.leaves(params)
    if any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
        return {}
    radii = norm(plan, plan.select(params))
    return {name: np.asarray(radius) for name, radius in radii.items()}


def _cells(leaf: GroupedLeaf, plan: Plan, radii) -> tuple[str, ...]:
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


def _notes(leaf: GroupedLeaf, plan: Plan, radius: np.ndarray | None):
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


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a table with columns of equal width."""
    widths = [
        max(len(cell) for cell in column) for column in zip(*rows, strict=True)
    ]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
