"""Integer and boolean parameters, which no transform moves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax.groups import make_plan
from psi_optax.groups.paths import Tree, entries, map_with_path
from psi_optax.transforms.base import check_updates


def leave_integers(
    inner: optax.GradientTransformation, groups: Any = None
) -> optax.GradientTransformationExtraArgs:
    """Runs a transform on what is not integer or boolean.

    Those it does not see, as if they were None. Their updates are zeros of
    their own dtype, whatever their gradients are: `jax.grad` with `allow_int`
    gives float0, which nothing can be added to. None stays None. Without
    params, updates are zeros of the dtype that they have.

    Args:
        inner: a transform.
        groups: its scale groups, of which none may be of integers.

    Returns:
        The transform, which raises a ValueError for updates that are not like
        params.
    """
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        make_plan(groups, params)
        return inner.init(_without(params, _integers(params)))

    def update_fn(updates, state, params=None, **extra_args):
        check_updates(updates, params)
        found = _integers(updates if params is None else params)
        steps, state = inner.update(
            _without(updates, found),
            state,
            _without(params, found),
            **extra_args,
        )
        return _with_zeros(steps, updates, found), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def is_integer(leaf: Any) -> bool:
    """Whether this is an integer, a boolean, or the gradient of one."""
    if isinstance(leaf, int):
        return True
    dtype = getattr(leaf, "dtype", np.dtype(float))
    kinds = (jnp.integer, jnp.bool_, jax.dtypes.float0)
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)


def _integers(tree: Tree) -> dict[str, Any]:
    return {
        entry.path: entry.leaf
        for entry in entries(tree)
        if is_integer(entry.leaf)
    }


def _without(tree: Tree, found: dict[str, Any]) -> Tree:
    """The tree with None there, which a gradient may be already."""
    if not found:
        return tree
    return map_with_path(lambda path, x: None if path in found else x, tree)


def _with_zeros(steps: Tree, updates: Tree, found: dict[str, Any]) -> Tree:
    """The steps in the tree of updates, whose holes stay."""
    if not found:
        return steps
    given = {entry.path: entry.leaf for entry in entries(steps)}
    zeros = {path: jnp.zeros_like(leaf) for path, leaf in found.items()}
    return map_with_path(lambda path, _: {**given, **zeros}[path], updates)
