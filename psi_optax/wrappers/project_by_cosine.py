"""AdamP's test of which weights have no scale, at every step."""

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
from psi_optax.groups.reductions import to_accumulator
from psi_optax.transforms.contract import on_floats
from psi_optax.wrappers.nesting import check_nesting

_AXES = {"last": -1, "first": 0}
_Dot = Callable[[jax.Array, jax.Array], jax.Array]


class ProjectByCosineState(NamedTuple):
    """The state of the optimizer whose updates are projected.

    Attributes:
        inner: of the inner optimizer.
    """

    inner: optax.OptState


def project_by_cosine(
    inner: optax.GradientTransformation,
    *,
    weight_decay: jax.typing.ArrayLike = 0.0,
    wd_ratio: jax.typing.ArrayLike = 0.1,
    delta: float = 0.1,
    eps: float = 1e-8,
    channels: str = "last",
) -> optax.GradientTransformationExtraArgs:
    r"""AdamP's projection, for weights that look scale-invariant at this step.

    A parameter of rank 2 or more is seen first channel by channel, then as one
    vector of all. The first view in which every gradient is orthogonal
    to its weights, \(|\cos(g, w)| < \delta/\sqrt{n}\) for n weights, decides:
    the update loses its part along the weights in that view, and the weights
    decay less. This needs no groups and can be wrong: chance makes a gradient
    look orthogonal in a few percent of the steps, and one channel with a
    radial gradient hides all others. It is here to compare with; `adamp` takes
    groups.

    \(u \mapsto P\,\mathrm{inner}(g) + \lambda\,q\,w\), with q the ratio where
    there is a projection and 1 elsewhere; the rate comes after. Complex
    parameters are not projected.

    Args:
        inner: a direction, such as `optax.trace(0.9)`.
        weight_decay: \(\lambda\), decoupled, of all parameters.
        wd_ratio: the factor of the decay of what is projected.
        delta: \(\delta\), how orthogonal counts.
        eps: added to norms.
        channels: whether the "last" axis is that of output channels, as in
            Flax, or the "first", as in PyTorch.

    Returns:
        A transform that needs params, with a `ProjectByCosineState`. Nothing in
        it knows of scale groups; it is not equivariant.

    Raises:
        TypeError: `inner` is no gradient transformation; a hyperparameter is of
            another type.
        ValueError: a hyperparameter is out of its range; params are missing in
            `update`; an inner optimizer that keeps weights of its own.

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
    check_transformation(inner=inner)
    check_number("weight_decay", weight_decay)
    check_nonnegative("wd_ratio", wd_ratio)
    check_nonnegative("delta", delta)
    check_nonnegative("eps", eps)
    check_choice("channels", channels, _AXES)
    axis = _AXES[channels]
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        state = inner.init(params)
        check_nesting("project_by_cosine", state)
        return ProjectByCosineState(state)

    def update_fn(updates, state, params=None, **extra_args):
        steps, inner_state = inner.update(
            updates, state.inner, params, **extra_args
        )

        def leaf(g, u, w):
            if jnp.iscomplexobj(w):
                return u + jnp.asarray(weight_decay, w.dtype) * w
            moved, factor = _project(
                to_accumulator(g), to_accumulator(u), to_accumulator(w)
            )
            decay = jnp.asarray(weight_decay, moved.dtype) * factor
            return (moved + decay * to_accumulator(w)).astype(u.dtype)

        updates = jax.tree.map(leaf, updates, steps, params)
        return updates, ProjectByCosineState(inner_state)

    def _project(g, u, w) -> tuple[jax.Array, Any]:
        """The update, projected where the test says so, and decay's factor."""
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

    return on_floats(
        optax.GradientTransformationExtraArgs(init_fn, update_fn),
        kind=ProjectByCosineState,
    )


def _views(w: jax.Array, axis: int) -> list[tuple[_Dot, int]]:
    """Inner products by channel, then of all, and how many weights they sum."""
    channels = w.shape[axis]
    rest = tuple(i for i in range(w.ndim) if i != axis % w.ndim)

    def view(axes) -> _Dot:
        return lambda a, b: jnp.sum(a * b, axis=axes, keepdims=True)

    return [
        (view(rest), w.size // max(channels, 1)),
        (view(tuple(range(w.ndim))), w.size),
    ]
