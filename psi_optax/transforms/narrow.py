"""Weights of 16 bits, and what they are in float32: the same numbers."""

from typing import Any

import jax
import jax.numpy as jnp

NARROW = (jnp.dtype("bfloat16"), jnp.dtype("float16"))


def is_narrow(x: jax.typing.ArrayLike) -> bool:
    """Whether x is of 16 bits; shapes with a dtype will do."""
    return jax.dtypes.result_type(x) in NARROW


def widen(tree: Any) -> Any:
    """The tree with narrow leaves in float32, which holds them exactly.

    Not the accumulator's `psi_optax.geometry.widen`, which casts integers too.
    """
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32) if is_narrow(x) else x, tree
    )
