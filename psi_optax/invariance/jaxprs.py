"""Where the versions of JAX write one program in different ways."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

_PACKAGE = str(pathlib.Path(__file__).parents[1])
_JAX = str(pathlib.Path(jax.__file__).parent)


def open_jaxpr(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr without, and its constants: up to 0.10 there are two kinds."""
    if hasattr(jaxpr, "consts"):
        return getattr(jaxpr, "jaxpr", jaxpr), jaxpr.consts
    return jaxpr, ()


def is_literal(atom: Any) -> bool:
    """Whether an operand is a number written in place."""
    return isinstance(atom, core.Literal)


def is_ref(atom: Any) -> bool:
    """Return whether a variable is a mutable array, a `jax.Ref`."""
    return isinstance(atom.aval, jax.ref.AbstractRef)


def has_effects(equation: Any) -> bool:
    """Return whether an equation acts on more than its refs and the console."""
    return any(type(e).__name__ not in _LOCAL_EFFECTS for e in equation.effects)


_LOCAL_EFFECTS = frozenset(
    """
    ReadEffect WriteEffect AccumEffect InternalMutableArrayEffect DebugEffect
    OrderedDebugEffect NamedAxisEffect
    """.split()  # noqa: SIM905
)


def function_of(jaxpr: Any, equation: Any) -> tuple[Callable, list[Any]]:
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


def is_of_jax(equation: Any) -> bool:
    """Return whether a function with its own derivative is one of JAX's."""
    body, _ = open_jaxpr(equation.params["call_jaxpr"])
    return _JAX in str(body.debug_info.func_src_info)


def without_constants(jaxpr: Any) -> tuple[Callable, list[Any]]:
    """Return a program as a function of its constants too, and these.

    Refs that it closes over are made anew at each call, from what they hold
    now: it changes none of them.
    """
    inner, constants = open_jaxpr(jaxpr)
    count = len(inner.constvars)
    refs = [is_ref(v) for v in inner.constvars]
    open_ = inner.replace(
        constvars=[], invars=[*inner.constvars, *inner.invars]
    )
    call = core.jaxpr_as_fun(core.ClosedJaxpr(open_, ()))

    def function(constants: Sequence[Any], *args: Any) -> list[Any]:
        pairs = zip(constants, refs, strict=True)
        made = [jax.new_ref(x) if ref else x for x, ref in pairs]
        return call(*made, *args)

    held = zip(constants[:count], refs, strict=True)
    return function, [x[...] if ref else x for x, ref in held]


def scan_sizes(params: dict[str, Any]) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many are carried."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carry, _ = params["ft_in"].unpack()
    return len(constants), len(carry)


def shape(atom: Any) -> tuple[int, ...]:
    """The shape of a variable or a literal; () for tokens and the like."""
    return tuple(getattr(atom.aval, "shape", ()))


def specs(specs: Any) -> list[tuple[Any, ...]]:
    """Partition specs as tuples."""
    return [tuple(spec) if spec is not None else () for spec in specs]


def mesh_sizes(params: dict[str, Any]) -> dict[str, int]:
    """Return the sizes of the mesh axes that a `shard_map` divides over.

    A mesh may have others: those of a `shard_map` around it.
    """
    manual = params["newly_manual_axes"]
    return {
        name: n for name, n in params["mesh"].shape.items() if name in manual
    }


def make_jaxpr(function: Any, *args: Any) -> tuple[Any, Any]:
    """The program of a function, and the shapes of what it returns."""
    return jax.make_jaxpr(function, return_shape=True)(*args)


def dtypes(jaxpr: Any) -> set[Any]:
    """The dtypes of all that a program computes."""
    inner, _ = open_jaxpr(jaxpr)
    found = set()
    for equation in inner.eqns:
        found |= {getattr(v.aval, "dtype", None) for v in equation.outvars}
        for body in core.jaxprs_in_params(equation.params):
            found |= dtypes(body)
    return found - {None}


def site(equation: Any) -> str:
    """Where in the user's source an equation comes from, with its module."""
    info = equation.source_info
    scope = str(info.name_stack)
    frames = info.traceback.frames if info.traceback is not None else ()
    users = [f for f in frames if not _is_library(f.file_name)]
    if not users:
        return scope
    frame = users[0]
    line = getattr(frame, "line_num", None) or getattr(frame, "start_line", 0)
    file = frame.file_name.rsplit("/", 1)[-1]
    where = f"{file}:{line} ({frame.function_name})"
    return f"{where}, {scope}" if scope else where


def result_sites(jaxpr: Any) -> list[str]:
    """Return where each result of a program comes from; "" if not known."""
    inner, _ = open_jaxpr(jaxpr)
    sites = {v: site(e) for e in inner.eqns for v in e.outvars}
    return [
        "" if is_literal(atom) else sites.get(atom, "")
        for atom in inner.outvars
    ]


def function_site(jaxpr: Any) -> str:
    """Return where the function of a program is defined; "" if not known."""
    inner, _ = open_jaxpr(jaxpr)
    name, at, place = str(inner.debug_info.func_src_info).partition(" at ")
    return f"{place.rsplit('/', 1)[-1]} ({name})" if at else ""


def _is_library(name: str) -> bool:
    if name.startswith(("<stdin", "<ipython")):
        return False
    return "site-packages" in name or name.startswith((_PACKAGE, "<"))


def varying(variable: Any) -> dict[str, int]:
    """Return the mesh axes that an array of one device varies along."""
    sharding = getattr(variable.aval, "sharding", None)
    if sharding is None or sharding.mesh.empty:
        return {}
    names = variable.aval.manual_axis_type.varying
    return {n: size for n, size in sharding.mesh.shape.items() if n in names}


def over_mesh(
    function: Callable, operands: Sequence[Any], results: Sequence[Any]
) -> tuple[Callable, list[jax.ShapeDtypeStruct]]:
    """Return a function of whole arrays from one of those of a device.

    Args:
        function: of arrays, returns a list of arrays.
        operands: variables of its operands.
        results: variables of its results.

    Returns:
        The function, and its operands: arrays whose first axes are those that
        they vary along.
    """
    split = [varying(x) for x in operands]
    joined = [varying(x) for x in results]
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
        found = function(
            *(
                jnp.reshape(x, x.shape[len(v) :])
                for x, v in zip(parts, split, strict=True)
            )
        )
        return [
            jnp.reshape(x, (1,) * len(v) + x.shape)
            for x, v in zip(found, joined, strict=True)
        ]

    kinds = (jax.sharding.AxisType.Auto,) * len(meshes[0].shape)
    mesh = meshes[0].update(axis_types=kinds)
    specs = [[jax.P(*v) for v in one] for one in (split, joined)]
    whole = jax.shard_map(
        local, mesh=mesh, in_specs=tuple(specs[0]), out_specs=specs[1]
    )
    return whole, shapes
