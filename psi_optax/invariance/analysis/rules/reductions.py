"""Sums, extrema and the like along axes of one array."""

import math
from fractions import Fraction

from psi_optax.invariance.analysis.linear_forms import (
    Axis,
    move_axes,
    moved_axes,
    times,
)
from psi_optax.invariance.analysis.rules.table import (
    dependencies,
    rule,
    stack,
    unknown,
)
from psi_optax.invariance.analysis.values import Context, Moment, Offset, Value


def without(value: Value, axes) -> dict[int, int]:
    """Where the other axes are when some are gone."""
    kept = [a for a in range(value.rank) if a not in axes]
    return {a: place for place, a in enumerate(kept)}


def reduced(context: Context, value: Value, axes, shape) -> Value:
    """A reduction that scales as the elements do, if they do so alike."""
    if over_mesh := {axis for axis in axes if isinstance(axis, str)}:
        value = without_lookups(context, value)
    form = value.form
    for axis in axes:
        form = context.require_uniform(form, axis)
    place = without(value, axes)
    return Value(
        shape,
        move_axes(form, place),
        is_zero_or_inf=value.is_zero_or_inf,
        constant_axes=moved_axes(value.constant_axes, place) | over_mesh,
        depends_on=value.depends_on,
    )


@rule("reduce_max", "reduce_min")
def _extremum(context, params, operands, shapes):
    [x] = operands
    return [
        reduced(context, x, params["axes"], shapes[0]).replace(const=x.const)
    ]


@rule("reduce_sum", keeps_parts=True)
def _sum(context, params, operands, shapes):
    axes = tuple(params["axes"])
    return [_summed_by_parts(context, operands[0], axes, shapes[0])]


def _summed_by_parts(context: Context, x: Value, axes, shape) -> Value:
    if not x.parts or x.stack_axis in axes:
        return summed(context, context.merge_parts(x), axes, shape)
    place = without(x, (x.stack_axis,))
    own = tuple(place.get(axis, axis) for axis in axes)
    at = without(x, axes)[x.stack_axis]
    one = (*shape[:at], *shape[at + 1 :])
    parts = [summed(context, part, own, one) for part in x.parts]
    return stack(context, parts, at, shape)


def summed(context: Context, x: Value, axes, shape) -> Value:
    """The sum along some axes, which may be part of a mean."""
    x = context.resolve_guards(x)
    total = reduced(context, x, axes, shape)
    lengths = dict(enumerate(x.shape)) | context.mesh
    count = math.prod(lengths[a] for a in axes)
    place = without(x, axes)
    identity = tuple(range(x.rank))
    moment = x.moment
    if moment is None:
        moment = Moment(x.identity, frozenset(), 1, 1, 1, identity)
    here: set[Axis] = {a for a, b in enumerate(moment.place) if b in axes}
    here |= context.mesh.keys() & set(axes)
    if moment.outer != 1 or len(here) != len(axes):
        return reduced(context, context.resolve_offsets(x), axes, shape)
    moment = moment._replace(
        axes=moment.axes | here,
        count=moment.count * count,
        place=tuple(None if b is None else place.get(b) for b in moment.place),
    )
    const = None if x.const is None else x.const * count
    return total.replace(
        moment=moment,
        const=const,
        offsets=x.offsets,
        nonzero=2 if x.nonzero and moment.inner == 2 else 0,
    )


@rule("reduce_prod")
def _product(context, params, operands, shapes):
    [x] = operands
    axes = tuple(params["axes"])
    count = math.prod(x.shape[a] for a in axes)
    product = reduced(context, x, axes, shapes[0])
    return [product.replace(form=times(product.form, Fraction(count)))]


@rule("argmax", "argmin")
def _arg(context, params, operands, shapes):
    [x] = operands
    chosen = reduced(context, x, tuple(params["axes"]), shapes[0])
    return [chosen.replace(form={}, is_zero_or_inf=False, depends_on=0)]


@rule("fft")
def _fft(context, params, operands, shapes):
    [x] = operands
    form = x.form
    for axis in range(x.rank - len(params["fft_lengths"]), x.rank):
        form = context.require_uniform(form, axis)
    return [
        Value(
            shapes[0],
            form,
            is_zero_or_inf=x.is_zero_or_inf,
            depends_on=x.depends_on,
        )
    ]


@rule("cumsum", "cummax", "cummin")
def _cumulative(context, params, operands, shapes):
    [x] = operands
    form = context.require_uniform(x.form, params["axis"])
    return [
        Value(
            shapes[0],
            form,
            is_zero_or_inf=x.is_zero_or_inf,
            depends_on=x.depends_on,
        )
    ]


@rule("sort")
def _sort(context, params, operands, shapes):
    axis = params["dimension"]
    return [
        Value(
            shape,
            context.require_uniform(x.form, axis),
            is_zero_or_inf=x.is_zero_or_inf,
            depends_on=dependencies(operands),
        )
        for x, shape in zip(operands, shapes, strict=True)
    ]


@rule("top_k", "approx_top_k")
def _top_k(context, params, operands, shapes):
    [x] = operands
    axis = params.get("axis", params.get("reduction_dimension", -1))
    form = context.require_uniform(x.form, axis % x.rank)
    return [Value(shapes[0], form, depends_on=x.depends_on), Value(shapes[1])]


@rule(
    "reduce_window_sum",
    "reduce_window_max",
    "reduce_window_min",
    keeps_offsets=True,
)
def _window(context, params, operands, shapes):
    [x] = operands
    x = x.without_moment()
    moved = _moved_by_window(params)
    kept = [offset for offset in x.offsets if moved <= offset.constant_axes]
    padded = any(any(pair) for pair in params["padding"])
    dilated = any(n != 1 for n in params["base_dilation"])
    if dilated or (padded and context.primitive == "reduce_window_sum"):
        kept = []
    x = context.resolve_offsets(
        x.replace(offsets=tuple(o for o in x.offsets if o not in kept))
    )
    form = x.form
    for axis in moved:
        form = context.require_uniform(form, axis)
    return [
        Value(
            shapes[0],
            form,
            is_zero_or_inf=x.is_zero_or_inf,
            depends_on=x.depends_on,
            offsets=tuple(kept),
        )
    ]


@rule("select_and_gather_add", "select_and_scatter_add")
def _selected_by_window(context, params, operands, shapes):
    """Move tangents to, or cotangents from, the extremum of each window."""
    moving, compared = operands
    form = moving.form
    for axis in _moved_by_window(params):
        form = context.require_uniform(form, axis)
        context.require_uniform(compared.form, axis)
    return [
        Value(
            shapes[0],
            form,
            is_zero_or_inf=moving.is_zero_or_inf,
            depends_on=dependencies(operands),
        )
    ]


def _moved_by_window(params) -> set[int]:
    """The axes along which a window is more than one element at its place."""
    undilated = (1,) * len(params["window_dimensions"])
    dilations = params.get("base_dilation", undilated)
    return {
        axis
        for axis, size in enumerate(params["window_dimensions"])
        if size != 1
        or params["window_strides"][axis] != 1
        or dilations[axis] != 1
        or any(params["padding"][axis])
    }


@rule("psum", "psum_invariant", "pmax", "pmin", keeps_parts=True)
def _over_mesh(context, params, operands, shapes):
    axes = tuple(params["axes"])
    if params.get("axis_index_groups") is not None:
        text = "no rule for a sum over groups of a mesh axis"
        return unknown(context, operands, text, shapes)
    names = {axis for axis in axes if isinstance(axis, str)}
    # An axis of a `shard_map` around the whole loss has an unknown length.
    means = names <= context.mesh.keys()
    if context.primitive in ("pmax", "pmin") or not means:
        operands = [context.resolve_offsets(x) for x in operands]
        return [
            reduced(context, x, axes, shape)
            for x, shape in zip(operands, shapes, strict=True)
        ]
    return [
        _summed_by_parts(context, x, axes, shape)
        for x, shape in zip(operands, shapes, strict=True)
    ]


def without_lookups(context: Context, x: Value) -> Value:
    """What another device may look up otherwise has to be uniform."""
    form = context.equations.reduce(x.form)
    lookups = [d for term in form for d in term.all_digits if d.is_lookup]
    reason = context.reason("shape", "lookups on many devices")
    context.equations.require_uniform(form, lookups, reason)
    return x.replace(form=context.equations.reduce(form))


def moved_offsets(value: Value, place: dict[int, int]) -> tuple[Offset, ...]:
    """The offsets of an array whose axes have moved."""
    return tuple(
        offset._replace(
            constant_axes=moved_axes(offset.constant_axes, place),
            guard=offset.guard and (offset.guard.moved(place) or LOST),
        )
        for offset in value.offsets
    )


# The guard of nothing that could be divided by.
LOST = Moment(-1, frozenset(), 2, 1, 1, ())
