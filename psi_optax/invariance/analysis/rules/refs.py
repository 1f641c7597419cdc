"""Mutable arrays: variables that are read and written."""

from typing import Any, NamedTuple

import jax

from psi_optax.invariance.analysis.rules.elementwise import added, constant
from psi_optax.invariance.analysis.rules.table import RULES, rule, unknown
from psi_optax.invariance.analysis.values import Cell, Context, Value

Shape = tuple[int, ...]


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

    def is_all_of(self, x: Value) -> bool:
        """Return whether the box is a whole array."""
        return self.sizes == x.shape and not self.single


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
        return unknown(context, operands, _NO_BOX, shapes)
    return [_read(context, cell.content, part)]


@rule("swap", keeps_offsets=True)
def _swap(context, params, operands, shapes):
    cell, new, *index = operands
    part = _part(cell, params["tree"], index)
    if part is None:
        return unknown(context, operands, _NO_BOX, shapes)
    old = _read(context, cell.content, part)
    cell.content = _written(context, cell.content, new, part)
    return [old]


@rule("addupdate", keeps_offsets=True)
def _addupdate(context, params, operands, shapes):
    cell, more, *index = operands
    part = _part(cell, params["tree"], index)
    if part is None:
        return unknown(context, operands, _NO_BOX, shapes)
    if part.is_all_of(cell.content):
        cell.content = added(context, cell.content, more)
    else:
        # As in a write, what is added has to scale as the rest does.
        cell.content = _written(context, cell.content, more, part)
    return []


_NO_BOX = "elements of a `jax.Ref` picked by an array or a stride"


def _part(cell: Cell, tree: Any, index: list[Value]) -> Part | None:
    """Return the part of a cell that an index picks; None if it is no box."""
    shape = cell.content.shape
    indexers = jax.tree.unflatten(tree, index)
    if not indexers:
        return Part(tuple(constant(0, ()) for _ in shape), shape, ())
    [indices, *more] = [getattr(x, "indices", None) for x in indexers]
    if more or indices is None or len(indices) != len(shape):
        return None
    starts, sizes, single = [], [], []
    for axis, one in enumerate(indices):
        if isinstance(one, Value) and not one.shape:
            single.append(axis)
            starts.append(one)
            sizes.append(1)
        elif getattr(one, "stride", None) == 1 and isinstance(one.size, int):
            begin = one.start
            known = not isinstance(begin, Value)
            starts.append(constant(begin, ()) if known else begin)
            sizes.append(one.size)
        else:
            return None
    return Part(tuple(starts), tuple(sizes), tuple(single))


def _read(context: Context, x: Value, part: Part) -> Value:
    if part.is_all_of(x):
        return x
    starts, sizes, single = part
    box = _apply(
        context, "dynamic_slice", [x, *starts], sizes, slice_sizes=sizes
    )
    shape = tuple(n for a, n in enumerate(sizes) if a not in single)
    return _apply(context, "squeeze", [box], shape, dimensions=single)


def _written(context: Context, x: Value, new: Value, part: Part) -> Value:
    if part.is_all_of(x):
        return new
    starts, sizes, single = part
    kept = [axis for axis in range(len(sizes)) if axis not in single]
    box = _apply(
        context, "broadcast_in_dim", [new], sizes, broadcast_dimensions=kept
    )
    operands = [x, box, *starts]
    return _apply(context, "dynamic_update_slice", operands, x.shape)


def _apply(
    context: Context, name: str, operands: list[Value], shape: Shape, **params
) -> Value:
    """Apply the rule of a primitive with one result."""
    [result] = RULES[name](context, params, operands, [shape])
    return result
