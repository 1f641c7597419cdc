"""Groups of output channels, by the layout of kernels."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp

from psi_optax._text import summarize
from psi_optax.groups.path_rules import compile_pattern
from psi_optax.groups.paths import PathLeaf, leaves_with_paths, map_with_path
from psi_optax.groups.scale_group import ScaleGroup
from psi_optax.groups.types import Tree

Where = str | Iterable[str] | Callable[[str, Any], bool]


def output_channels(
    params: Tree, *, where: Where, axis: int | Iterable[int] = -1
) -> Tree:
    """State one group per output channel of the kernels that `where` selects.

    There is no default for `where`: parameters do not show which kernels feed a
    normalization layer. The kernel of the last layer looks like the others, and
    its scale changes the loss.

    | kernel | shape | `axis` |
    |---|---|---|
    | Flax Dense, Conv (grouped, depthwise) | (..., in, out) | -1 |
    | Flax ConvTranspose(transpose_kernel=True) | (H, W, out, in) | -2 |
    | Flax attention query, key, value | (in, heads, head_dim) | (-2, -1) |
    | PyTorch and Equinox layout, OIHW | (out, in, ...) | 0 |

    Args:
        params: arrays or `jax.ShapeDtypeStruct`s.
        where: a regular expression, or several, one of which matches the whole
            normalized path; or a predicate function(path, leaf).
        axis: the output axis or axes: one group for each of their indices.

    Returns:
        A tree like params with a `ScaleGroup` at the chosen leaves and None at
        all others.

    Raises:
        TypeError: `where` is neither a pattern nor a predicate.
        ValueError: `where`, or one of several patterns, selects nothing; an
            axis is out of range; no axis is left for a group to lie along.

    Examples:
        >>> params = {"conv": {"kernel": jnp.ones((3, 3, 8, 16))},
        ...           "head": {"kernel": jnp.ones((16, 10))}}
        >>> output_channels(params, where="conv/kernel")
        {'conv': {'kernel': ScaleGroup(axes=(0, 1, 2))},
         'head': {'kernel': None}}
    """
    axes = ScaleGroup(axis).axes
    shown = [x for x in leaves_with_paths(params) if not x.is_placeholder]
    selected = {}
    for text, predicate in _predicates(where).items():
        found = [x for x in shown if predicate(*x)]
        if not found:
            raise ValueError(_selects_nothing(text, shown))
        selected |= {x.path: _all_axes_but(axes, x) for x in found}
    return map_with_path(lambda path, _: selected.get(path), params)


def _predicates(where: Where) -> dict[str, Callable[[str, Any], Any]]:
    """Return a predicate for each pattern, by its repr."""
    if callable(where):
        return {repr(where): where}
    if not isinstance(where, Iterable):
        raise TypeError(f"where={where!r}: pass a pattern or a predicate.")
    listed = [where] if isinstance(where, str) else list(where)
    return {repr(p): _matching(compile_pattern(p)) for p in listed}


def _matching(pattern: re.Pattern[str]) -> Callable[[str, Any], Any]:
    return lambda path, _: pattern.fullmatch(path)


def _selects_nothing(where: str, shown: list[PathLeaf]) -> str:
    if not shown:
        return "params hold no parameter: pass the tree of weights."
    names = summarize([repr(entry.path) for entry in shown])
    return (
        f"where={where} selects none of {names}. A pattern must match a whole"
        r" path, as r'.*/kernel' does."
    )


def _all_axes_but(axes: tuple[int, ...], entry: PathLeaf) -> ScaleGroup:
    shape = jnp.shape(entry.leaf)
    place = f"{entry.path!r} of shape {shape}"
    try:
        kept = ScaleGroup(axes).resolve(shape).axes
    except ValueError as error:
        raise ValueError(f"{place}, axis={axes}: {error}.") from None
    rest = tuple(i for i in range(len(shape)) if i not in kept)
    if not rest:
        raise ValueError(
            f"{place} has only output axes {axes}, none for a group to lie"
            " along. For a bias tied to its kernel, state ScaleGroup(axes=(),"
            " tie=...) through groups_from_paths."
        )
    return ScaleGroup(rest)
