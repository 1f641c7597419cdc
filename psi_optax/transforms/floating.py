"""Floating leaves as arrays, in float32 if they have 16 bits.

And updates for leaves that cannot move.
"""

from typing import Any

import jax
import jax.numpy as jnp

from psi_optax.groups import Tree
from psi_optax.groups.paths import leaves_with_paths, map_with_path

HALF_DTYPES = (jnp.dtype("bfloat16"), jnp.dtype("float16"))


def is_half(x: jax.typing.ArrayLike) -> bool:
    """Return whether x, an array or a shape with a dtype, has 16 bits."""
    return jax.dtypes.result_type(x) in HALF_DTYPES


def upcast_half(tree: Any) -> Any:
    """Return the tree with 16-bit leaves cast to float32, which is exact.

    Unlike `to_accumulator` it leaves integers.
    """
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32) if is_half(x) else x, tree
    )


def floats_as_arrays(tree: Tree, params: Tree) -> Tree:
    """Return the tree with arrays at floating parameters; the rest stays."""
    return _convert(tree, params, hide=False)


def show_floats(tree: Tree, params: Tree) -> Tree:
    """Return the tree with arrays at floating parameters, None elsewhere."""
    return _convert(tree, params, hide=True)


def _convert(tree: Tree, params: Tree, *, hide: bool) -> Tree:
    found = {
        x.path: x.leaf
        for x in leaves_with_paths(params)
        if not x.is_placeholder
    }

    def leaf(path: str, x: Any) -> Any:
        w = found.get(path, x)
        if is_inexact(w):
            return _as_array(x, w)
        return None if hide else x

    return map_with_path(leaf, tree)


def is_inexact(leaf: Any) -> bool:
    """Return whether a leaf is of floating or complex numbers."""
    if isinstance(leaf, (float, complex)):
        return True
    return jnp.issubdtype(getattr(leaf, "dtype", object), jnp.inexact)


def _as_array(x: Any, w: Any) -> jax.Array:
    """Return an array; a Python number takes the dtype of its parameter."""
    if isinstance(x, jax.Array):
        return x
    return jnp.asarray(x, jnp.result_type(x if hasattr(x, "dtype") else w))


def with_the_rest(steps: Tree, updates: Tree, params: Tree) -> Tree:
    """Return the steps, with updates for leaves that `show_floats` hides."""
    hidden = {
        x.path: x.leaf
        for x in leaves_with_paths(params)
        if not x.is_placeholder and not is_inexact(x.leaf)
    }
    if not hidden:
        return steps
    moved = {x.path: x.leaf for x in leaves_with_paths(steps)}

    def leaf(path: str, u: Any) -> Any:
        return _no_step(u, hidden[path]) if path in hidden else moved[path]

    return map_with_path(leaf, updates)


def _no_step(u: Any, leaf: Any) -> Any:
    """Return zero for an integer or a boolean, the update for anything else."""
    dtype = getattr(leaf, "dtype", object)
    kinds = (jnp.integer, jnp.bool_)
    if isinstance(leaf, int) or any(jnp.issubdtype(dtype, k) for k in kinds):
        return jnp.zeros_like(leaf)
    return u
