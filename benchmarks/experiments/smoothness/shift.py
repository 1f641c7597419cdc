"""Internal covariate shift, measured on gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from psi_optax import geometry
from psi_optax.groups import make_plan


class Shift(NamedTuple):
    """Effect of the step of all earlier layers on the gradient of each kernel.

    Attributes:
        cosine: between the gradients before and after, shape (layers,).
        change: the norm of their difference, divided by that of the one before.
    """

    cosine: jax.Array
    change: jax.Array


def covariate_shift(
    loss: Callable[[Any], jax.Array], params: Any, moved: Any, groups: Any
) -> Shift:
    r"""Compare gradients before and after the step of the earlier layers.

    With \(G_i\) the gradient of layer i at params, and \(G'_i\) that where the
    layers before i are those of `moved`. With groups they are gradients by
    directions, \(r\,g\).

    Source: Santurkar et al. (2018), definition 2.1.
    """
    depths = {name: depth(name, params) for name in params}
    kernels = [name for name in params if "kernel" in params[name]]
    kernels.sort(key=lambda name: depths[name])
    plan = make_plan(groups, params)
    norms = geometry.norm(plan, plan.select(params))

    def gradients(index):
        mixed = {
            name: jax.tree.map(
                lambda x, y, d=depths[name]: jnp.where(d < index, y, x),
                params[name],
                moved[name],
            )
            for name in params
        }
        g = jax.grad(loss)(mixed)
        g = plan.merge(g, geometry.scale(plan, plan.select(g), norms))
        return [g[name]["kernel"] for name in kernels]

    # After the layers before i moved, only the gradient of layer i counts.
    after = jax.lax.map(gradients, jnp.arange(len(kernels)))
    pairs = [
        _compare(x, y[index])
        for index, (x, y) in enumerate(zip(gradients(0), after, strict=True))
    ]
    return Shift(*map(jnp.stack, zip(*pairs, strict=True)))


def depth(name: str, params: Any) -> int:
    """Return the number of hidden layers before a part of the parameters."""
    _, found, index = name.rpartition("_")
    return int(index) if found else sum(x.startswith("hidden_") for x in params)


def _compare(before, after):
    """Return the cosine of two gradients, and the relative change."""
    size, other = jnp.linalg.norm(before), jnp.linalg.norm(after)
    cosine = jnp.vdot(before, after) / (size * other)
    return cosine, jnp.linalg.norm(after - before) / size
