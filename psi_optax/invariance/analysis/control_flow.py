"""Loops, branches and maps over the devices of a mesh."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from psi_optax.invariance import jaxprs
from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.index_digits import (
    Digit,
)
from psi_optax.invariance.analysis.linear_forms import (
    digits_of,
    minus,
    move_index_digits,
    moved_axes,
)
from psi_optax.invariance.analysis.liveness import (
    Needed,
    live_refs_of_loop,
    variables_of,
)
from psi_optax.invariance.analysis.mesh import gather, shard
from psi_optax.invariance.analysis.rules.table import Call
from psi_optax.invariance.analysis.values import (
    Operand,
    Ref,
    Value,
    combined_dependencies,
)

# The interpreter's `run`, on context, program, operands and needed effects.
Run = Callable[[Context, Any, Sequence[Operand], Needed | None], list[Any]]


def _resolved(context: Context, operands: Sequence[Operand]) -> list[Any]:
    return [
        x if isinstance(x, Ref) else context.resolve_offsets(x)
        for x in operands
    ]


def _refs(operands: Sequence[Operand]) -> list[Ref]:
    return list(dict.fromkeys(x for x in operands if isinstance(x, Ref)))


def _store(refs: Sequence[Ref], values: Sequence[Value]) -> None:
    for ref, value in zip(refs, values, strict=True):
        ref.content = value


# -- loops -------------------------------------------------------------------


def _loop(
    run: Run,
    context: Context,
    jaxpr: Any,
    operands: tuple[Sequence[Operand], Sequence[Value], Sequence[Value]],
    needed: Needed,
) -> tuple[list[Value], list[Any]]:
    """Return the values that a loop carries, and the results of its body.

    The form of a carried value has to be the same after one turn. Then it is
    the same after any number of them. A carry that begins with zeros may scale
    in any way, which the body decides: its form is unknown. The content of refs
    is carried as well.

    Args:
        run: the interpreter.
        context: the analysis.
        jaxpr: the body.
        operands: the operands that are fixed, carried, and sliced.
        needed: the effects of all turns that matter.
    """
    fixed, carry, sliced = operands
    refs = _refs([*fixed, *carry])
    begin = [*carry, *(ref.content for ref in refs)]
    # A gradient may reach any carry through any other.
    bits = combined_dependencies([*fixed, *begin, *sliced])
    carried = [_carried(context, value, bits) for value in begin]
    count = len(carry)
    _store(refs, carried[count:])
    inputs = [*fixed, *carried[:count], *sliced]
    found = run(context, jaxpr, inputs, _every_turn(jaxpr, inputs, needed))
    end = [*found[:count], *(ref.content for ref in refs)]
    for before, after in zip(carried, end, strict=True):
        after = context.resolve_offsets(after)
        if not after.is_zero_or_inf:
            context.require_zero(
                minus(after.form, before.form),
                "mixture",
                "the carry of a loop scales from turn to turn",
            )
    _store(refs, carried[count:])
    return carried[:count], found


def _carried(context: Context, value: Value, depends_on: int) -> Value:
    """Return a carried value, known by its form alone."""
    value = context.resolve_offsets(value)
    form = value.form
    if value.is_zero_or_inf:
        form = context.equations.unknown(value.shape)
        context.notes.loop_unknowns |= {term.variable for term in form}
    return Value(value.shape, form, depends_on=depends_on)


def _every_turn(
    jaxpr: Any, operands: Sequence[Operand], needed: Needed
) -> Needed:
    """Return the needed effects of a body that runs again after itself."""
    inner, _ = jaxprs.open_jaxpr(jaxpr)
    pairs = list(zip(inner.invars, operands, strict=True))
    variables = variables_of(pairs, needed.refs)
    variables = live_refs_of_loop(inner, needed.results, variables)
    refs = _refs([x for v, x in pairs if v in variables])
    return Needed(needed.results, frozenset(refs))


def _scan(run: Run, call: Call, needed: Needed) -> list[Value]:
    context, params = call.context, call.params
    fixed_count, carry_count = jaxprs.scan_sizes(dict(params))
    operands = _resolved(context, call.operands)
    fixed, operands = operands[:fixed_count], operands[fixed_count:]
    carry, stacked = operands[:carry_count], operands[carry_count:]
    turn = context.notes.new_turn()
    sliced = [_at_turn(context, value, turn) for value in stacked]
    results = [True] * carry_count + needed.results[carry_count:]
    carried, found = _loop(
        run,
        context,
        params["jaxpr"],
        (fixed, carry, sliced),
        needed._replace(results=results),
    )
    return carried + [
        _over_turns(context.resolve_offsets(value), turn, params["length"])
        for value in found[carry_count:]
    ]


def _at_turn(context: Context, value: Value, turn: str) -> Value:
    """Return one slice along the first axis, whose index is the loop's."""
    form = context.equations.reduce(value.form)
    lookups = [d for d in digits_of(form) if 0 in d.over]
    text = "a loop over elements that are looked up"
    form = context.require_uniform_in(form, lookups, text)

    def move(digit: Digit) -> Digit:
        if digit.axis == 0:
            return _shifted(digit, -1)._replace(axis=turn)
        return _shifted(digit, -1)

    axes = {a: a - 1 for a in range(1, value.rank)}
    return value.derived(
        value.shape[1:], move_index_digits(form, move)
    ).replace(
        const=value.const, constant_axes=moved_axes(value.constant_axes, axes)
    )


def _over_turns(value: Value, turn: str, length: int) -> Value:
    """Return the array of the values of all turns."""

    def move(digit: Digit) -> Digit:
        if digit.axis == turn:
            return digit._replace(axis=0)
        digit = _shifted(digit, 1)
        # Each turn may look up another index.
        if digit.is_lookup:
            digit = digit._replace(over=(0, *digit.over))
        return digit

    return value.derived(
        (length, *value.shape), move_index_digits(value.form, move)
    )


def _shifted(digit: Digit, by: int) -> Digit:
    """Return a digit of an array with more, or fewer, axes in front."""
    axis = digit.axis
    if not isinstance(axis, str):
        axis += by
    return digit._replace(axis=axis, over=tuple(a + by for a in digit.over))


def _while(run: Run, call: Call, needed: Needed) -> list[Value]:
    context, params = call.context, call.params
    operands = _resolved(context, call.operands)
    first, second = params["cond_nconsts"], params["body_nconsts"]
    tested, fixed = operands[:first], operands[first : first + second]
    carry = operands[first + second :]
    # The condition may read any of the refs.
    refs = needed.refs | set(_refs(operands))
    everything = Needed([True] * len(carry), refs)
    body = params["body_jaxpr"]
    carried, _ = _loop(run, context, body, (fixed, carry, ()), everything)
    # The condition requires its own equations.
    decisions = run(context, params["cond_jaxpr"], [*tested, *carried], None)
    return _decided(context, carried, decisions)


# -- branches ----------------------------------------------------------------


def _cond(run: Run, call: Call, needed: Needed) -> list[Value]:
    context = call.context
    chosen, *operands = _resolved(context, call.operands)
    refs = _refs(operands)
    before = [ref.content for ref in refs]
    branches = []
    for branch in call.params["branches"]:
        _store(refs, before)
        found = run(context, branch, operands, needed)
        branches.append([*found, *(ref.content for ref in refs)])
    joined = [_either(context, x) for x in zip(*branches, strict=True)]
    joined = _decided(context, joined, [chosen])
    count = len(joined) - len(refs)
    _store(refs, joined[count:])
    return joined[:count]


def _decided(
    context: Context, values: Sequence[Value], decisions: Sequence[Value]
) -> list[Value]:
    """Return values that depend on decisions, without a gradient."""
    bits = context.without_gradient(combined_dependencies(decisions))
    return [x.replace(depends_on=x.depends_on | bits) for x in values]


def _either(context: Context, values: Sequence[Value]) -> Value:
    """Return the value that is one of several."""
    values = [context.resolve_offsets(value) for value in values]
    return Value(
        values[0].shape,
        context.unify_all(values),
        is_zero_or_inf=all(value.is_zero_or_inf for value in values),
        depends_on=combined_dependencies(values),
    )


# -- devices -----------------------------------------------------------------


def _shard_map(run: Run, call: Call, _: Needed) -> list[Value]:
    context, params, operands = call.context, call.params, call.operands
    jaxpr = params["jaxpr"]
    if _refs(operands):
        return call.unknown("a `jax.Ref` in `shard_map`")
    sizes = jaxprs.mesh_sizes(dict(params))
    specs = jaxprs.partition_specs(params["in_specs"])
    parts = [
        shard(context, context.resolve_offsets(value), spec, sizes)
        for value, spec in zip(operands, specs, strict=True)
    ]
    local = dataclasses.replace(context, mesh=context.mesh | sizes)
    found = run(local, jaxpr, parts, None)
    specs = jaxprs.partition_specs(params["out_specs"])
    return [
        gather(context, context.resolve_offsets(value), spec, sizes)
        for value, spec in zip(found, specs, strict=True)
    ]


CONTROL_FLOW: dict[str, Callable[[Run, Call, Needed], list[Value]]] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "shard_map": _shard_map,
}
