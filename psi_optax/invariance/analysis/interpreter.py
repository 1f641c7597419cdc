"""Runs a program on what is known of its values in place of the values."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.invariance import jaxprs
from psi_optax.invariance.analysis import rules
from psi_optax.invariance.analysis.linear_forms import (
    ZERO,
    Digit,
    Form,
    digits_of,
    minus,
    move_axes,
    move_digits,
    moved_axes,
    plus,
)
from psi_optax.invariance.analysis.liveness import (
    called_body,
    has_own_derivative,
    kept_by_loop,
    live_equations,
)
from psi_optax.invariance.analysis.mesh import gathered, sharded
from psi_optax.invariance.analysis.rules.elementwise import constant
from psi_optax.invariance.analysis.values import (
    Cell,
    Context,
    Operand,
    Origin,
    Program,
    Stop,
    Value,
)

_LOOPS = itertools.count()


class Needed(NamedTuple):
    """The part of a program's effects that matters.

    Attributes:
        results: for each result, whether it is used.
        cells: those of its operands that are read after it.
    """

    results: list[bool]
    cells: frozenset[Cell] = frozenset()


def run(
    context: Context,
    jaxpr: Any,
    operands: Sequence[Operand],
    needed: Needed | None = None,
) -> list[Any]:
    """Return the values of a jaxpr's results, of those that are needed.

    They are of type `Value`, or `Cell` where a result is a ref.
    """
    inner, constants = jaxprs.open_jaxpr(jaxpr)
    needed = needed or Needed([True] * len(inner.outvars))
    values: dict[Any, Operand] = {
        variable: _closed_over(variable, array)
        for variable, array in zip(inner.constvars, constants, strict=True)
    }
    values.update(zip(inner.invars, operands, strict=True))
    kept = _variables(values.items(), needed.cells)
    live, _ = live_equations(inner, needed.results, kept)

    def read(atom) -> Operand:
        if jaxprs.is_literal(atom):
            return known(atom.val)
        # An operand that does not matter is not in the dictionary.
        return values.get(atom) or Value(jaxprs.shape(atom))

    program = Program(inner)
    for equation, used, kept in live:
        outer = context.primitive, context.site, context.origin
        context.origin = Origin(program, equation)
        context.primitive = equation.primitive.name
        context.site = jaxprs.site(equation) or outer[1]
        cells = frozenset(_cells([values[ref] for ref in kept]))
        arguments = [read(atom) for atom in equation.invars]
        found = _equation(
            context, inner, equation, arguments, Needed(used, cells)
        )
        found = list(map(_representable, equation.outvars, found))
        values.update(zip(equation.outvars, found, strict=True))
        context.primitive, context.site, context.origin = outer
    return [
        read(atom) if need else Value(jaxprs.shape(atom))
        for atom, need in zip(inner.outvars, needed.results, strict=True)
    ]


def known(number: Any) -> Value:
    """Return a number that is written in the program."""
    if isinstance(number, bool | int | float):
        return constant(float(number), ())
    shape, dtype = tuple(np.shape(number)), getattr(number, "dtype", None)
    real = dtype is not None and jax.dtypes.issubdtype(dtype, np.number)
    real = real and not jax.dtypes.issubdtype(dtype, np.complexfloating)
    if np.size(number) != 1 or not (real or dtype == np.bool_):
        return Value(shape)
    return constant(float(np.asarray(number).item()), shape)


def _representable(variable: Any, value: Operand) -> Operand:
    """Forget the number that an integer would be if it did not wrap around."""
    if isinstance(value, Cell) or value.const is None:
        return value
    dtype = getattr(variable.aval, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, np.integer):
        return value
    limits = jnp.iinfo(dtype)
    if limits.min <= value.const <= limits.max:
        return value
    return value.replace(const=None, is_zero_or_inf=False)


def _closed_over(variable: Any, array: Any) -> Operand:
    """Return an array that the program closes over: its shape is known.

    Whatever its size: a counter or a gate has another value tomorrow.
    """
    if jaxprs.is_ref(variable):
        return Cell(Value(tuple(np.shape(array))))
    return argument(array)


def argument(array: Any) -> Value:
    """Return data: their shape, and the number that a scalar is now."""
    shape, dtype = tuple(np.shape(array)), getattr(array, "dtype", None)
    if math.prod(shape) != 1 or dtype is None:
        return Value(shape)
    if not jnp.issubdtype(dtype, np.floating):
        return Value(shape)
    known = isinstance(array, np.ndarray | np.generic | jax.Array)
    if not known or isinstance(array, jax.core.Tracer):
        return Value(shape, runtime_number=math.nan)
    number = float(jax.device_get(array).item())
    return Value(shape, runtime_number=number if number > 0 else math.nan)


def _equation(
    context: Context, jaxpr: Any, equation: Any, operands: list, needed: Needed
) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    if name in _CONTROL:
        return _CONTROL[name](context, params, operands, needed)
    body = called_body(equation)
    if body is None:
        shapes = [jaxprs.shape(variable) for variable in equation.outvars]
        return rules.apply(context, name, params, operands, shapes)
    found = run(context, body, operands, needed)
    if has_own_derivative(equation):
        reach = rules.dependencies(operands)
        if not jaxprs.is_of_jax(equation):
            # What cancels in a value need not cancel in its gradient.
            found = [context.merge_parts(x).as_new_array() for x in found]
        found = [
            value.replace(depends_on=value.depends_on | reach)
            for value in found
        ]
        _follow_derivative(context, jaxpr, equation, operands, found)
    return found


# -- custom derivatives ---------------------------------------------------


def _follow_derivative(
    context: Context, jaxpr: Any, equation: Any, operands, found
) -> None:
    """Require a custom derivative to scale as that of the function would.

    If a result y scales as e^a and an operand x as e^b, cotangents of y scale
    as e^-a, and those that are made of them for x as e^-b: then a loss without
    a scale has a gradient that is inverse to that of the weights.
    """
    if any(isinstance(x, Cell) for x in operands):
        rules.unknown(context, operands, "a custom derivative of a `jax.Ref`")
        return
    settled = [context.resolve_offsets(x) for x in operands]
    if not any(x.form for x in settled):
        return
    try:
        pullback, inputs, cotangents = _pullback(jaxpr, equation)
    except Exception:
        text = "a custom derivative that cannot be followed"
        rules.unknown(context, operands, text)
        return
    known_as = {
        variable: x
        for variable, x in zip(equation.invars, settled, strict=True)
        if not jaxprs.is_literal(variable)
    }
    known_as |= zip(
        equation.outvars, map(context.resolve_offsets, found), strict=True
    )
    arguments = [_whole(known_as[v], v) for v in inputs]
    arguments += [
        _whole(Value(jaxprs.shape(v), minus(ZERO, known_as[v].form)), v)
        for v in cotangents
    ]
    results = run(context, pullback, arguments)
    differentiated = [v for v in inputs if _is_float(v)]
    for variable, gradient in zip(differentiated, results, strict=True):
        gradient = context.resolve_offsets(gradient)
        x = _whole(known_as[variable], variable)
        if not jaxprs.is_of_jax(equation):
            # Euler's identity need not hold for it.
            stop = Stop(x.form, context.site, "a custom derivative")
            context.stops.append(stop)
        if context.has_gradient(x.depends_on) and not (
            x.is_zero_or_inf or gradient.is_zero_or_inf
        ):
            context.require_zero(
                plus(x.form, gradient.form),
                "nonlinear",
                f"the custom derivative of `{context.primitive}` does not"
                " scale as its value does",
            )


def _pullback(jaxpr: Any, equation: Any) -> tuple[Any, list, list]:
    """Return a program from inputs and cotangents to cotangents of inputs."""
    function, inputs = jaxprs.function_of(jaxpr, equation)
    outputs = [v for v in equation.outvars if _is_float(v)]

    def pull(*operands):
        inputs_ = operands[: len(inputs)]
        cotangents = list(operands[len(inputs) :])

        def floats(*some):
            rest = iter(some)
            every = [
                next(rest) if _is_float(v) else x
                for v, x in zip(inputs, inputs_, strict=True)
            ]
            found = zip(equation.outvars, function(*every), strict=True)
            return [x for v, x in found if _is_float(v)]

        moved = [
            x for v, x in zip(inputs, inputs_, strict=True) if _is_float(v)
        ]
        return list(jax.vjp(floats, *moved)[1](cotangents))

    pulled = [v for v in inputs if _is_float(v)]
    whole, shapes = jaxprs.over_mesh(pull, [*inputs, *outputs], pulled)
    program, _ = jaxprs.make_jaxpr(whole, *shapes)
    return program, inputs, outputs


def _whole(value: Value, variable: Any) -> Value:
    """Return an array of one device with those of all, along its first axes."""
    names = jaxprs.varying(variable)
    if not names:
        return value
    place = {a: a + len(names) for a in range(value.rank)}
    place |= {name: axis for axis, name in enumerate(names)}
    form = move_axes(value.form, place)
    return Value(
        (*names.values(), *value.shape),
        form,
        is_zero_or_inf=value.is_zero_or_inf,
        depends_on=value.depends_on,
        nonzero=value.nonzero,
    )


def _is_float(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, np.inexact)


# -- control flow ---------------------------------------------------------


def _settled(context: Context, operands: Sequence[Operand]) -> list[Any]:
    return [
        x if isinstance(x, Cell) else context.resolve_offsets(x)
        for x in operands
    ]


def _cells(operands: Sequence[Operand]) -> list[Cell]:
    return list(dict.fromkeys(x for x in operands if isinstance(x, Cell)))


def _loop(context, jaxpr, fixed, carry, sliced=(), needed=None):
    """Return the values that a loop carries, and those that its body returns.

    A carried value is known by its form alone, which has to be the same after
    an iteration: then it is after any number of them. A carry that begins with
    zeros may scale in any way, which the body then decides: it is an unknown.
    What refs hold is carried as well.
    """
    cells = _cells([*fixed, *carry])
    begin = [*carry, *(cell.content for cell in cells)]
    # A gradient may reach any carry through any other.
    reach = rules.dependencies([*fixed, *begin, *sliced])
    carried = []
    for value in map(context.resolve_offsets, begin):
        form = value.form
        if value.is_zero_or_inf:
            form = context.equations.unknown(value.shape)
            context.carried |= {term.variable for term in form}
        carried.append(Value(value.shape, form, depends_on=reach))
    _store(cells, carried[len(carry) :])
    carry = carried[: len(carry)]
    operands = [*fixed, *carry, *sliced]
    found = run(context, jaxpr, operands, _every_time(jaxpr, operands, needed))
    end = [*found[: len(carry)], *(cell.content for cell in cells)]
    for before, after in zip(carried, end, strict=True):
        after = context.resolve_offsets(after)
        if not after.is_zero_or_inf:
            context.require_zero(
                minus(after.form, before.form),
                "mixture",
                "what a loop carries scales from turn to turn",
            )
    _store(cells, carried[len(carry) :])
    return carry, found


def _store(cells: list[Cell], values: list[Value]) -> None:
    for cell, value in zip(cells, values, strict=True):
        cell.content = value


def _every_time(jaxpr, operands, needed: Needed | None) -> Needed | None:
    """Return what is needed of a body that runs again after itself."""
    if needed is None:
        return None
    inner, _ = jaxprs.open_jaxpr(jaxpr)
    pairs = list(zip(inner.invars, operands, strict=True))
    kept = _variables(pairs, needed.cells)
    kept = kept_by_loop(inner, needed.results, kept)
    return Needed(needed.results, frozenset(x for v, x in pairs if v in kept))


def _variables(pairs: Iterable[tuple[Any, Operand]], cells) -> list[Any]:
    """Return the variables of some cells."""
    return [v for v, x in pairs if isinstance(x, Cell) and x in cells]


def _scan(context, params, operands, needed) -> list[Value]:
    fixed_count, carry_count = jaxprs.scan_sizes(params)
    operands = _settled(context, operands)
    fixed = operands[:fixed_count]
    carry = operands[fixed_count : fixed_count + carry_count]
    turn = f"turn {next(_LOOPS)}"
    sliced = [
        _at_turn(context, value, turn)
        for value in operands[fixed_count + carry_count :]
    ]
    results = [True] * carry_count + needed.results[carry_count:]
    carried, found = _loop(
        context,
        params["jaxpr"],
        fixed,
        carry,
        sliced,
        needed._replace(results=results),
    )
    stacked = [
        _over_turns(context.resolve_offsets(value), turn, params["length"])
        for value in found[carry_count:]
    ]
    return carried + stacked


def _at_turn(context: Context, value: Value, turn: str) -> Value:
    """Return one slice along the first axis, whose index is the loop's."""
    form = context.equations.reduce(value.form)
    first = [d for d in digits_of(form) if 0 in d.over]
    reason = context.reason("shape", "a loop over what is looked up")
    context.equations.require_uniform(form, first, reason)
    form = move_digits(
        context.equations.reduce(form), lambda d: _shifted(d, -1, {0: turn})
    )
    flat = moved_axes(
        value.constant_axes, {a: a - 1 for a in range(1, value.rank)}
    )
    return Value(
        value.shape[1:],
        form,
        is_zero_or_inf=value.is_zero_or_inf,
        const=value.const,
        constant_axes=flat,
        depends_on=value.depends_on,
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
    return Value(
        shape,
        form,
        is_zero_or_inf=value.is_zero_or_inf,
        depends_on=value.depends_on,
    )


def _shifted(digit: Digit, by: int, names: dict[int, str]) -> Digit:
    axis = digit.axis
    if axis in names:
        axis = names[axis]
    elif not isinstance(axis, str):
        axis += by
    return digit._replace(axis=axis, over=tuple(a + by for a in digit.over))


def _while(context, params, operands, needed) -> list[Value]:
    operands = _settled(context, operands)
    first, second = params["cond_nconsts"], params["body_nconsts"]
    tested, fixed = operands[:first], operands[first : first + second]
    carry = operands[first + second :]
    # The condition may read any of the refs.
    cells = needed.cells | set(_cells(operands))
    every = Needed([True] * len(carry), cells)
    carried, _ = _loop(context, params["body_jaxpr"], fixed, carry, (), every)
    # For the equations of what decides.
    decides = run(context, params["cond_jaxpr"], [*tested, *carried])
    depends = context.without_gradient(rules.dependencies(decides))
    return [x.replace(depends_on=x.depends_on | depends) for x in carried]


def _cond(context, params, operands, needed) -> list[Value]:
    chosen, *operands = _settled(context, operands)
    depends = context.without_gradient(chosen.depends_on)
    cells = _cells(operands)
    before = [cell.content for cell in cells]
    branches = []
    for branch in params["branches"]:
        _store(cells, before)
        found = run(context, branch, operands, needed)
        branches.append([*found, *(cell.content for cell in cells)])
    joined = [
        _either(context, values) for values in zip(*branches, strict=True)
    ]
    joined = [x.replace(depends_on=x.depends_on | depends) for x in joined]
    count = len(joined) - len(cells)
    _store(cells, joined[count:])
    return joined[:count]


def _either(context: Context, values: Sequence[Value]) -> Value:
    """Return the value that is one of these."""
    values = [context.resolve_offsets(value) for value in values]
    able = [value for value in values if not value.is_zero_or_inf] or values[:1]
    form: Form = able[0].form
    for other in able[1:]:
        form = context.unify(able[0], other)
    every = all(value.is_zero_or_inf for value in values)
    return Value(
        values[0].shape,
        form,
        is_zero_or_inf=every,
        depends_on=rules.dependencies(values),
    )


def _shard_map(context, params, operands, _) -> list[Value]:
    if _cells(operands):
        return rules.unknown(
            context,
            operands,
            "a `jax.Ref` in `shard_map`",
            [jaxprs.shape(v) for v in params["jaxpr"].outvars],
        )
    sizes = jaxprs.mesh_sizes(params)
    operands = [
        sharded(context, context.resolve_offsets(value), spec, sizes)
        for value, spec in zip(
            operands, jaxprs.specs(params["in_specs"]), strict=True
        )
    ]
    outer, context.mesh = context.mesh, context.mesh | sizes
    found = run(context, params["jaxpr"], operands)
    context.mesh = outer
    return [
        gathered(context, context.resolve_offsets(value), spec, sizes)
        for value, spec in zip(
            found, jaxprs.specs(params["out_specs"]), strict=True
        )
    ]


_CONTROL = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "shard_map": _shard_map,
}
