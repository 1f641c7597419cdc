"""Leaves as matrices that have a row for each group."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from psi_optax.groups import GroupedLeaf, Plan


class _Layout(NamedTuple):
    """Positions of a leaf's axes in its matrix, with blocked axes split."""

    split: tuple[int, ...]
    order: tuple[int, ...]
    rows: int


def to_rows(leaf: GroupedLeaf, x: jax.Array) -> jax.Array:
    """Return a leaf as a matrix, a row for each group.

    Rows are in the order of the group shape.
    """
    layout = _layout(leaf)
    split = jnp.transpose(x.reshape(layout.split), layout.order)
    return split.reshape(layout.rows, -1)


def from_rows(leaf: GroupedLeaf, matrix: jax.Array) -> jax.Array:
    """Return a matrix with a row for each group in the shape of the leaf."""
    layout = _layout(leaf)
    moved = matrix.reshape([layout.split[axis] for axis in layout.order])
    back = [layout.order.index(axis) for axis in range(len(layout.order))]
    return jnp.transpose(moved, back).reshape(leaf.shape)


def _layout(leaf: GroupedLeaf) -> _Layout:
    blocks = dict(leaf.group.blocks)
    split: list[int] = []
    of_rows: list[int] = []
    inside: list[int] = []
    for axis, length in enumerate(leaf.shape):
        if axis in blocks:
            of_rows.append(len(split))
            split.append(blocks[axis])
            length //= blocks[axis]
        (inside if axis in leaf.group.axes else of_rows).append(len(split))
        split.append(length)
    rows = math.prod(split[axis] for axis in of_rows)
    return _Layout(tuple(split), (*of_rows, *inside), rows)


def check_whole(plan: Plan, function: str) -> None:
    """Require that no leaf is tied to another or sharded by name.

    Raises:
        NotImplementedError: a leaf is tied to another, or has an `axis_name`.
    """
    names = [leaf.name for leaf in plan.leaves]
    for leaf in plan.leaves:
        if leaf.group.axis_name is not None:
            raise NotImplementedError(
                f"{leaf}: `{function}` needs the whole matrix on each device,"
                " and axis_name says that it is sharded inside of shard_map."
                " Gather the parameter and state its group without axis_name."
            )
        if names.count(leaf.name) > 1:
            raise NotImplementedError(
                f"{leaf}: `{function}` needs one matrix, and a group that is"
                " tied lies in several parameters. State groups without ties,"
                " or use `unit`, `centered` or `standardized`."
            )
