"""Mutable arrays: variables that are read and written."""

from typing import Any, NamedTuple

import jax

from psi_optax.invariance.rules.elementwise import added, constant
from psi_optax.invariance.rules.table import RULES, rule, unknown
from psi_optax.invariance.values import Cell, Context, Value


class Part(NamedTuple):
    """A box in an array, one element long along some axes.

    Attributes:
        starts: where it begins along each axis.
        sizes: its length along each axis.
        single: the axes along which it is an index, which its array lacks.
    """

    starts: tuple[Value, ...]
    sizes: tuple[int, ...]
    single: tuple[int, ...]


@rule("new_ref", keeps_offsets=True)
def _new_ref(context, params, operands, shapes):
    [content] = operands
    return [Cell(content)]


@rule("freeze", keeps_offsets=True)
def _freeze(context, params, operands, shapes):
    return [operands[0].content]


@rule("get", keeps_offsets=True)
def _get(context, params, operands, shapes):
    cell, *index = operands
    part = _part(cell, params["tree"], index)
    if part is None:
        return unknown(context, operands, "a part of a `jax.Ref`", shapes)
    return [_read(context, cell.content, part)]


@rule("swap", keeps_offsets=True)
def _swap(context, params, operands, shapes):
    cell, new, *index = operands
    part = _part(cell, params["tree"], index)
    if part is None:
        return unknown(context, operands, "a part of a `jax.Ref`", shapes)
    old = _read(context, cell.content, part)
    if part == ():
        cell.content = new
    else:
        _write(context, cell, new, part)
    return [old]


@rule("addupdate", keeps_offsets=True)
def _addupdate(context, params, operands, shapes):
    cell, more, *index = operands
    part = _part(cell, params["tree"], index)
    if part is None:
        return unknown(context, operands, "a part of a `jax.Ref`", shapes)
    if part == ():
        cell.content = added(context, cell.content, more)
    else:
        # A part that scales as the rest, and as what is added to it.
        _write(context, cell, more, part)
    return []


def _part(cell: Cell, tree: Any, index: list[Value]) -> Part | tuple[()] | None:
    """Return a part of a cell; () for the whole of it, None for any other."""
    indexers = jax.tree.unflatten(tree, index)
    if not indexers:
        return ()
    [indices, *more] = [getattr(x, "indices", None) for x in indexers]
    if more or indices is None or len(indices) != len(cell.content.shape):
        return None
    starts, sizes, single = [], [], []
    for axis, one in enumerate(indices):
        if isinstance(one, Value) and not one.shape:
            single.append(axis)
            starts.append(one)
            sizes.append(1)
        elif getattr(one, "stride", None) == 1 and isinstance(one.size, int):
            starts.append(_number(one.start))
            sizes.append(one.size)
        else:
            return None
    return Part(tuple(starts), tuple(sizes), tuple(single))


def _number(start: int | Value) -> Value:
    return start if isinstance(start, Value) else constant(start, ())


def _read(context: Context, x: Value, part: Part | tuple[()]) -> Value:
    if part == ():
        return x
    starts, sizes, single = part
    box = _apply(context, "dynamic_slice", [x, *starts], sizes, slice_sizes=sizes)
    shape = tuple(n for a, n in enumerate(sizes) if a not in single)
    return _apply(context, "squeeze", [box], shape, dimensions=single)


def _write(context: Context, cell: Cell, new: Value, part: Part) -> None:
    starts, sizes, single = part
    kept = [axis for axis in range(len(sizes)) if axis not in single]
    box = _apply(
        context,
        "broadcast_in_dim",
        [new],
        sizes,
        broadcast_dimensions=kept,
    )
    operands = [cell.content, box, *starts]
    cell.content = _apply(
        context, "dynamic_update_slice", operands, cell.content.shape
    )


def _apply(
    context: Context, name: str, operands: list[Value], shape, **params
) -> Value:
    """Apply the rule of a primitive with one result."""
    [result] = RULES[name](context, params, operands, [shape])
    return result
