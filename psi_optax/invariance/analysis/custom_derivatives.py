"""Functions with custom derivatives, which are followed like programs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from psi_optax.invariance import jaxprs
from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.control_flow import Run
from psi_optax.invariance.analysis.linear_forms import (
    ZERO,
    minus,
    move_axes,
    plus,
)
from psi_optax.invariance.analysis.rules.table import Call
from psi_optax.invariance.analysis.values import Ref, Value


def check_custom_derivative(
    run: Run, call: Call, results: Sequence[Value]
) -> None:
    """Require a custom derivative to scale as that of the function would.

    If a result y scales as e^a and an operand x as e^b, cotangents of y scale
    as e^-a, and the cotangents of x made of them as e^-b. Then the gradient of
    a scale-invariant loss is inverse to the scale of the weights.

    Args:
        run: the interpreter.
        call: the equation that calls the function.
        results: its results.
    """
    if any(isinstance(x, Ref) for x in call.operands):
        call.unknown("a custom derivative of a `jax.Ref`")
        return
    context = call.context
    assert context.origin is not None
    program, equation = context.origin
    resolve = context.resolve_offsets
    arrays = list(map(resolve, call.operands))
    if not any(x.form for x in arrays):
        return
    try:
        pullback, inputs, outputs = _pullback(program.jaxpr, equation)
    except Exception:
        call.unknown("a custom derivative that cannot be traced")
        return
    pairs = zip(equation.invars, arrays, strict=True)
    values = {v: x for v, x in pairs if not jaxprs.is_literal(v)}
    values |= zip(equation.outvars, map(resolve, results), strict=True)
    primals = [_whole(values[v], v) for v in inputs]
    cotangents = [_whole(_cotangent(values[v]), v) for v in outputs]
    gradients = run(context, pullback, [*primals, *cotangents], None)
    pairs = zip(inputs, primals, strict=True)
    differentiated = [x for v, x in pairs if jaxprs.is_inexact(v)]
    for x, gradient in zip(differentiated, gradients, strict=True):
        _require_inverse(context, x, resolve(gradient))


def _cotangent(value: Value) -> Value:
    """Return a cotangent of a value, whose scale is inverse."""
    return Value(value.shape, minus(ZERO, value.form))


def _require_inverse(context: Context, x: Value, gradient: Value) -> None:
    """Require a gradient to scale inversely to the array that it is of."""
    assert context.origin is not None
    if not jaxprs.is_defined_by_jax(context.origin.equation):
        # Euler's identity need not hold for it.
        context.note_custom_gradient(x.form, "a custom derivative")
    if not context.has_gradient(x.depends_on):
        return
    if not (x.is_zero_or_inf or gradient.is_zero_or_inf):
        context.require_zero(
            plus(x.form, gradient.form),
            "nonlinear",
            f"the custom derivative of `{context.primitive}` does not scale as"
            " its value does",
        )


def _pullback(jaxpr: Any, equation: Any) -> tuple[Any, list[Any], list[Any]]:
    """Return the program of a vector-Jacobian product.

    Returns:
        The program, the variables of its primal operands, and those of its
        cotangents. Its results are cotangents of the floating-point operands.
    """
    function, inputs = jaxprs.function_of(jaxpr, equation)
    outputs = [v for v in equation.outvars if jaxprs.is_inexact(v)]
    floats = [v for v in inputs if jaxprs.is_inexact(v)]

    def pull(*operands: jax.Array) -> list[jax.Array]:
        primals = dict(zip(inputs, operands[: len(inputs)], strict=True))
        cotangents = list(operands[len(inputs) :])

        def of_floats(*arrays: jax.Array) -> list[jax.Array]:
            given = primals | dict(zip(floats, arrays, strict=True))
            results = function(*(given[v] for v in inputs))
            pairs = zip(equation.outvars, results, strict=True)
            return [x for v, x in pairs if jaxprs.is_inexact(v)]

        _, pullback = jax.vjp(of_floats, *(primals[v] for v in floats))
        return list(pullback(cotangents))

    whole, shapes = _over_mesh(pull, [*inputs, *outputs], floats)
    program, _ = jaxprs.make_jaxpr(whole, *shapes)
    return program, inputs, outputs


# -- devices -----------------------------------------------------------------


def _whole(value: Value, variable: Any) -> Value:
    """Return an array of one device with those of all, along its first axes."""
    names = jaxprs.varying_axes(variable)
    if not names:
        return value
    axes: dict[Any, int] = {a: a + len(names) for a in range(value.rank)}
    axes |= {name: axis for axis, name in enumerate(names)}
    shape = (*names.values(), *value.shape)
    return value.derived(shape, move_axes(value.form, axes)).replace(
        nonzero=value.nonzero
    )


def _over_mesh(
    function: Callable[..., list[jax.Array]],
    operands: Sequence[Any],
    results: Sequence[Any],
) -> tuple[Callable[..., list[jax.Array]], list[jax.ShapeDtypeStruct]]:
    """Return a function of whole arrays from one of those of a device.

    Args:
        function: a function from arrays to a list of arrays.
        operands: the variables of its operands.
        results: the variables of its results.

    Returns:
        The function, and the shapes of its operands: arrays whose first axes
        are the mesh axes that they vary along.
    """
    split = [jaxprs.varying_axes(x) for x in operands]
    joined = [jaxprs.varying_axes(x) for x in results]
    shapes = [
        jax.ShapeDtypeStruct((*v.values(), *x.aval.shape), x.aval.dtype)
        for x, v in zip(operands, split, strict=True)
    ]
    meshes = [
        x.aval.sharding.mesh for x, v in zip(operands, split, strict=True) if v
    ]
    if not meshes:
        return function, shapes

    def local(*parts: jax.Array) -> list[jax.Array]:
        pairs = zip(parts, split, strict=True)
        found = function(*(jnp.reshape(x, x.shape[len(v) :]) for x, v in pairs))
        return [
            jnp.reshape(x, (1,) * len(v) + x.shape)
            for x, v in zip(found, joined, strict=True)
        ]

    kinds = (jax.sharding.AxisType.Auto,) * len(meshes[0].shape)
    mesh = meshes[0].update(axis_types=kinds)
    in_specs, out_specs = ([jax.P(*v) for v in one] for one in (split, joined))
    whole = jax.shard_map(
        local, mesh=mesh, in_specs=tuple(in_specs), out_specs=out_specs
    )
    return whole, shapes
