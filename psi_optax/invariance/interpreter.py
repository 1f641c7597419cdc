"""Runs a program on what is known of its values in place of the values."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from psi_optax.invariance import compat, rules
from psi_optax.invariance.forms import (
    Digit,
    Form,
    digits_of,
    minus,
    move_digits,
)
from psi_optax.invariance.rules.elementwise import constant
from psi_optax.invariance.values import Context, Value

_LOOPS = itertools.count()


def run(
    context: Context,
    jaxpr: Any,
    operands: Sequence[Value],
    needed: Sequence[bool] | None = None,
) -> list[Value]:
    """The values of a jaxpr's results, of those that are needed."""
    inner, constants = compat.open_jaxpr(jaxpr)
    if needed is None:
        needed = [True] * len(inner.outvars)
    live, _ = _live(inner, needed)
    values: dict[Any, Value] = {}
    for variable, array in zip(inner.constvars, constants, strict=True):
        values[variable] = known(array)
    values.update(zip(inner.invars, operands, strict=True))

    def read(atom) -> Value:
        if compat.is_literal(atom):
            return known(atom.val)
        # What nobody needs is never asked what it is.
        return values.get(atom) or Value(compat.shape(atom))

    for equation, used in live:
        outer = context.primitive, context.site
        context.primitive = equation.primitive.name
        context.site = compat.site(equation) or outer[1]
        found = _equation(context, equation, map(read, equation.invars), used)
        values.update(zip(equation.outvars, found, strict=True))
        context.primitive, context.site = outer
    return [
        read(atom) if need else Value(compat.shape(atom))
        for atom, need in zip(inner.outvars, needed, strict=True)
    ]


def _live(jaxpr, needed) -> tuple[list[tuple[Any, list[bool]]], set[Any]]:
    """The equations that results depend on, with which of theirs are used.

    And the variables that are read. Statistics that nobody asks for must not
    count: they do scale.
    """
    wanted = {
        atom
        for atom, need in zip(jaxpr.outvars, needed, strict=True)
        if need and not compat.is_literal(atom)
    }
    live = []
    for equation in reversed(jaxpr.eqns):
        used = [variable in wanted for variable in equation.outvars]
        if any(used):
            live.append((equation, used))
            wanted |= _read(equation, used)
    return live[::-1], wanted


def _read(equation, used: list[bool]) -> set[Any]:
    """The operands of an equation that its used results depend on."""
    operands = equation.invars
    body = _called(equation)
    if body is not None:
        _, wanted = _live(body, used)
        operands = [
            outer
            for outer, inner in zip(operands, body.invars, strict=True)
            if inner in wanted
        ]
    return {atom for atom in operands if not compat.is_literal(atom)}


def _called(equation) -> Any:
    """The body of an equation that does nothing but call it, or None."""
    if equation.primitive.name not in _CALLS:
        return None
    for key in _BODIES:
        if key in equation.params:
            inner, _ = compat.open_jaxpr(equation.params[key])
            same = len(inner.invars) == len(equation.invars)
            return inner if same else None
    return None


def known(array: Any) -> Value:
    """What is known of a constant: all, of a number.

    Of an array but its shape: it may be statistics, other ones tomorrow.
    """
    if isinstance(array, bool | int | float):
        return constant(float(array), ())
    shape = tuple(np.shape(array))
    dtype = getattr(array, "dtype", None)
    real = dtype is not None and jax.dtypes.issubdtype(dtype, np.number)
    real = real and not jax.dtypes.issubdtype(dtype, np.complexfloating)
    if np.size(array) != 1 or not (real or dtype == np.bool_):
        return Value(shape)
    return constant(float(np.asarray(array).item()), shape)


def _equation(context: Context, equation, operands, used) -> list[Value]:
    name, params = equation.primitive.name, equation.params
    operands = list(operands)
    if name in _CONTROL:
        return _CONTROL[name](context, params, operands, used)
    if _called(equation) is None:
        shapes = [compat.shape(variable) for variable in equation.outvars]
        return rules.apply(context, name, params, operands, shapes)
    body = next(params[k] for k in _BODIES if k in params)
    found = run(context, body, operands, used)
    if name.startswith("custom_"):
        # The gradient may go where the value does not.
        reach = rules.reach(operands)
        found = [value.but(reach=value.reach | reach) for value in found]
    return found


_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_CALLS = frozenset(
    """
    jit pjit closed_call core_call remat remat2 checkpoint custom_jvp_call
    custom_vjp_call custom_vjp_call_jaxpr
    """.split()  # noqa: SIM905
)


# -- control flow ---------------------------------------------------------


def _loop(context, jaxpr, fixed, carry, sliced=(), needed=None):
    """What a loop carries, and the values that its body returns.

    What is carried is known by its form alone, which has to be the same after
    a turn: then it is after any number of turns. A carry that begins with
    zeros may scale in any way, which the body then decides: it is an unknown.
    """
    # A gradient may reach any carry through any other.
    reach = rules.reach([*fixed, *carry, *sliced])
    carried = []
    for value in map(context.settle, carry):
        form = value.form
        if value.every:
            form = context.equations.unknown(value.shape)
            context.carried |= {term.variable for term in form}
        carried.append(Value(value.shape, form, reach=reach))
    found = run(context, jaxpr, [*fixed, *carried, *sliced], needed)
    for before, after in zip(carried, found[: len(carried)], strict=True):
        after = context.settle(after)
        if not after.every:
            context.vanish(
                minus(after.form, before.form),
                "mixture",
                "what a loop carries scales from turn to turn",
            )
    return carried, found


def _scan(context, params, operands, used) -> list[Value]:
    fixed_count, carry_count = compat.scan_sizes(params)
    operands = [context.settle(value) for value in operands]
    fixed = operands[:fixed_count]
    carry = operands[fixed_count : fixed_count + carry_count]
    turn = f"turn {next(_LOOPS)}"
    sliced = [
        _at_turn(context, value, turn)
        for value in operands[fixed_count + carry_count :]
    ]
    needed = [True] * carry_count + used[carry_count:]
    carried, found = _loop(
        context, params["jaxpr"], fixed, carry, sliced, needed
    )
    stacked = [
        _over_turns(context.settle(value), turn, params["length"])
        for value in found[carry_count:]
    ]
    return carried + stacked


def _at_turn(context: Context, value: Value, turn: str) -> Value:
    """One slice along the first axis, whose index is that of the loop."""
    form = context.equations.reduce(value.form)
    first = [d for d in digits_of(form) if 0 in d.over]
    reason = context.because("shape", "a loop over what is looked up")
    context.equations.uniform(form, first, reason)
    form = move_digits(
        context.equations.reduce(form), lambda d: _shifted(d, -1, {0: turn})
    )
    flat = frozenset(a - 1 for a in value.flat if a)
    return Value(
        value.shape[1:],
        form,
        every=value.every,
        const=value.const,
        flat=flat,
        reach=value.reach,
    )


def _over_turns(value: Value, turn: str, length: int) -> Value:
    def move(digit: Digit) -> Digit:
        if digit.axis == turn:
            return digit._replace(axis=0)
        digit = _shifted(digit, 1, {})
        # Each turn may look up something else.
        if digit.is_lookup:
            digit = digit._replace(over=(0, *digit.over))
        return digit

    form = move_digits(value.form, move)
    shape = (length, *value.shape)
    return Value(shape, form, every=value.every, reach=value.reach)


def _shifted(digit: Digit, by: int, names: dict[int, str]) -> Digit:
    axis = digit.axis
    if axis in names:
        axis = names[axis]
    elif not isinstance(axis, str):
        axis += by
    return digit._replace(axis=axis, over=tuple(a + by for a in digit.over))


def _while(context, params, operands, _) -> list[Value]:
    operands = [context.settle(value) for value in operands]
    first, second = params["cond_nconsts"], params["body_nconsts"]
    tested, fixed = operands[:first], operands[first : first + second]
    carry = operands[first + second :]
    carried, _ = _loop(context, params["body_jaxpr"], fixed, carry)
    # For the equations of what decides.
    run(context, params["cond_jaxpr"], [*tested, *carried])
    return carried


def _cond(context, params, operands, _) -> list[Value]:
    _, *operands = [context.settle(value) for value in operands]
    branches = [run(context, b, operands) for b in params["branches"]]
    found = []
    for values in zip(*branches, strict=True):
        values = [context.settle(value) for value in values]
        able = [value for value in values if not value.every] or values[:1]
        form: Form = able[0].form
        for other in able[1:]:
            form = context.alike(able[0], other)
        every = all(value.every for value in values)
        reach = rules.reach(values)
        found.append(Value(values[0].shape, form, every=every, reach=reach))
    return found


def _shard_map(context, params, operands, _) -> list[Value]:
    sizes = compat.mesh_sizes(params)
    operands = [
        _sharded(context, context.settle(value), spec, sizes)
        for value, spec in zip(
            operands, compat.specs(params["in_specs"]), strict=True
        )
    ]
    found = run(context, params["jaxpr"], operands)
    return [
        _gathered(context, context.settle(value), spec, sizes)
        for value, spec in zip(
            found, compat.specs(params["out_specs"]), strict=True
        )
    ]


_CONTROL = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "shard_map": _shard_map,
}


def _mesh_axes(spec, axis: int) -> tuple[str, ...]:
    names = spec[axis] if axis < len(spec) else None
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


def _sharded(context: Context, value: Value, spec, sizes) -> Value:
    """The part of an array that one device has."""
    value = rules.without_lookups(context, value)
    form, shape = value.form, list(value.shape)
    reason = context.because("shape", "shards of a scaled axis")
    for axis in range(value.rank):
        # From the last name, which changes fastest, to the first.
        whole = shape[axis]
        for name in _mesh_axes(spec, axis):
            local = whole // sizes[name]
            form = context.equations.cut(form, axis, local, reason)
            form = move_digits(
                context.equations.reduce(form),
                lambda d, a=axis, n=name, s=local: (
                    Digit(n, d.stride // s, d.count)
                    if d.axis == a and d.stride >= s
                    else d
                ),
            )
            whole = local
        shape[axis] = whole
    return Value(
        tuple(shape),
        form,
        every=value.every,
        const=value.const,
        flat=value.flat,
        reach=value.reach,
    )


def _gathered(context: Context, value: Value, spec, sizes) -> Value:
    """The array that all devices have together."""
    value = rules.without_lookups(context, value)
    form, shape = value.form, list(value.shape)
    for axis in range(value.rank):
        for name in reversed(_mesh_axes(spec, axis)):
            local = shape[axis]
            form = move_digits(
                form,
                lambda d, a=axis, n=name, s=local: (
                    Digit(a, d.stride * s, d.count) if d.axis == n else d
                ),
            )
            shape[axis] = local * sizes[name]
    for name in sizes:
        form = context.uniform(form, name)
    return Value(tuple(shape), form, every=value.every, reach=value.reach)
