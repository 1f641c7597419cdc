"""Read jaxprs, which the versions of JAX write in different ways."""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from psi_optax import _compat

_JAX = str(pathlib.Path(jax.__file__).parent)

# Primitives that move elements, or convert them.
LAYOUT = frozenset(
    """
    reshape squeeze transpose broadcast_in_dim convert_element_type copy
    reduce_precision sharding_constraint optimization_barrier rev slice pad
    pvary name
    """.split()  # noqa: SIM905
)

# Primitives that do nothing but call a body, and the names of that parameter.
CALLS = frozenset(
    """
    jit call closed_call remat2 composite custom_partitioning xla_metadata_call
    custom_vmap_call custom_jvp_call custom_vjp_call
    """.split()  # noqa: SIM905
)
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")

_RANDOM = frozenset({"random_bits", "threefry2x32", "rng_bit_generator"})

# Effects on refs and on the console.
_LOCAL_EFFECTS = frozenset(
    """
    ReadEffect WriteEffect AccumEffect InternalMutableArrayEffect DebugEffect
    OrderedDebugEffect NamedAxisEffect
    """.split()  # noqa: SIM905
)


# -- programs ----------------------------------------------------------------


def make_jaxpr(function: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """Return the program of a function, and the shapes of its results."""
    return jax.make_jaxpr(function, return_shape=True)(*args)


def open_jaxpr(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """Return a jaxpr without constants, and these.

    Up to JAX 0.10 there are two kinds of jaxprs.
    """
    if hasattr(jaxpr, "consts"):
        return getattr(jaxpr, "jaxpr", jaxpr), jaxpr.consts
    return jaxpr, ()


def without_constants(jaxpr: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Return a program as a function of its constants and arguments.

    Refs that it closes over are made anew at each call, from their present
    content: the function changes none of them.

    Returns:
        The function, and the constants.
    """
    inner, constants = open_jaxpr(jaxpr)
    count = len(inner.constvars)
    refs = [is_ref(v) for v in inner.constvars]
    opened = inner.replace(
        constvars=[], invars=[*inner.constvars, *inner.invars]
    )
    call = core.jaxpr_as_fun(core.ClosedJaxpr(opened, ()))

    def function(constants: Sequence[Any], *args: Any) -> list[Any]:
        pairs = zip(constants, refs, strict=True)
        made = [jax.new_ref(x) if ref else x for x, ref in pairs]
        return call(*made, *args)

    held = zip(constants[:count], refs, strict=True)
    return function, [x[...] if ref else x for x, ref in held]


def all_equations(jaxpr: Any) -> Iterator[Any]:
    """Yield the equations of a program and of all programs that it calls."""
    inner, _ = open_jaxpr(jaxpr)
    for equation in inner.eqns:
        yield equation
        for body in _compat.jaxprs_in_params(equation.params):
            yield from all_equations(body)


def dtypes_of(jaxpr: Any) -> set[Any]:
    """Return the dtypes of all arrays that a program computes."""
    computed = [v for e in all_equations(jaxpr) for v in e.outvars]
    return {getattr(v.aval, "dtype", None) for v in computed} - {None}


def draws_numbers(jaxpr: Any) -> bool:
    """Check that a program draws random numbers."""
    return any(e.primitive.name in _RANDOM for e in all_equations(jaxpr))


# -- variables ---------------------------------------------------------------


def is_literal(atom: Any) -> bool:
    """Check that an operand is a number written in place."""
    return isinstance(atom, core.Literal)


def is_ref(atom: Any) -> bool:
    """Check that a variable is a mutable array, a `jax.Ref`."""
    return isinstance(atom.aval, jax.ref.AbstractRef)


def is_inexact(variable: Any) -> bool:
    """Check that a variable is an array of real or complex numbers."""
    return jnp.issubdtype(variable.aval.dtype, jnp.inexact)


def shape_of(atom: Any) -> tuple[int, ...]:
    """Return the shape of a variable or a literal; () for tokens."""
    return tuple(getattr(atom.aval, "shape", ()))


def varying_axes(variable: Any) -> dict[str, int]:
    """Return the sizes of the mesh axes that an array varies along."""
    sharding = getattr(variable.aval, "sharding", None)
    if sharding is None or sharding.mesh.empty:
        return {}
    names = _compat.varying_axes(variable.aval)
    return {n: size for n, size in sharding.mesh.shape.items() if n in names}


# -- equations ---------------------------------------------------------------


def has_effects(equation: Any) -> bool:
    """Check that an equation acts on more than its refs and the console."""
    return any(type(e).__name__ not in _LOCAL_EFFECTS for e in equation.effects)


def called_body(equation: Any) -> Any:
    """Return the body of an equation that only calls it; None for others."""
    if equation.primitive.name not in CALLS:
        return None
    for key in _BODIES:
        if key in equation.params:
            inner, _ = open_jaxpr(equation.params[key])
            same = len(inner.invars) == len(equation.invars)
            return equation.params[key] if same else None
    return None


def has_custom_derivative(equation: Any) -> bool:
    """Check that an equation calls a function with a custom derivative."""
    return equation.primitive.name.startswith(("custom_jvp", "custom_vjp"))


def is_defined_by_jax(equation: Any) -> bool:
    """Check that a function with a custom derivative is one of JAX's own."""
    body, _ = open_jaxpr(equation.params["call_jaxpr"])
    return _JAX in str(body.debug_info.func_src_info)


def function_of(
    jaxpr: Any, equation: Any
) -> tuple[Callable[..., Any], list[Any]]:
    """Return one equation of a jaxpr as a function, and its variables."""
    variables = [v for v in equation.invars if not is_literal(v)]
    variables = list(dict.fromkeys(variables))
    alone = jaxpr.replace(
        constvars=[],
        invars=variables,
        outvars=equation.outvars,
        eqns=[equation],
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ())), variables


def scan_sizes(params: dict[str, Any]) -> tuple[int, int]:
    """Return the numbers of constants and of carried operands of a scan."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carry, _ = params["ft_in"].unpack()
    return len(constants), len(carry)


def partition_specs(specs: Any) -> list[tuple[Any, ...]]:
    """Return partition specs as tuples."""
    return [tuple(spec) if spec is not None else () for spec in specs]


def mesh_sizes(params: dict[str, Any]) -> dict[str, int]:
    """Return the sizes of the mesh axes that a `shard_map` divides over.

    The mesh may have others: those of a `shard_map` around it.
    """
    # Until JAX 0.9: the parameter was `manual_axes`.
    manual = params.get("newly_manual_axes", params.get("manual_axes"))
    return {
        name: n for name, n in params["mesh"].shape.items() if name in manual
    }
