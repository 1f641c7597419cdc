"""Storage of weights, and wrappers that keep small steps from being lost."""

import functools
from collections.abc import Callable

import jax
import optax

import psi_optax
from psi_optax.wrappers import master_weights, stochastic_rounding

GROUPS = psi_optax.ScaleGroup(axes=0)


MODES: dict[str, tuple[str, Callable]] = {
    "float32": ("float32", optax.with_extra_args_support),
    "float16": ("float16", optax.with_extra_args_support),
    "bfloat16": ("bfloat16", optax.with_extra_args_support),
    "bfloat16, stochastic rounding": (
        "bfloat16",
        functools.partial(stochastic_rounding, key=0),
    ),
    "bfloat16, master weights": ("bfloat16", master_weights),
}
"""Dtypes, and wrappers of the optimizer."""


def group_sum(x: jax.Array) -> jax.Array:
    """Sum over groups, as a row."""
    return x.sum(0, keepdims=True)
