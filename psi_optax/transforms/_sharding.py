"""Updates that multiply matrices, on a mesh with explicit axes."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from psi_optax.groups import Tree


def automatic_sharding(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Let the compiler choose shardings inside of an update.

    Explicit mesh axes require a sharding that follows from the types. A product
    of a sharded matrix with itself has none. The results are sharded like the
    arguments.
    """
    inner = optax.with_extra_args_support(inner)

    def update_fn(
        updates: Tree, state: Any, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, Any]:
        def update(updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
            return inner.update(updates, state, params, **extra_args)

        return _automatic(update, (updates, state))(updates, state, params)

    return optax.GradientTransformationExtraArgs(inner.init, update_fn)


def _automatic(function: Callable[..., Any], like: Any) -> Callable[..., Any]:
    explicit = jax.sharding.get_abstract_mesh().explicit_axes
    if not explicit:
        return function
    # Specs alone, as a Python number is on no mesh.
    specs = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, like)
    return jax.sharding.auto_axes(function, axes=explicit, out_sharding=specs)
