"""Checks of states, params and a count before moments are carried."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax._text import short_repr
from psi_optax._validation import check_nonnegative
from psi_optax.groups import Plan, Scalars, Tree
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.optimizers._moments import is_state, map_states, single_leaf
from psi_optax.optimizers.psi import PsiState

# Largest relative difference of a radius and a norm. Weights of 16 bits differ
# by 0.2 % from those whose norm was stored.
_NORM_TOLERANCE = 0.01


def check_state(name: str, state: Any) -> None:
    """Require the state of an optimizer, with values.

    Raises:
        TypeError: a transform, a container of states, shapes or tracers.
    """
    if isinstance(state, optax.GradientTransformation):
        raise TypeError(
            f"{name}={short_repr(state)} is a transform: pass its state, as"
            " that of init(params)."
        )
    nodes = jax.tree.leaves(state, is_leaf=is_state)
    if hasattr(state, "opt_state") or (
        isinstance(state, Mapping) and nodes and not any(map(is_state, nodes))
    ):
        raise TypeError(
            f"{name}, of type {type(state).__name__}, is not the state that"
            " init(params) returned: pass that, such as optimizer.opt_state of"
            " an nnx.Optimizer."
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        _check_value(f"{name}{jax.tree_util.keystr(path)}", leaf)


def check_weights(params: Tree, plan: Plan) -> None:
    """Require values of grouped weights, and no tracers.

    Raises:
        TypeError: shapes or tracers.
    """
    for path, leaf in leaves_with_paths(params):
        if path in plan.paths or isinstance(leaf, jax.core.Tracer):
            _check_value(f"params at {path!r}", leaf)


def check_steps(count: Any) -> None:
    """Require a whole number of steps, or None.

    Raises:
        TypeError: not a number, or a tracer.
        ValueError: a negative or fractional number.
    """
    if count is None:
        return
    check_nonnegative("count", count)
    _check_value("count", count)
    if not jnp.issubdtype(jnp.result_type(count), jnp.integer):
        raise ValueError(
            f"count={short_repr(count)} is not a whole number of steps: pass an"
            " int."
        )


def _check_value(where: str, leaf: Any) -> None:
    """Reject a shape and a tracer."""
    if isinstance(leaf, jax.core.Tracer):
        raise TypeError(
            f"{where} is traced, and its value is needed: call carry_moments"
            " outside of jax.jit and jax.vmap."
        )
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise TypeError(
            f"{where} is a shape, {leaf.shape}, without values: pass arrays."
        )


def check_radii(
    name: str, state: Any, plan: Plan, norms: Scalars, *, equal: bool
) -> None:
    """Require that the radii in a state are the norms of the groups.

    Groups along other axes may have the same shape, and other norms. Radii that
    other processes hold are not compared.

    Args:
        name: of the state, for an error.
        state: of any optimizer.
        plan: the groups.
        norms: of the groups.
        equal: whether radii that all are equal pass, as after `normalize`.

    Raises:
        ValueError: a radius is another.
    """

    def check(where: str, node: Any, _: frozenset[str]) -> Any:
        radii = node.radius if isinstance(node, PsiState) else None
        for path, stored in radii.items() if isinstance(radii, dict) else ():
            radius, norm = single_leaf(stored), norms[path]
            if not _fits(radius, norm, equal):
                raise ValueError(
                    f"{name}{where}.radius at {path!r} is not the norm of these"
                    " groups, which may lie along other axes: pass the groups"
                    " of that optimizer, and params from before any normalize."
                )
        return node

    map_states(check, state, plan)


def _fits(radius: Any, norm: Any, equal: bool) -> bool:
    """Return whether radii are norms, or are all equal where that passes."""
    if not all(
        getattr(x, "is_fully_addressable", True) for x in (radius, norm)
    ):
        return True
    radius, norm = np.asarray(radius, float), np.asarray(norm, float)
    if np.allclose(radius, norm, rtol=_NORM_TOLERANCE, atol=0.0):
        return True
    positive = radius[radius > 0]
    return equal and np.allclose(
        positive, positive.max(initial=0.0), rtol=_NORM_TOLERANCE
    )
