"""Steps that are timed: how they are built, and what it takes to compile them.

A step takes and returns parameters and state, in place, and reads gradients.
"""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.step_time_turns import Run

__all__ = [
    "Case",
    "Compilation",
    "build",
    "build_axpy",
    "build_by_hand",
    "build_copy",
    "compile_case",
    "compile_in_turns",
    "size",
]


class Case(NamedTuple):
    """An optimizer step with what it works on."""

    step: Callable
    params: Any
    state: Any

    def run(self, gradients: Any) -> Run:
        """Steps one after the other. The first takes the case's arrays."""
        params, state = self.params, self.state

        def run(steps: int) -> None:
            nonlocal params, state
            for _ in range(steps):
                params, state = self.step(params, state, gradients)
            jax.block_until_ready((params, state))

        return run


class Compilation(NamedTuple):
    """What it took to compile a step, and what came of it."""

    trace_s: float
    compile_s: float
    instructions: int
    temporary_mb: float
    peak_mb: float


def build(tx: optax.GradientTransformation, params: Any) -> Case:
    """A step on copies of the parameters, not compiled yet."""

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return Case(step, _copy(params), jax.jit(tx.init)(params))


def build_by_hand(
    tx: optax.GradientTransformation, grouped: str, params: dict[str, jax.Array]
) -> Case:
    """The same, and behind it what people write to keep the norms of filters.

    Args:
        tx: the optimizer.
        grouped: a pattern of paths; each output channel there is a filter.
        params: by path.
    """

    def norm(w):
        squares = jnp.sum(w * w, tuple(range(w.ndim - 1)), keepdims=True)
        return jnp.sqrt(squares)

    def step(params, state, gradients):
        inner, norms = state
        updates, inner = tx.update(gradients, inner, params)
        moved: Any = optax.apply_updates(params, updates)
        for path, kept in norms.items():
            moved[path] = moved[path] * (kept / norm(moved[path]))
        return moved, (inner, norms)

    @jax.jit
    def init(params):
        kept = [path for path in params if re.fullmatch(grouped, path)]
        return tx.init(params), {path: norm(params[path]) for path in kept}

    return Case(step, _copy(params), init(params))


def build_axpy(params: Any) -> Case:
    """A yardstick, as if it were an optimizer without state."""

    def step(params, state, gradients):
        moved = jax.tree.map(
            lambda w, g: w + jnp.asarray(0.01, w.dtype) * g, params, gradients
        )
        return moved, state

    return Case(step, _copy(params), ())


def build_copy(params: Any) -> Case:
    """Another: one array as large as all parameters is copied to another."""
    leaves = jax.tree.leaves(params)
    numbers = sum(leaf.size for leaf in leaves)

    def step(target, source, gradients):
        del target, gradients  # The copy takes the place of the target.
        return jnp.copy(source), source

    target, source = (jnp.ones(numbers, leaves[0].dtype) for _ in range(2))
    return Case(step, target, source)


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def size(tree: Any) -> int:
    """The bytes of all arrays of a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def compile_case(case: Case, gradients: Any) -> tuple[Case, Compilation]:
    """Compiles a step as if it had never been."""

    def step(*arguments):  # A new function: jit has not seen it.
        return case.step(*arguments)

    jax.clear_caches()  # Nor the functions that it calls.
    # What a copy replaces is not used, and kept to be replaced.
    fresh = jax.jit(step, donate_argnums=(0, 1), keep_unused=True)
    start = time.perf_counter()
    lowered = fresh.lower(case.params, case.state, gradients)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    return case._replace(step=compiled), Compilation(
        traced - start,
        done - traced,
        (compiled.as_text() or "").count(" = "),
        *_memory(compiled.memory_analysis()),
    )


def _memory(found: Any) -> tuple[float, float]:
    """Megabytes of temporaries, and of all that is alive at once."""
    if found is None:
        return float("nan"), float("nan")
    peak = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
    )
    return found.temp_size_in_bytes / 2**20, peak / 2**20


def compile_in_turns(
    cases: dict[str, Case], gradients: Any, times: int
) -> tuple[dict[str, Case], dict[str, Compilation]]:
    """Compiles every case so often, back and forth; the least time counts."""
    compiled, found = {}, {}
    for turn in range(times):
        for name in list(cases)[:: 1 if turn % 2 == 0 else -1]:
            compiled[name], new = compile_case(cases[name], gradients)
            old = found.get(name, new)
            found[name] = new._replace(
                trace_s=min(new.trace_s, old.trace_s),
                compile_s=min(new.compile_s, old.compile_s),
            )
    return {name: compiled[name] for name in cases}, found
