"""Compilation for tests that compile for longer than they compute."""

import jax

ROUGH = {"xla_backend_optimization_level": 0}


def rough_jit(function, **kwargs):
    """`jax.jit` in half the time; the machine code is left rough."""
    return jax.jit(function, compiler_options=ROUGH, **kwargs)
