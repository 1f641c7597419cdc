"""Losses and gradients along chosen steps."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from psi_optax._validation import check_positive
from psi_optax.groups import Groups, Tree
from psi_optax.groups.reductions import to_accumulator
from psi_optax.landscape._mapping import map_points
from psi_optax.landscape._steps import loss_of_steps


class GradientProbe(NamedTuple):
    """Measures along the negative gradient; all but the first of shape (n,).

    Attributes:
        loss: before a step, shape ().
        losses: after each step.
        change: the norm of the change of the gradient.
        cosine: between the gradients before and after.
        smoothness: the change divided by the length of the step.
    """

    loss: jax.Array
    losses: jax.Array
    change: jax.Array
    cosine: jax.Array
    smoothness: jax.Array


def loss_surface(
    loss_fn: Callable[..., Any],
    params: Any,
    *args: Any,
    directions: Sequence[Tree],
    steps: ArrayLike,
    groups: Groups = None,
) -> jax.Array:
    """Return the loss on a grid of steps along directions.

    The value at index (i, j) is that at steps[i] * directions[0] + steps[j] *
    directions[1]. It does not depend on the norms of groups.

    Args:
        loss_fn: called as loss_fn(params, *args); returns a floating scalar.
        params: arrays; or a model, as for `find_groups`.
        *args: the other arguments of the loss.
        directions: steps, such as two of `tangent_space(params,
            groups).random(key, filter_normalized=True)`, or vectors of
            `eigenpairs`.
        steps: coordinates along each direction, shape (n,).
        groups: scale groups in any form.

    Returns:
        Losses, of one axis of length n for each direction.

    Raises:
        TypeError: a parameter is complex.
        ValueError: groups or directions do not fit params; no directions; steps
            are not of shape (n,); the loss is no floating scalar.

    Examples:
        >>> import jax.numpy as jnp
        >>> losses = loss_surface(
        ...     lambda w: w @ w,
        ...     jnp.zeros(2),
        ...     directions=[jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])],
        ...     steps=[0.0, 1.0],
        ... )
        >>> losses.tolist()
        [[0.0, 4.0], [1.0, 5.0]]

    References:
        Li et al., [Visualizing the loss landscape of neural
        nets](https://arxiv.org/abs/1712.09913), NeurIPS 2018, for filter
        normalization. Their directions keep a radial part: the point at t of
        their plot is, for each filter, at an angle of atan2(t sin p, 1 + t cos
        p), p being the angle between the filter and the direction.
    """
    loss = loss_of_steps(loss_fn, params, args, groups, None)
    steps = jnp.asarray(steps)
    if not directions or steps.ndim != 1 or not steps.size:
        raise ValueError(
            f"{len(directions)} directions, and steps of shape {steps.shape}:"
            " pass at least one direction, and steps of shape (n,)."
        )
    axes = jnp.meshgrid(*[steps] * len(directions), indexing="ij")
    points = jnp.stack(axes, -1).reshape(-1, len(directions))
    losses = map_points(
        lambda point: loss.value(_combine(point, tuple(directions))), points
    )
    return losses.reshape(axes[0].shape)


@jax.jit
def _combine(point: jax.Array, directions: tuple[Tree, ...]) -> Tree:
    """Return the step that has these coordinates."""
    return jax.tree.map(
        lambda *x: sum(
            t.astype(d.dtype) * d
            for t, d in zip(point, map(to_accumulator, x), strict=True)
        ),
        *directions,
    )


def gradient_probe(
    loss_fn: Callable[..., Any],
    params: Any,
    *args: Any,
    steps: ArrayLike,
    groups: Groups = None,
    units: Tree | None = None,
) -> GradientProbe:
    r"""Measure the loss and its gradient along the negative gradient.

    With the gradient g at params and \(g'\) after a step \(-s\,g\): the loss,
    \(|g - g'|\), the cosine of g and \(g'\), and the effective smoothness
    \(|g - g'|/(s\,|g|)\), which approaches \(|Hg|/|g|\) as s vanishes. With
    groups, no measure depends on their norms. Without groups a filter is
    weighted by \(1/|w|^2\), so two networks also differ by their norms.

    Args:
        loss_fn: called as loss_fn(params, *args); returns a floating scalar.
        params: arrays; or a model, as for `find_groups`.
        *args: the other arguments of the loss.
        steps: learning rates, positive, shape (n,).
        groups: scale groups in any form.
        units: see `tangent_space`.

    Returns:
        A `GradientProbe`.

    Raises:
        TypeError: a parameter is complex; steps are not numbers.
        ValueError: groups or units do not fit params; steps are not positive
            or not of shape (n,); the loss is no floating scalar.

    Examples:
        >>> import jax.numpy as jnp
        >>> probe = gradient_probe(lambda w: w @ w, jnp.ones(2), steps=[0.5])
        >>> probe.losses.tolist(), probe.smoothness.tolist()
        ([0.0], [2.0])

    References:
        Santurkar et al., [How does batch normalization help
        optimization?](https://arxiv.org/abs/1805.11604), NeurIPS 2018.
    """
    steps = jnp.asarray(steps)
    check_positive("steps", steps, arrays=True)
    if steps.ndim != 1 or not steps.size:
        raise ValueError(f"steps have shape {steps.shape}: pass shape (n,).")
    loss = loss_of_steps(loss_fn, params, args, groups, units)
    before, gradient = loss.gradient(loss.zero)
    length = optax.tree.norm(gradient)

    def measure(step: jax.Array) -> tuple[ArrayLike, ...]:
        u = jax.tree.map(lambda g: -step.astype(g.dtype) * g, gradient)
        after, other = loss.gradient(u)
        change = optax.tree.norm(optax.tree.sub(gradient, other))
        product = optax.tree.vdot(gradient, other)
        cosine = product / (length * optax.tree.norm(other))
        return (
            after,
            change,
            cosine,
            change / (step.astype(length.dtype) * length),
        )

    return GradientProbe(before, *map_points(measure, steps))
