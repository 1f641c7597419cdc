"""Transforms that multiply matrices, on a mesh with explicit axes."""

from collections.abc import Callable
from typing import Any

import jax
import optax


def automatic_sharding(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Lets the compiler choose shardings inside of an update.

    A product of a sharded matrix with itself has no sharding that follows from
    the types, which explicit axes of a mesh demand. What comes out is sharded
    like what went in.
    """
    inner = optax.with_extra_args_support(inner)

    def update_fn(updates, state, params=None, **extra_args):
        def update(updates, state, params):
            return inner.update(updates, state, params, **extra_args)

        return _automatic(update, (updates, state))(updates, state, params)

    return optax.GradientTransformationExtraArgs(inner.init, update_fn)


def _automatic(function: Callable[..., Any], like: Any) -> Callable[..., Any]:
    explicit = jax.sharding.get_abstract_mesh().explicit_axes
    if not explicit:
        return function
    # By what is sharded over which axis: numbers on their own are on no mesh.
    specs = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, like)
    return jax.sharding.auto_axes(function, axes=explicit, out_sharding=specs)
