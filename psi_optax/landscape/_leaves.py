"""Floating leaves of params, and steps that have None at the others."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from psi_optax.groups import Tree
from psi_optax.groups.paths import leaves_with_paths, map_with_path


def is_floating(leaf: Any) -> bool:
    """Return whether a leaf has a real floating dtype."""
    if isinstance(leaf, float):
        return True
    return jnp.issubdtype(getattr(leaf, "dtype", object), jnp.floating)


def check_real(params: Tree) -> None:
    """Require that no parameter is complex.

    Raises:
        TypeError: a parameter is complex.
    """
    for x in leaves_with_paths(params):
        dtype = getattr(x.leaf, "dtype", object)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise TypeError(
                f"{x.path!r} of shape {x.leaf.shape} has dtype {dtype}: the"
                " landscape is of real parameters. Pass its real and imaginary"
                " parts as two parameters."
            )


def floating_sizes(params: Tree) -> dict[str, int]:
    """Return the number of entries of each floating leaf, by path."""
    return {
        x.path: math.prod(jnp.shape(x.leaf))
        for x in leaves_with_paths(params)
        if not x.is_placeholder and is_floating(x.leaf)
    }


def map_floating(function: Callable[[str, Any], Any], params: Tree) -> Tree:
    """Apply function(path, leaf) to floating leaves; None at the others."""
    return map_with_path(
        lambda path, x: function(path, x) if is_floating(x) else None, params
    )


def combine_leaves(
    function: Callable[[Any, Any], Any], params: Tree, other: Tree
) -> Tree:
    """Apply function(leaf, other leaf) to floating leaves; keep the others.

    Raises:
        ValueError: a leaf of the other tree is missing or has another shape.
    """
    found = {x.path: x for x in leaves_with_paths(other)}

    def leaf(path: str, x: Any) -> Any:
        if not is_floating(x):
            return x
        y = found.get(path)
        if y is None or y.is_placeholder or jnp.shape(y.leaf) != jnp.shape(x):
            have = "nothing" if y is None else f"shape {jnp.shape(y.leaf)}"
            raise ValueError(
                f"params have shape {jnp.shape(x)} at {path!r}, but the other"
                f" tree has {have}: pass a tree of the same structure and"
                " shapes."
            )
        return function(x, y.leaf)

    return map_with_path(leaf, params)


def scale_by_units(units: Tree | None, u: Tree) -> Tree:
    """Multiply a step by its units."""
    if units is None:
        return u
    return jax.tree.map(lambda c, x: jnp.broadcast_to(c, x.shape) * x, units, u)
