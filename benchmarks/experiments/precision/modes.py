"""Storage of weights, and wrappers that keep small steps from being lost."""

import functools

import optax

import psi_optax
from psi_optax.wrappers import master_weights, stochastic_rounding

GROUPS = psi_optax.ScaleGroup(axes=0)

_draw = functools.partial(stochastic_rounding, key=0)

MODES = {
    "float32": ("float32", optax.with_extra_args_support),
    "float16": ("float16", optax.with_extra_args_support),
    "bfloat16": ("bfloat16", optax.with_extra_args_support),
    "bfloat16, stochastic rounding": ("bfloat16", _draw),
    "bfloat16, master weights": ("bfloat16", master_weights),
}
"""Dtypes, and wrappers of the optimizer."""
