"""Units of mean zero and variance one on one batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax._text import summarize
from psi_optax._validation import check_flag
from psi_optax.groups import Leaves, Tree
from psi_optax.groups.paths import leaves_with_paths, map_with_path
from psi_optax.groups.reductions import to_accumulator

# A variance below the square of so many roundings is a rounding error.
_ROUNDINGS = 64


def data_dependent_initialization(
    preactivations: Callable[[Tree, Any], Mapping[str, jax.Array]],
    params: Tree,
    x: Any,
    layers: Sequence[tuple[str, str | None]],
    *,
    centered: bool = True,
    per_unit: bool = True,
) -> Tree:
    r"""Give the outputs of layers mean zero and variance one on a batch.

    For the outputs t of a layer, with mean m and deviation s over the batch,
    the kernel becomes \(k/s\) and the bias \((b - m)/s\): one layer after
    another, each on the outputs of those before it. On this batch the network
    then computes as if each layer were followed by a batch normalization.

    | initialization | options | kernels before |
    |---|---|---|
    | of weight normalization | | any |
    | LSUV, one s for a layer | `centered=False, per_unit=False` | orthonormal |

    For weight normalization call its `init` afterwards: gains are then
    \(1/s\) of the outputs of unit filters.

    Args:
        preactivations: preactivations(params, x) returns the outputs of layers
            by the path of their kernel, with units along the last axis.
        params: arrays.
        x: the batch, passed on.
        layers: the paths of the kernel and the bias of each layer, in order of
            depth; None for a layer without a bias, whose mean is kept. Units
            are along the last axis of both.
        centered: whether to subtract the mean.
        per_unit: whether each unit has its own deviation. Otherwise a layer has
            one.

    Returns:
        A tree like params.

    Raises:
        TypeError: an option is not a flag.
        ValueError: a path that params or preactivations do not have; a kernel
            of another number of units than its outputs; outputs that do not
            vary on the batch, or are not finite.

    Examples:
        >>> def preactivations(params, x):
        ...     return {"k": x @ params["k"] + params["b"]}
        >>> params = {"k": jnp.full((1, 1), 5.0), "b": jnp.ones(1)}
        >>> x = jnp.array([[1.0], [3.0]])
        >>> params = data_dependent_initialization(
        ...     preactivations, params, x, [("k", "b")]
        ... )
        >>> preactivations(params, x)["k"].ravel().tolist()
        [-1.0, 1.0]

    References:
        Salimans and Kingma, [Weight
        normalization](https://arxiv.org/abs/1602.07868), 2016, section 3;
        Mishkin and Matas, [All you need is a good
        init](https://arxiv.org/abs/1511.06422), ICLR 2016, for LSUV.
    """
    check_flag(centered=centered, per_unit=per_unit)
    for kernel, bias in layers:
        outputs = preactivations(params, x)
        leaves = _layer(params, outputs, kernel, bias)
        t = to_accumulator(outputs[kernel])
        batch = tuple(range(t.ndim - 1))
        deviation = jnp.std(t, batch if per_unit else None)
        _check_varies(kernel, t, deviation)
        mean = jnp.mean(t, batch) * float(centered)
        moved = {kernel: to_accumulator(leaves[kernel])}
        if bias is not None:
            b = to_accumulator(leaves[bias])
            moved[bias] = b - _row(mean, b)
        moved = {path: y / _row(deviation, y) for path, y in moved.items()}
        params = _replace(params, moved)
    return params


def _row(values: jax.Array, x: jax.Array) -> jax.Array:
    """Return values of units in the rank of a parameter."""
    return values.reshape((1,) * (x.ndim - values.ndim) + values.shape)


def _replace(params: Tree, leaves: Leaves) -> Tree:
    return map_with_path(
        lambda path, x: leaves[path].astype(x.dtype) if path in leaves else x,
        params,
    )


def _layer(
    params: Tree,
    outputs: Mapping[str, jax.Array],
    kernel: str,
    bias: str | None,
) -> Leaves:
    """Return the parameters of a layer by path.

    Raises:
        ValueError: a path is unknown, or the number of units differs.
    """
    known = {x.path: x.leaf for x in leaves_with_paths(params)}
    paths = [kernel] if bias is None else [kernel, bias]
    for path in paths:
        if path not in known:
            raise ValueError(
                f"params have no {path!r}, but {summarize(list(known))}: pass"
                " paths of parameters in layers."
            )
    if kernel not in outputs:
        raise ValueError(
            f"preactivations have no {kernel!r}, but"
            f" {summarize(list(outputs))}: return the outputs of this layer at"
            " the path of its kernel."
        )
    units = outputs[kernel].shape[-1:]
    for path in paths:
        if known[path].shape[-1:] != units:
            raise ValueError(
                f"{path!r} of shape {known[path].shape} does not have the"
                f" {units[0]} units of its outputs of shape"
                f" {outputs[kernel].shape} along its last axis: transpose them."
            )
    return {path: known[path] for path in paths}


def _check_varies(kernel: str, t: jax.Array, deviation: jax.Array) -> None:
    """Require outputs that vary on the batch, if they are known.

    Raises:
        ValueError: a unit is constant or non-finite.
    """
    if isinstance(deviation, jax.core.Tracer):
        return
    smallest = _ROUNDINGS * float(jnp.finfo(t.dtype).eps)
    size = jnp.max(jnp.abs(t), tuple(range(t.ndim - 1)))
    size = size if deviation.ndim else jnp.max(size)
    varies = (deviation > smallest * size) & jnp.isfinite(deviation)
    if not varies.all():
        units = np.flatnonzero(~np.atleast_1d(varies))
        raise ValueError(
            f"{kernel!r}: its outputs at units"
            f" {summarize(list(map(str, units)))} are constant on the batch, or"
            " not finite, and have no deviation to divide by. Pass more"
            " examples, or initialize these units anew."
        )
