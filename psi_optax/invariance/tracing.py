"""Trace a loss once, into a record that proof and measurement start from."""

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax import _compat
from psi_optax._text import short_repr
from psi_optax.groups.frameworks import (
    Inputs,
    as_function,
    choose,
    interleave,
    is_array,
    take_apart,
)
from psi_optax.groups.paths import PathLeaf, check_no_refs, leaves_with_paths
from psi_optax.groups.types import Tree
from psi_optax.invariance import jaxprs
from psi_optax.invariance.axis_names import (
    bind_axis,
    devices_differ,
    read_axis_names,
)
from psi_optax.invariance.error_notes import notes_on


@dataclasses.dataclass(frozen=True)
class TracedLoss:
    """A loss with its weights, its arguments and its program.

    Attributes:
        function: the loss as a function of params and of arrays.
        params: arrays or `jax.ShapeDtypeStruct`s.
        args: the arrays, or their shapes.
        program: the jaxpr of the function.
        returned: the number of arrays that it returns.
        data: the names of collections beside params, which are not searched.
        devices_differ: whether devices of `axis_name` have different data.
    """

    function: Callable[..., Any]
    params: Tree
    args: tuple[Any, ...]
    program: Any
    returned: int
    data: tuple[str, ...] = ()
    devices_differ: bool = True

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
        """Return whether shapes stand in place of some arrays."""
        leaves = jax.tree.leaves((self.params, self.args))
        return any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves)


def trace_loss(
    loss_fn: Callable[..., Any],
    params: Tree,
    args: tuple[Any, ...],
    has_aux: bool = False,
    axis_name: str | Sequence[str] | None = None,
) -> TracedLoss:
    """Trace a loss.

    Args:
        loss_fn: called as loss_fn(params, *args); or a Flax Linen module.
        params: a model, its variables, or weights; arrays or shapes.
        args: arrays, shapes, or anything else, which stays fixed.
        has_aux: whether the loss returns a pair, whose second part is ignored.
        axis_name: names of axes of devices that the loss refers to.

    Raises:
        TypeError: the loss is no function, or params hold something else than
            arrays, or no weights, or the loss returns no pair.
        ValueError: the loss has no gradient.
    """
    names = read_axis_names(axis_name)
    loss_fn = as_function(loss_fn)
    if not callable(loss_fn):
        remedy = (
            "its `apply`, or a loss that calls it"
            if hasattr(loss_fn, "apply")
            else "loss_fn, params, then the other arguments of the loss, in"
            " order"
        )
        raise TypeError(
            f"loss_fn is {short_repr(loss_fn)}, which cannot be called: pass"
            f" {remedy}."
        )
    inputs = _without_tracers(take_apart(params, args))
    _check_params(inputs.params)
    if has_aux:
        loss_fn = _without_aux(loss_fn)
    function, arrays = _of_arrays(loss_fn, inputs, names)
    try:
        program, found = jaxprs.make_jaxpr(function, inputs.params, *arrays)
    except Exception as error:
        for note in notes_on(error, names):
            error.add_note(note)
        raise
    dtypes = [x.dtype for x in jax.tree.leaves(found)]
    if not any(jnp.issubdtype(d, np.inexact) for d in dtypes):
        raise ValueError(
            f"loss_fn returns {found}, which has no gradient: return the loss,"
            " a floating-point array."
        )
    arguments = filter(is_array, jax.tree.leaves(inputs.args))
    return TracedLoss(
        function,
        inputs.params,
        arrays,
        program,
        len(dtypes),
        inputs.data,
        not names or devices_differ(program, arguments),
    )


def _without_tracers(inputs: Inputs) -> Inputs:
    """Return inputs with shapes in place of arrays that are traced."""
    params, state, args = jax.tree.map(
        lambda x: (
            jax.ShapeDtypeStruct(x.shape, x.dtype)
            if isinstance(x, jax.core.Tracer)
            else x
        ),
        (inputs.params, inputs.state, inputs.args),
    )
    return inputs._replace(params=params, state=state, args=args)


def _of_arrays(
    loss_fn: Callable[..., Any], inputs: Inputs, names: Sequence[str]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return the loss as a function of weights and arrays, and the arrays."""
    count = len(jax.tree.leaves(inputs.state))
    leaves, structure = jax.tree.flatten((inputs.state, inputs.args))
    chosen = list(map(is_array, leaves))
    fixed = choose(leaves, [not x for x in chosen])

    def loss(params: Tree, *arrays: Any) -> Any:
        filled = interleave(chosen, arrays, fixed)
        state, args = jax.tree.unflatten(structure, filled)
        return loss_fn(*inputs.join(params, state, args))

    varies = choose([False] * count + [True] * (len(leaves) - count), chosen)
    for name in names:
        loss = bind_axis(loss, name, varies)
    loss = functools.wraps(loss_fn, updated=())(loss)
    return loss, tuple(choose(leaves, chosen))


def _without_aux(loss_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the loss alone, of a function that returns it in a pair."""

    @functools.wraps(loss_fn, updated=())
    def loss(*args: Any) -> Any:
        found = loss_fn(*args)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise TypeError(
                "has_aux=True, but loss_fn does not return a pair, (loss, aux):"
                f" it returns {short_repr(found)}."
            )
        return found[0]

    return loss


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
                " params."
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
