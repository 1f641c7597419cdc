"""Compilation for tests that compile for longer than they compute."""

import contextlib
import functools

import jax
import pytest
from jax._src import compiler

# Scheduling hints bound the memory of a step on later versions alone.
needs_bounded_memory = pytest.mark.skipif(
    jax.__version_info__ < (0, 10),
    reason="until JAX 0.9, XLA copies all new weights in a step in place",
)


@functools.cache
def quick_options():
    """Return the options with which the compiler takes the least time.

    The machine code is rough. Most of the time is that of the emitters of
    fusions, which are an option of some versions only.
    """
    known = {}
    for name, value in [
        ("xla_backend_optimization_level", 0),
        ("xla_llvm_disable_expensive_passes", True),
        ("xla_cpu_use_fusion_emitters", False),
        ("xla_cpu_parallel_codegen_split_count", 1),
    ]:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            jax.jit(lambda: 0.0, compiler_options={name: value})()
            known[name] = value
    return known


def quick_jit(function, **kwargs):
    """Return `jax.jit` of a function, compiled in the least time."""
    return jax.jit(function, compiler_options=quick_options(), **kwargs)


@contextlib.contextmanager
def all_quick():
    """Compile everything in the least time, single operations too."""
    get_options, quick = compiler.get_compile_options, quick_options()

    def get_quick_options(*args, env_options_overrides=None, **kwargs):
        options = {**(env_options_overrides or {}), **quick}
        return get_options(*args, env_options_overrides=options, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compiler, "get_compile_options", get_quick_options)
        yield
