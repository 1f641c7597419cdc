"""Steps that are timed: how they are built and compiled.

A step takes and returns parameters and state, in place, and reads gradients or
a batch.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.speed.turns import Run, Times, clocks, time_in_turns


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
    plain = build(tx, params)

    def norm(w):
        squares = jnp.sum(w * w, tuple(range(w.ndim - 1)), keepdims=True)
        return jnp.sqrt(squares)

    def step(params, state, gradients):
        inner, norms = state
        moved, inner = plain.step(params, inner, gradients)
        for path, kept in norms.items():
            moved[path] = moved[path] * (kept / norm(moved[path]))
        return moved, (inner, norms)

    norms = {x: norm(params[x]) for x in params if re.fullmatch(grouped, x)}
    return Case(step, plain.params, (plain.state, norms))


def size(tree: Any) -> int:
    """Return the bytes of all arrays of a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def compile_case(case: Case, data: Any) -> tuple[Case, dict[str, float]]:
    """Compile a step as if for the first time; return its costs too."""
    jax.clear_caches()  # The functions that the step calls are cached as well.
    marks = [clocks()]
    lowered = lower(case, data)
    marks.append(clocks())
    compiled = lowered.compile()
    marks.append(clocks())
    memory: Any = compiled.memory_analysis()
    temporary = memory.temp_size_in_bytes
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes
    peak += temporary - memory.alias_size_in_bytes
    return case._replace(step=compiled), {
        **_seconds("trace", *marks[:2]),
        **_seconds("compile", *marks[1:]),
        "instructions": str(compiled.as_text()).count(" = "),
        "temporary_mb": temporary / 2**20,
        "peak_mb": peak / 2**20,
    }


def lower(case: Case, data: Any) -> Any:
    """Trace and lower a step that replaces parameters and state."""

    def step(*arguments):  # A new function, which jit has not traced.
        return case.step(*arguments)

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower
    return lowered(case.params, case.state, data)


def _seconds(
    work: str, start: tuple[float, float], end: tuple[float, float]
) -> dict[str, float]:
    return {
        f"{work}_{clock}_s": after - before
        for clock, before, after in zip(
            ("wall", "cpu"), start, end, strict=True
        )
    }


def time_cases(
    cases: dict[str, Case], data: Any, turns: int, count: int, compiles: int
) -> tuple[Times, dict[str, dict[str, float]]]:
    """Return the times of steps, and the least costs of compilations.

    Each case is compiled so often, back and forth.
    """
    compiled: dict[str, Case] = {}
    costs: dict[str, dict[str, float]] = {}
    for turn in range(compiles):
        for name in list(cases)[:: 1 if turn % 2 == 0 else -1]:
            compiled[name], new = compile_case(cases[name], data)
            old = costs.get(name, new)
            costs[name] = {key: min(new[key], old[key]) for key in new}
    runs = {name: compiled[name].run(data) for name in cases}
    return time_in_turns(runs, turns, count), costs
