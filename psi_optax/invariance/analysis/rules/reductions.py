"""Sums, extrema and other functions along axes of one array."""

import math
from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.index_digits import (
    Axis,
)
from psi_optax.invariance.analysis.linear_forms import (
    move_axes,
    moved_axes,
    remaining_axes,
    times,
)
from psi_optax.invariance.analysis.rules.table import Call, rule, stack
from psi_optax.invariance.analysis.values import (
    Moment,
    Shape,
    Value,
    combined_dependencies,
)


def reduced(
    context: Context, value: Value, axes: Collection[Axis], shape: Shape
) -> Value:
    """Return a reduction that scales as the elements do, if these are alike.

    Args:
        context: the analysis.
        value: the array.
        axes: the axes that are reduced, of the array and of a mesh.
        shape: the shape of the result.
    """
    over_mesh = {axis for axis in axes if isinstance(axis, str)}
    if over_mesh:
        value = without_lookups(context, value)
    form = value.form
    for axis in axes:
        form = context.require_uniform(form, axis)
    positions = remaining_axes(value.rank, axes)
    constant_axes = moved_axes(value.constant_axes, positions) | over_mesh
    result = value.derived(shape, move_axes(form, positions))
    return result.replace(constant_axes=constant_axes)


def without_lookups(context: Context, x: Value) -> Value:
    """Require an array not to scale by indices that devices look up."""
    form = context.equations.reduce(x.form)
    lookups = [d for term in form for d in term.all_digits if d.is_lookup]
    form = context.require_uniform_in(form, lookups, "lookups on many devices")
    return x.replace(form=form)


# -- sums and products -------------------------------------------------------


@rule("reduce_sum", keeps_parts=True)
def _sum(call: Call) -> list[Value]:
    axes = tuple(call.params["axes"])
    return [_sum_by_parts(call.context, call.operands[0], axes, call.shape)]


@rule("psum", "psum_invariant", "pmax", "pmin", keeps_parts=True)
def _over_mesh(call: Call) -> list[Value]:
    context, axes = call.context, tuple(call.params["axes"])
    if call.params.get("axis_index_groups") is not None:
        return call.unknown("no rule for a sum over groups of a mesh axis")
    names = {axis for axis in axes if isinstance(axis, str)}
    reduce, operands = _sum_by_parts, call.operands
    # An axis of a `shard_map` around the whole loss has an unknown length.
    is_sum = context.primitive not in ("pmax", "pmin")
    if not is_sum or not names <= context.mesh.keys():
        reduce, operands = reduced, map(context.resolve_offsets, operands)
    return [
        reduce(context, x, axes, shape)
        for x, shape in zip(operands, call.shapes, strict=True)
    ]


def _sum_by_parts(
    context: Context, x: Value, axes: tuple[Axis, ...], shape: Shape
) -> Value:
    if not x.parts or x.stack_axis in axes:
        return _summed(context, context.merge_parts(x), axes, shape)
    positions: Mapping[Any, Axis] = remaining_axes(x.rank, (x.stack_axis,))
    own = tuple(positions.get(axis, axis) for axis in axes)
    at = remaining_axes(x.rank, axes)[x.stack_axis]
    one = (*shape[:at], *shape[at + 1 :])
    parts = [_summed(context, part, own, one) for part in x.parts]
    return stack(context, parts, at, shape)


def _summed(
    context: Context, x: Value, axes: tuple[Axis, ...], shape: Shape
) -> Value:
    """Return the sum along some axes, which may be part of a mean."""
    x = context.resolve_guards(x)
    total = reduced(context, x, axes, shape)
    lengths: dict[Axis, int] = {**dict(enumerate(x.shape)), **context.mesh}
    count = math.prod(lengths[a] for a in axes)
    moment = x.moment
    if moment is None:
        positions = tuple(range(x.rank))
        moment = Moment(x.identity, frozenset(), 1, 1, 1, positions)
    own: set[Axis] = {a for a, b in enumerate(moment.positions) if b in axes}
    own |= context.mesh.keys() & set(axes)
    if moment.outer != 1 or len(own) != len(axes):
        return reduced(context, context.resolve_offsets(x), axes, shape)
    positions = remaining_axes(x.rank, axes)
    moment = moment._replace(
        axes=moment.axes | own,
        count=moment.count * count,
        positions=tuple(
            None if b is None else positions.get(b) for b in moment.positions
        ),
    )
    return total.replace(
        moment=moment,
        const=None if x.const is None else x.const * count,
        offsets=x.offsets,
        nonzero=2 if x.nonzero and moment.inner == 2 else 0,
    )


@rule("reduce_prod")
def _product(call: Call) -> list[Value]:
    [x], axes = call.operands, tuple(call.params["axes"])
    count = math.prod(x.shape[a] for a in axes)
    product = reduced(call.context, x, axes, call.shape)
    return [product.replace(form=times(product.form, Fraction(count)))]


# -- extrema and order -------------------------------------------------------


@rule("reduce_max", "reduce_min")
def _extremum(call: Call) -> list[Value]:
    [x] = call.operands
    found = reduced(call.context, x, call.params["axes"], call.shape)
    return [found.replace(const=x.const)]


@rule("argmax", "argmin")
def _arg(call: Call) -> list[Value]:
    [x], axes = call.operands, tuple(call.params["axes"])
    chosen = reduced(call.context, x, axes, call.shape)
    return [chosen.replace(form={}, is_zero_or_inf=False, depends_on=0)]


@rule("sort")
def _sort(call: Call) -> list[Value]:
    context, axis = call.context, call.params["dimension"]
    bits = combined_dependencies(call.operands)
    return [
        x.derived(shape, context.require_uniform(x.form, axis)).replace(
            depends_on=bits
        )
        for x, shape in zip(call.operands, call.shapes, strict=True)
    ]


@rule("top_k", "approx_top_k")
def _top_k(call: Call) -> list[Value]:
    [x], params = call.operands, call.params
    axis = params.get("axis", params.get("reduction_dimension", -1))
    form = call.context.require_uniform(x.form, axis % x.rank)
    values, indices = call.shapes
    return [Value(values, form, depends_on=x.depends_on), Value(indices)]


# -- functions along an axis -------------------------------------------------


@rule("fft")
def _fft(call: Call) -> list[Value]:
    [x] = call.operands
    form = x.form
    for axis in range(x.rank - len(call.params["fft_lengths"]), x.rank):
        form = call.context.require_uniform(form, axis)
    return [x.derived(call.shape, form)]


@rule("cumsum", "cummax", "cummin")
def _cumulative(call: Call) -> list[Value]:
    [x] = call.operands
    form = call.context.require_uniform(x.form, call.params["axis"])
    return [x.derived(call.shape, form)]


# -- windows -----------------------------------------------------------------


@rule(
    "reduce_window_sum",
    "reduce_window_max",
    "reduce_window_min",
    keeps_offsets=True,
)
def _window(call: Call) -> list[Value]:
    context, x = call.context, call.operands[0].without_moment()
    axes = _window_axes(call.params)
    kept = tuple(o for o in x.offsets if axes <= o.constant_axes)
    is_padded = any(any(pair) for pair in call.params["padding"])
    is_dilated = any(n != 1 for n in call.params["base_dilation"])
    is_sum = context.primitive == "reduce_window_sum"
    if is_dilated or (is_padded and is_sum):
        kept = ()
    others = tuple(o for o in x.offsets if o not in kept)
    x = context.resolve_offsets(x.replace(offsets=others))
    form = x.form
    for axis in axes:
        form = context.require_uniform(form, axis)
    return [x.derived(call.shape, form).replace(offsets=kept)]


@rule("select_and_gather_add", "select_and_scatter_add")
def _selected_by_window(call: Call) -> list[Value]:
    """Move tangents to, or cotangents from, the extremum of each window."""
    context, [moving, compared] = call.context, call.operands
    form = moving.form
    for axis in _window_axes(call.params):
        form = context.require_uniform(form, axis)
        context.require_uniform(compared.form, axis)
    bits = combined_dependencies(call.operands)
    return [moving.derived(call.shape, form).replace(depends_on=bits)]


def _window_axes(params: Mapping[str, Any]) -> set[int]:
    """Return the axes along which a window is more than its own element."""
    sizes = params["window_dimensions"]
    dilations = params.get("base_dilation", (1,) * len(sizes))
    return {
        axis
        for axis, size in enumerate(sizes)
        if size != 1
        or params["window_strides"][axis] != 1
        or dilations[axis] != 1
        or any(params["padding"][axis])
    }
