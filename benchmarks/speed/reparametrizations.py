"""Cost of reparametrizations, beside the convolution that their weights are of.

A step is the gradient of a loss of one convolution with respect to raw weights
and to images, as inside of a network. Ratios fall with the batch, on which a
reparametrization does not depend.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from benchmarks.harness import pages
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, one_of, some
from benchmarks.harness.results import Content, Results
from benchmarks.speed.turns import Run, quartiles, time_in_turns
from psi_optax import ScaleGroup, reparametrize

Function = Callable[[jax.Array], jax.Array]

_FILTERS = ScaleGroup(axes=(0, 1, 2))
_orthogonal = functools.partial(reparametrize.orthogonal, groups=_FILTERS)

FUNCTIONS: dict[str, Function] = {
    "unit": functools.partial(reparametrize.unit, groups=_FILTERS),
    "centered": functools.partial(reparametrize.centered, groups=_FILTERS),
    "standardized": functools.partial(
        reparametrize.standardized, groups=_FILTERS
    ),
    "spectral": functools.partial(reparametrize.spectral, groups=_FILTERS),
    "orthogonal": _orthogonal,
    "orthogonal, qr": functools.partial(_orthogonal, method="qr"),
    "orthogonal, svd": functools.partial(_orthogonal, method="svd"),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        functions: Reparametrizations.
        batch: Number of images.
        side: Height and width of images.
        channels: Number of channels, of images and of filters.
        turns: Number of turns of steps with and without.
    """

    functions: Annotated[tuple[str, ...], some(one_of(FUNCTIONS))] = (
        *FUNCTIONS,
    )
    batch: Count = 8
    side: Count = 14
    channels: Count = 128
    turns: Count = 9


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each function: quartiles of ratios of CPU time."""
    results.expect(len(settings.functions))
    for name in settings.functions:
        results.part(name, functools.partial(_ratios, name, settings))


def _ratios(name: str, settings: Settings) -> list[float]:
    runs = {
        "without": _run(lambda w: w, settings),
        "with": _run(FUNCTIONS[name], settings),
    }
    seconds = time_in_turns(runs, settings.turns, steps=20).cpu
    return [*quartiles(seconds["with"], seconds["without"])]


def _run(function: Function, settings: Settings) -> Run:
    """Return steps of a convolution whose kernel is a function of weights."""
    channels = settings.channels
    shape = (settings.batch, settings.side, settings.side, channels)
    images = jax.random.normal(jax.random.key(0), shape)
    start = jax.random.normal(jax.random.key(1), (3, 3, channels, channels))

    def loss(weights: jax.Array, images: jax.Array) -> jax.Array:
        outputs = jax.lax.conv_general_dilated(
            images,
            function(weights),
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.mean(jax.nn.relu(outputs) ** 2)

    step = jax.jit(jax.grad(loss, argnums=(0, 1)))

    def run(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(step(start, images))

    return run


def report(content: Content) -> str:
    """Return a table of the functions."""
    size = "{channels} filters of 3 x 3, {batch} images of {side} x {side}"
    head = ["step over that without", "median", "quartiles"]
    rows = [
        [name, f"{median:.2f}", f"{low:.2f} to {high:.2f}"]
        for name, (low, median, high) in content["parts"].items()
    ]
    shown = pages.table([head, *rows], right=True)
    about = pages.wrap(
        f"CPU time of a step, {size.format(**content['settings'])}:"
    )
    return f"{about}\n\n{shown}"


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(("unit", "orthogonal"), 2, 4, 8, turns=1),
    measure=measure,
    report=report,
    page="reparametrizations.md",
    selects=("functions",),
    timed=True,
)
