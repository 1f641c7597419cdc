"""Messages between the devices of a mesh, which `shard_map` makes explicit."""

from collections.abc import Callable, Mapping
from typing import Any

from psi_optax.invariance.analysis.linear_forms import (
    Digit,
    Form,
    move_axes,
    move_digits,
)
from psi_optax.invariance.analysis.rules.reductions import without_lookups
from psi_optax.invariance.analysis.rules.table import Rule, rule, unknown
from psi_optax.invariance.analysis.values import Context, Value


def split_over(
    context: Context, form: Form, axis: int, name: str, local: int
) -> Form:
    """Return the form of the part of an array that one device has.

    Args:
        context: the equations.
        form: of the whole array.
        axis: the axis that is divided.
        name: the mesh axis that it is divided over.
        local: the length that is left.
    """
    reason = context.reason("shape", "shards of a scaled axis")
    form = context.equations.cut(form, axis, local, reason)
    return move_digits(
        context.equations.reduce(form),
        lambda d: (
            Digit(name, d.stride // local, d.count)
            if d.axis == axis and d.stride >= local
            else d
        ),
    )


def join_over(form: Form, axis: int, name: str, local: int) -> Form:
    """Return the form of the whole array again; see `split_over`."""
    return move_digits(
        form,
        lambda d: (
            Digit(axis, d.stride * local, d.count) if d.axis == name else d
        ),
    )


def _names(params: Mapping[str, Any]) -> tuple[str, ...]:
    name = params["axis_name"]
    return (name,) if isinstance(name, str) else tuple(name)


_Follow = Callable[[Context, Mapping[str, Any], Value, str], Form]


def _of_one_name(function: _Follow) -> Rule:
    """Make a rule of a function of one array and one whole mesh axis."""

    def guarded(
        context: Context, params: Mapping[str, Any], operands: list, shapes: Any
    ) -> list[Any]:
        names = _names(params)
        if len(names) != 1 or params.get("axis_index_groups") is not None:
            text = f"no rule for `{context.primitive}` over groups of devices"
            return unknown(context, operands, text, shapes)
        [x] = operands
        x = without_lookups(context, x)
        form = function(context, params, x, names[0])
        return [
            Value(
                shapes[0],
                form,
                is_zero_or_inf=x.is_zero_or_inf,
                depends_on=x.depends_on,
            )
        ]

    return guarded


@rule("all_gather", "all_gather_invariant", "all_gather_reduced")
@_of_one_name
def _all_gather(context, params, x, name):
    axis, form = params["all_gather_dimension"], x.form
    if params["tiled"]:
        return join_over(form, axis, name, x.shape[axis])
    place = {a: a + (a >= axis) for a in range(x.rank)}
    return join_over(move_axes(form, place), axis, name, 1)


@rule("reduce_scatter")
@_of_one_name
def _reduce_scatter(context, params, x, name):
    axis, size = params["scatter_dimension"], params["axis_size"]
    form = context.require_uniform(x.form, name)
    form = split_over(context, form, axis, name, x.shape[axis] // size)
    if params["tiled"]:
        return form
    return move_axes(form, {a: a - (a > axis) for a in range(x.rank)})


@rule("all_to_all")
def _all_to_all(context, params, operands, shapes):
    [x], split, joined = operands, params["split_axis"], params["concat_axis"]
    size = x.shape[split] // shapes[0][split] if split != joined else 0

    @_of_one_name
    def exchanged(context, params, x, name):
        form = move_digits(
            x.form, lambda d: d._replace(axis="from") if d.axis == name else d
        )
        form = split_over(context, form, split, name, shapes[0][split])
        return join_over(form, joined, "from", x.shape[joined])

    if not size:
        text = "no rule for `all_to_all` along one axis"
        return unknown(context, operands, text, shapes)
    return exchanged(context, params, operands, shapes)


@rule("ppermute", "pbroadcast")
@_of_one_name
def _ppermute(context, params, x, name):
    return context.require_uniform(x.form, name)
