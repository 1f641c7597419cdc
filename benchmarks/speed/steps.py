"""Steps that are timed: how they are built and compiled.

A step takes and returns parameters and state, in place, and reads gradients or
a batch.
"""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.speed.turns import Run


class Case(NamedTuple):
    """A step with the arrays that it works on."""

    step: Callable
    params: Any
    state: Any

    def run(self, data: Any) -> Run:
        """Return what takes steps. The first one donates the case's arrays."""
        params, state = self.params, self.state

        def run(steps: int) -> None:
            nonlocal params, state
            for _ in range(steps):
                params, state = self.step(params, state, data)
            jax.block_until_ready((params, state))

        return run


class Compilation(NamedTuple):
    """Seconds, instructions and megabytes of a compiled step."""

    trace_s: float
    compile_s: float
    instructions: int
    temporary_mb: float
    peak_mb: float


def build(tx: optax.GradientTransformation, params: Any) -> Case:
    """Build an optimizer's step on copies of the parameters."""

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return Case(step, jax.tree.map(jnp.copy, params), jax.jit(tx.init)(params))


def build_by_hand(
    tx: optax.GradientTransformation, params: dict[str, Any], grouped: str
) -> Case:
    """Build the same, with the usual code that keeps the norms of filters."""

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

    return Case(step, jax.tree.map(jnp.copy, params), init(params))


def build_copy(params: Any) -> Case:
    """Build a yardstick: an array as large as all parameters is copied."""
    leaves = jax.tree.leaves(params)
    numbers = sum(leaf.size for leaf in leaves)

    def step(target, source, gradients):
        del target, gradients  # The copy takes the place of the target.
        return jnp.copy(source), source

    target, source = (jnp.ones(numbers, leaves[0].dtype) for _ in range(2))
    return Case(step, target, source)


def size(tree: Any) -> int:
    """Return the bytes of all arrays of a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def compile_case(case: Case, data: Any) -> tuple[Case, Compilation]:
    """Compile a step as if for the first time."""

    def step(*arguments):  # A new function: jit has not seen it.
        return case.step(*arguments)

    jax.clear_caches()  # Nor the functions that it calls.
    # The target of a copy is not used, but kept to be replaced.
    fresh = jax.jit(step, donate_argnums=(0, 1), keep_unused=True)
    start = time.perf_counter()
    lowered = fresh.lower(case.params, case.state, data)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    memory: Any = compiled.memory_analysis()
    temporary = memory.temp_size_in_bytes
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes
    peak += temporary - memory.alias_size_in_bytes
    return case._replace(step=compiled), Compilation(
        trace_s=traced - start,
        compile_s=done - traced,
        instructions=str(compiled.as_text()).count(" = "),
        temporary_mb=temporary / 2**20,
        peak_mb=peak / 2**20,
    )


def compile_in_turns(
    cases: dict[str, Case], data: Any, times: int
) -> tuple[dict[str, Case], dict[str, Compilation]]:
    """Compile each so often, back and forth; keep the least times."""
    compiled: dict[str, Case] = {}
    found: dict[str, Compilation] = {}
    for turn in range(times):
        for name in list(cases)[:: 1 if turn % 2 == 0 else -1]:
            compiled[name], new = compile_case(cases[name], data)
            old = found.get(name, new)
            found[name] = new._replace(
                trace_s=min(new.trace_s, old.trace_s),
                compile_s=min(new.compile_s, old.compile_s),
            )
    return {name: compiled[name] for name in cases}, found
