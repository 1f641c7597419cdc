"""Trace a loss once, into a record that proof and measurement start from."""

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax import _compat
from psi_optax._text import short_repr
from psi_optax.groups.paths import PathLeaf, check_no_refs, leaves_with_paths
from psi_optax.groups.types import Tree
from psi_optax.invariance import jaxprs


@dataclasses.dataclass(frozen=True)
class TracedLoss:
    """A loss with its weights, its arguments and its program.

    Attributes:
        function: the loss as a function of params and of arrays.
        params: arrays or `jax.ShapeDtypeStruct`s.
        args: the arrays, or their shapes.
        program: the jaxpr of the function.
        returned: the number of arrays that it returns.
    """

    function: Callable[..., Any]
    params: Tree
    args: tuple[Any, ...]
    program: Any
    returned: int

    @property
    def parameters(self) -> list[PathLeaf]:
        """The leaves of params with their paths, in the program's order."""
        return [
            entry
            for entry in leaves_with_paths(self.params)
            if not entry.is_placeholder
        ]

    @property
    def has_shapes(self) -> bool:
        """Whether shapes stand in place of some arrays."""
        leaves = jax.tree.leaves((self.params, self.args))
        return any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves)


def trace_loss(
    loss_fn: Callable[..., Any], params: Tree, args: tuple[Any, ...]
) -> TracedLoss:
    """Trace a loss.

    Args:
        loss_fn: called as loss_fn(params, *args).
        params: arrays or shapes.
        args: arrays, shapes, or anything else, which stays fixed.

    Raises:
        TypeError: the loss is no function, or params hold something else than
            arrays, or no weights.
        ValueError: the loss has no gradient.
    """
    function, arrays = _with_fixed_arguments(loss_fn, args)
    _check_params(params)
    try:
        program, found = jaxprs.make_jaxpr(function, params, *arrays)
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
    return TracedLoss(function, params, arrays, program, len(dtypes))


def _with_fixed_arguments(
    loss_fn: Callable[..., Any], args: tuple[Any, ...]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return the loss as a function of arrays alone, and the arrays."""
    if not callable(loss_fn):
        raise TypeError(
            f"loss_fn is {short_repr(loss_fn)}, which cannot be called: pass"
            " loss_fn, params, then the other arguments of the loss, in order."
        )
    leaves, structure = jax.tree.flatten(args)
    arrays = tuple(x for x in leaves if _is_array(x))

    @functools.wraps(loss_fn, updated=())
    def loss(params: Tree, *arrays: Any) -> Any:
        remaining = iter(arrays)
        filled = [next(remaining) if _is_array(x) else x for x in leaves]
        return loss_fn(params, *jax.tree.unflatten(structure, filled))

    return loss, arrays


def _is_array(x: Any) -> bool:
    return isinstance(
        x, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct
    )


def is_weight(leaf: Any) -> bool:
    """Check that a leaf of params is an array of floating-point numbers."""
    return jnp.issubdtype(jax.dtypes.result_type(leaf), np.floating)


def _check_params(params: Tree) -> None:
    check_no_refs(params)
    leaves = [
        entry for entry in leaves_with_paths(params) if not entry.is_placeholder
    ]
    for entry in leaves:
        if not hasattr(entry.leaf, "dtype"):
            raise TypeError(
                f"params hold {short_repr(entry.leaf)} at {entry.path!r}, which"
                " is no array: convert it with jnp.asarray, or move it out of"
                " params (of an Equinox model, eqx.partition does)."
            )
    if not any(is_weight(entry.leaf) for entry in leaves):
        raise TypeError(
            "params hold no floating-point array: pass the weights, such as"
            " variables['params'] or nnx.state(model, nnx.Param)."
        )


@contextlib.contextmanager
def double_precision() -> Generator[None]:
    """Compute in double precision, to which all arrays are promoted."""
    with (
        warnings.catch_warnings(),
        _compat.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
    ):
        # Writes to running averages of a single-precision model.
        warnings.filterwarnings("ignore", "scatter inputs have incompatible")
        yield
