"""AdamP's projection, which tests for scale invariance at every step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax._validation import (
    check_choice,
    check_nonnegative,
    check_number,
    check_transformation,
)
from psi_optax.geometry import safe_divide
from psi_optax.groups import Tree
from psi_optax.groups.reductions import to_accumulator
from psi_optax.transforms.contract import floating_transform
from psi_optax.wrappers.conflicts import CONFLICTS
from psi_optax.wrappers.nesting import check_nesting

_AXES = {"last": -1, "first": 0}
_Dot = Callable[[jax.Array, jax.Array], jax.Array]


class ProjectByCosineState(NamedTuple):
    """State of `project_by_cosine`.

    Attributes:
        inner: of the inner optimizer.
    """

    inner: optax.OptState


def project_by_cosine(
    direction: optax.GradientTransformation,
    *,
    weight_decay: jax.typing.ArrayLike = 0.0,
    wd_ratio: jax.typing.ArrayLike = 0.1,
    delta: jax.typing.ArrayLike = 0.1,
    eps: jax.typing.ArrayLike = 1e-8,
    channels: str = "last",
) -> optax.GradientTransformationExtraArgs:
    r"""Project the steps of weights whose gradients look tangent at this step.

    AdamP's algorithm views a parameter of rank 2 or more as channels, then as
    one vector. In the first view in which every gradient is orthogonal to its
    weights, \(|\cos(g, w)| < \delta/\sqrt{n}\) for n weights, the update loses
    its part along the weights, and the weights decay less. This needs no groups
    and can be wrong: a gradient looks orthogonal by chance in a few percent of
    the steps, and one channel with a radial gradient hides all others. It is
    here for comparison; `adamp` takes groups.

    \(u \mapsto P\,\mathrm{direction}(g) + \lambda\,q\,w\), with q = `wd_ratio`
    after a projection and 1 otherwise, before the learning rate. Complex
    parameters are not projected.

    Args:
        direction: a transform without a learning rate, such as
            `optax.trace(0.9)`.
        weight_decay: \(\lambda\), decoupled, of all parameters.
        wd_ratio: the factor of the decay of projected weights.
        delta: \(\delta\), the bound of the cosine.
        eps: added to norms.
        channels: the axis of output channels: "last", as in Flax, or "first",
            as in PyTorch.

    Returns:
        A transform that needs params, with a `ProjectByCosineState`. It is not
        equivariant.

    Raises:
        TypeError: `direction` is not a gradient transformation; a
            hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; params are missing in
            `update`; an inner optimizer that keeps its own weights.

    Examples:
        >>> tx = project_by_cosine(optax.trace(0.9))
        >>> w, east = jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [0.0]])
        >>> _, state = tx.update(w, tx.init(w), w)  # radial: not projected
        >>> u, _ = tx.update(east, state, w)  # orthogonal: momentum is
        >>> print(u.T)
        [[1. 0.]]

    References:
        Heo et al., [AdamP](https://arxiv.org/abs/2006.08217), ICLR 2021,
        algorithm 1.
    """
    check_transformation(direction=direction)
    check_number("weight_decay", weight_decay)
    check_nonnegative("wd_ratio", wd_ratio)
    check_nonnegative("delta", delta)
    check_nonnegative("eps", eps)
    check_choice("channels", channels, _AXES)
    axis = _AXES[channels]
    inner = optax.with_extra_args_support(direction)

    def init_fn(params: Tree) -> ProjectByCosineState:
        state = inner.init(params)
        check_nesting("project_by_cosine", state, CONFLICTS)
        return ProjectByCosineState(state)

    def update_fn(
        updates: Tree,
        state: Any,
        params: Tree = None,
        **extra_args: Any,
    ) -> tuple[Tree, ProjectByCosineState]:
        steps, inner_state = inner.update(
            updates, state.inner, params, **extra_args
        )

        def leaf(g: jax.Array, u: jax.Array, w: jax.Array) -> jax.Array:
            if jnp.iscomplexobj(w):
                return u + jnp.asarray(weight_decay, w.dtype) * w
            moved, factor = _project(
                to_accumulator(g), to_accumulator(u), to_accumulator(w)
            )
            decay = jnp.asarray(weight_decay, moved.dtype) * factor
            return (moved + decay * to_accumulator(w)).astype(u.dtype)

        updates = jax.tree.map(leaf, updates, steps, params)
        return updates, ProjectByCosineState(inner_state)

    def _project(
        g: jax.Array, u: jax.Array, w: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the update, projected or not, and the factor of its decay."""
        fires, moved = jnp.asarray(False), u
        for dot, size in _views(w, axis) if w.ndim > 1 else ():
            tiny = jnp.asarray(eps, w.dtype)
            norm = jnp.sqrt(dot(w, w)) + tiny
            cosine = safe_divide(
                jnp.abs(dot(g, w)), norm * (jnp.sqrt(dot(g, g)) + tiny)
            )
            bound = jnp.asarray(delta, w.dtype) / max(size, 1) ** 0.5
            here = jnp.max(cosine, initial=0) < bound
            radial = (w / norm) * dot(w / norm, u)
            moved = jnp.where(here & ~fires, u - radial, moved)
            fires = fires | here
        ratio = jnp.asarray(wd_ratio, u.dtype)
        return moved, jnp.where(fires, ratio, jnp.ones_like(ratio))

    return floating_transform(
        optax.GradientTransformationExtraArgs(init_fn, update_fn),
        kind=ProjectByCosineState,
    )


def _views(w: jax.Array, axis: int) -> list[tuple[_Dot, int]]:
    """Return inner products by channel and of all, with their sizes."""
    channels = w.shape[axis]
    rest = tuple(i for i in range(w.ndim) if i != axis % w.ndim)

    def view(axes: tuple[int, ...]) -> _Dot:
        return lambda a, b: jnp.sum(a * b, axis=axes, keepdims=True)

    return [
        (view(rest), w.size // max(channels, 1)),
        (view(tuple(range(w.ndim))), w.size),
    ]
