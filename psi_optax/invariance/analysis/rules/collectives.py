"""Messages between the devices of a mesh, which `shard_map` makes explicit."""

from collections.abc import Callable

from psi_optax.invariance.analysis.linear_forms import (
    Form,
    move_axes,
    move_index_digits,
)
from psi_optax.invariance.analysis.mesh import join_over_mesh, split_over_mesh
from psi_optax.invariance.analysis.rules.reductions import without_lookups
from psi_optax.invariance.analysis.rules.table import Call, Rule, rule
from psi_optax.invariance.analysis.values import Value


def _over_one_axis(function: Callable[[Call, Value, str], Form]) -> Rule:
    """Make a rule of a function of one array and one whole mesh axis."""

    def checked(call: Call) -> list[Value]:
        names = call.params["axis_name"]
        names = (names,) if isinstance(names, str) else tuple(names)
        if len(names) != 1 or call.params.get("axis_index_groups") is not None:
            name = call.context.primitive
            return call.unknown(f"no rule for `{name}` over groups of devices")
        x = without_lookups(call.context, call.operands[0])
        return [x.derived(call.shape, function(call, x, names[0]))]

    return checked


@rule("all_gather", "all_gather_invariant", "all_gather_reduced")
@_over_one_axis
def _all_gather(call: Call, x: Value, name: str) -> Form:
    axis = call.params["all_gather_dimension"]
    if call.params["tiled"]:
        return join_over_mesh(x.form, axis, name, x.shape[axis])
    positions = {a: a + (a >= axis) for a in range(x.rank)}
    return join_over_mesh(move_axes(x.form, positions), axis, name, 1)


@rule("reduce_scatter")
@_over_one_axis
def _reduce_scatter(call: Call, x: Value, name: str) -> Form:
    axis, size = call.params["scatter_dimension"], call.params["axis_size"]
    form = call.context.require_uniform(x.form, name)
    form = split_over_mesh(
        call.context, form, axis, name, x.shape[axis] // size
    )
    if call.params["tiled"]:
        return form
    return move_axes(form, {a: a - (a > axis) for a in range(x.rank)})


@rule("all_to_all")
def _all_to_all(call: Call) -> list[Value]:
    if call.params["split_axis"] == call.params["concat_axis"]:
        return call.unknown("no rule for `all_to_all` along one axis")
    return _exchange(call)


@_over_one_axis
def _exchange(call: Call, x: Value, name: str) -> Form:
    split, joined = call.params["split_axis"], call.params["concat_axis"]
    form = move_index_digits(
        x.form, lambda d: d._replace(axis="from") if d.axis == name else d
    )
    form = split_over_mesh(call.context, form, split, name, call.shape[split])
    return join_over_mesh(form, joined, "from", x.shape[joined])


@rule("ppermute", "pbroadcast")
@_over_one_axis
def _permute(call: Call, x: Value, name: str) -> Form:
    return call.context.require_uniform(x.form, name)
