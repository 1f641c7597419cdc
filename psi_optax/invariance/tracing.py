"""The arguments of the finder: a loss, its weights, and what else it takes."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.groups.paths import Tree, brief, check_no_refs, entries
from psi_optax.invariance import jaxprs


def with_static(loss_fn: Callable, args: tuple) -> tuple[Callable, tuple]:
    """Return the loss as a function of arrays alone, and these.

    Raises:
        TypeError: the loss is no function.
    """
    if not callable(loss_fn):
        raise TypeError(
            f"loss_fn is {brief(loss_fn)}, which cannot be called. Are the"
            " arguments in order? They are loss_fn, params, then what else the"
            " loss takes."
        )
    leaves, structure = jax.tree.flatten(args)
    traced = tuple(x for x in leaves if _is_array(x))

    @functools.wraps(loss_fn, updated=())
    def loss(params, *arrays):
        remaining = iter(arrays)
        filled = [next(remaining) if _is_array(x) else x for x in leaves]
        return loss_fn(params, *jax.tree.unflatten(structure, filled))

    return loss, traced


def _is_array(x: Any) -> bool:
    return isinstance(
        x, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct
    )


def any_shapes(tree: Tree) -> bool:
    """Return whether there are shapes in the place of arrays."""
    return any(
        isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(tree)
    )


def trace(loss: Callable, params: Tree, args: tuple) -> tuple[Any, int]:
    """Return the program of the loss, and how many arrays it returns.

    Raises:
        TypeError: params hold something else than arrays, or no weights.
        ValueError: the loss has no gradient.
    """
    check_no_refs(params)
    for entry in entries(params):
        if not entry.is_hole and not hasattr(entry.leaf, "dtype"):
            raise TypeError(
                f"params hold {brief(entry.leaf)} at {entry.path!r}, which is"
                " no array: convert it with jnp.asarray, or move it out of"
                " params (of an Equinox model, eqx.partition does)."
            )
    floats = [
        entry.path
        for entry in entries(params)
        if not entry.is_hole
        and jnp.issubdtype(jax.dtypes.result_type(entry.leaf), np.floating)
    ]
    if not floats:
        raise TypeError(
            "params hold no floating-point array; pass the weights, such as"
            " variables['params'] or nnx.state(model, nnx.Param)."
        )
    try:
        program, found = jaxprs.make_jaxpr(loss, params, *args)
    except Exception as error:
        error.add_note(
            "while calling loss_fn(params, *args): it has to take params of"
            " this structure and these arguments, and to be traceable by jit."
        )
        raise
    dtypes = [x.dtype for x in jax.tree.leaves(found)]
    if not any(jnp.issubdtype(d, np.inexact) for d in dtypes):
        raise ValueError(
            f"loss_fn returns {found}, which has no gradient: return the loss,"
            " a floating-point array."
        )
    return program, len(dtypes)


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Compute in double precision, into which everything is promoted."""
    with (
        warnings.catch_warnings(),
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
    ):
        # Running averages of a single-precision model, which nobody looks at.
        warnings.filterwarnings("ignore", "scatter inputs have incompatible")
        yield
