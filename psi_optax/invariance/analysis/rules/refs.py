"""Mutable arrays, `jax.Ref`s: variables that are read and written."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.rules.elementwise import constant
from psi_optax.invariance.analysis.rules.sums import add
from psi_optax.invariance.analysis.rules.table import RULES, Call, rule
from psi_optax.invariance.analysis.values import Ref, Shape, Value


class Box(NamedTuple):
    """A box in an array.

    Attributes:
        starts: the first index along each axis.
        sizes: the length along each axis.
        single: the axes with one index, which the array of the box lacks.
    """

    starts: tuple[Value, ...]
    sizes: tuple[int, ...]
    single: tuple[int, ...]

    def is_all_of(self, x: Value) -> bool:
        """Check that the box is a whole array."""
        return self.sizes == x.shape and not self.single


@rule("new_ref", keeps_offsets=True)
def _new_ref(call: Call) -> list[Ref]:
    [content] = call.operands
    return [Ref(content)]


@rule("freeze", keeps_offsets=True)
def _freeze(call: Call) -> list[Value]:
    return [call.operands[0].content]


@rule("get", keeps_offsets=True)
def _get(call: Call) -> list[Value]:
    ref, *index = call.operands
    box = _box(ref, call.params["tree"], index)
    if box is None:
        return call.unknown(_NO_BOX)
    return [_read(call.context, ref.content, box)]


@rule("swap", keeps_offsets=True)
def _swap(call: Call) -> list[Value]:
    ref, new, *index = call.operands
    box = _box(ref, call.params["tree"], index)
    if box is None:
        return call.unknown(_NO_BOX)
    old = _read(call.context, ref.content, box)
    ref.content = _written(call.context, ref.content, new, box)
    return [old]


@rule("addupdate", keeps_offsets=True)
def _add_update(call: Call) -> list[Value]:
    ref, more, *index = call.operands
    box = _box(ref, call.params["tree"], index)
    if box is None:
        return call.unknown(_NO_BOX)
    x = ref.content
    if box.is_all_of(x):
        [ref.content] = add(call.on(x, more, shape=x.shape))
    else:
        # As in a write, the terms have to scale as the rest does.
        ref.content = _written(call.context, x, more, box)
    return []


_NO_BOX = "elements of a `jax.Ref` picked by an array or a stride"


def _box(ref: Ref, tree: Any, index: Sequence[Value]) -> Box | None:
    """Return the box of a ref that an index picks; None if it is no box."""
    shape = ref.content.shape
    indexers = jax.tree.unflatten(tree, index)
    if not indexers:
        return Box(tuple(constant(0, ()) for _ in shape), shape, ())
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
            is_value = isinstance(one.start, Value)
            starts.append(one.start if is_value else constant(one.start, ()))
            sizes.append(one.size)
        else:
            return None
    return Box(tuple(starts), tuple(sizes), tuple(single))


def _read(context: Context, x: Value, box: Box) -> Value:
    """Return the elements in a box."""
    if box.is_all_of(x):
        return x
    starts, sizes, single = box
    params = {"slice_sizes": sizes}
    part = _apply("dynamic_slice", Call(context, params, [x, *starts], [sizes]))
    shape = tuple(n for a, n in enumerate(sizes) if a not in single)
    params = {"dimensions": single}
    return _apply("squeeze", Call(context, params, [part], [shape]))


def _written(context: Context, x: Value, new: Value, box: Box) -> Value:
    """Return an array with the elements in a box replaced."""
    if box.is_all_of(x):
        return new
    starts, sizes, single = box
    kept = [axis for axis in range(len(sizes)) if axis not in single]
    params = {"broadcast_dimensions": kept}
    part = _apply("broadcast_in_dim", Call(context, params, [new], [sizes]))
    operands = [x, part, *starts]
    shapes: list[Shape] = [x.shape]
    return _apply("dynamic_update_slice", Call(context, {}, operands, shapes))


def _apply(primitive: str, call: Call) -> Value:
    """Apply the rule of a primitive with one result."""
    [result] = RULES[primitive](call)
    return result
