"""What a step of psi_sgd would cost if its sums were formed otherwise.

    python -m benchmarks.step_time_variants
    python -m benchmarks.step_time_variants --docs

The step of `psi_optax.geometry.step`, written down once more without the
package, over the grouped parameters of ResNet-50, with its three sums a group
(of w², w d and d²) formed in several ways, or left out. The ratios are those to
SGD with momentum on the same parameters, in the same turns. Leaving sums out
gives no optimizer, but tells what a sum costs.
"""

import argparse
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import pages
from benchmarks.harness.files import one_message
from benchmarks.options import at_least
from benchmarks.step_time_cases import draw
from benchmarks.step_time_sets import SETS
from benchmarks.step_time_steps import Case, compile_in_turns
from benchmarks.step_time_turns import quartiles, time_in_turns

Sums = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]

_RATE, _MOMENTUM = 0.01, 0.9
_SGD = "SGD with momentum"


def _fan_in(w: jax.Array) -> tuple[int, ...]:
    return tuple(range(w.ndim - 1))


def plain(w: jax.Array, d: jax.Array, _: jax.Array) -> tuple[jax.Array, ...]:
    """Three sums."""
    axes = _fan_in(w)
    return jnp.sum(w * w, axes), jnp.sum(w * d, axes), jnp.sum(d * d, axes)


def known_norm(
    w: jax.Array, d: jax.Array, radius: jax.Array
) -> tuple[jax.Array, ...]:
    """The norm is taken to be the radius: two sums."""
    axes = _fan_in(w)
    return radius * radius, jnp.sum(w * d, axes), jnp.sum(d * d, axes)


def none(w: jax.Array, d: jax.Array, radius: jax.Array) -> tuple[Any, ...]:
    """One row in place of each sum."""
    row = (0,) * (w.ndim - 1)
    return radius * radius, w[row] * d[row], d[row] * d[row]


def packed(w: jax.Array, d: jax.Array, _: jax.Array) -> tuple[jax.Array, ...]:
    """Two of the sums as one of complex numbers."""
    axes = _fan_in(w)
    both = jnp.sum(jax.lax.complex(w * d, d * d), axes)
    return jnp.sum(w * w, axes), both.real, both.imag


def together(rows: int) -> Sums:
    """One reduction of three operands over so many rows, then the rest."""

    def sums(w, d, _):
        fan_in, width = w.shape[-2:]
        count = rows
        while fan_in % count:
            count //= 2
        shape = (*w.shape[:-2], fan_in // count, count, width)
        zero = jnp.zeros([], w.dtype)
        partial = jax.lax.reduce(
            tuple(x.reshape(shape) for x in (w * w, w * d, d * d)),
            (zero, zero, zero),
            lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
            (len(shape) - 2,),
        )
        return tuple(jnp.sum(x, _fan_in(x)) for x in partial)

    return sums


VARIANTS: dict[str, Sums] = {
    "three sums, as in the package": plain,
    "two, the norm being known": known_norm,
    "none": none,
    "two of the three as a complex sum": packed,
    "one reduction of three operands, 8 rows first": together(8),
    "one reduction of three operands, 32 rows first": together(32),
}


def _moved(w, d, radius, sums):
    """The new weights: `psi_optax.geometry.step`, without its guards."""
    square, inner, length = sums
    s = jnp.sqrt(square)
    v_d = inner / s
    q = _RATE**2 * jnp.maximum(length - v_d * v_d, 0)
    reach = 1 / jnp.sqrt(1 + q)
    fall = -q * reach * reach / (1 + reach)
    gap = (radius * radius - square) / (radius + s)
    alpha = (gap + radius * (fall + _RATE * v_d * reach)) / s
    return w + (alpha * w - _RATE * radius * reach * d)


def build(params: Any, sums: Sums | None) -> Case:
    """A step with these sums; with none, SGD with momentum."""
    radius = {
        path: jnp.sqrt(jnp.sum(w * w, _fan_in(w))) for path, w in params.items()
    }

    def step(params, state, gradients):
        momentum, radius = state
        moved, trace = {}, {}
        for path, w in params.items():
            g = gradients[path]
            if sums is None:
                d = _MOMENTUM * momentum[path] + g
                moved[path] = w - _RATE * d
            else:
                r = radius[path]
                d = _MOMENTUM * momentum[path] + r * g
                moved[path] = _moved(w, d, r, sums(w, d, r))
            trace[path] = d
        return moved, (trace, radius)

    copies = jax.tree.map(jnp.copy, params)
    return Case(step, copies, (jax.tree.map(jnp.zeros_like, params), radius))


def measure(params: Any, gradients: Any, turns: int, steps: int) -> list[dict]:
    """A row a variant: its ratio to SGD, and its temporaries."""
    cases = {_SGD: build(params, None)} | {
        name: build(params, sums) for name, sums in VARIANTS.items()
    }
    cases, compilations = compile_in_turns(cases, gradients, 1)
    runs = {name: case.run(gradients) for name, case in cases.items()}
    seconds = time_in_turns(runs, turns, steps)
    return [
        {
            "variant": name,
            "quartiles": quartiles(own, seconds[_SGD]),
            "temporary_mb": compilations[name].temporary_mb,
        }
        for name, own in seconds.items()
    ]


def table(rows: list[dict]) -> str:
    """The rows in Markdown."""
    lines = [
        [
            row["variant"],
            "{1:.1f} ({0:.1f} to {2:.1f})".format(*row["quartiles"]),
            f"{row['temporary_mb']:.0f} MB",
        ]
        for row in rows
    ]
    return pages.table([["sums", "ratio", "temporaries"], *lines])


@one_message()
def main(argv: list[str] | None = None) -> None:
    """Times the variants; prints the table, or puts it into the docs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=at_least(1), default=11)
    parser.add_argument("--steps", type=at_least(1), default=6)
    parser.add_argument("--docs", action="store_true")
    args = parser.parse_args(argv)
    chosen = SETS["resnet50"]
    grouped = re.compile(chosen.grouped)
    params, gradients = (
        {path: x for path, x in tree.items() if grouped.fullmatch(path)}
        for tree in draw(chosen)
    )
    found = table(measure(params, gradients, args.turns, args.steps))
    print(found)
    if args.docs:
        pages.refill(pages.DOCS / "step-time.md", "variants", found)


if __name__ == "__main__":
    main()
