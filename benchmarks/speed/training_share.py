"""Share of a training step that the optimizer takes.

A step is the forward and backward pass of a batch, the new statistics of the
batch normalizations, and the optimizer; one jitted, donated call. It has its
turn beside the same without an optimizer, which writes the gradients down, and
the optimizer's share is formed turn by turn: 1 - without/with. A share smaller
than the spread of the times may come out negative; so the optimizer is timed by
itself too, as in `step_time`, over the time of the whole step.
"""

import dataclasses
import functools
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from benchmarks import training
from benchmarks.harness import pages
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, one_of, some
from benchmarks.harness.results import Content, Results
from benchmarks.speed import steps
from benchmarks.speed.step_time.cases import ADAM, SGD, baseline, make
from benchmarks.speed.step_time.report import cell, duration
from benchmarks.speed.turns import Seconds, compared, quartiles, time_in_turns
from psi_optax.models import linen
from psi_optax.models.architectures import cifar_resnet

PASSES, ALONE = "forward and backward pass", "{}, alone".format

OPTIMIZERS = (SGD, "psi_sgd(momentum)", ADAM, "psi_adam", "optax.lamb")


class Network(NamedTuple):
    """A Linen model, the shape of an image, and paths of grouped kernels."""

    model: nn.Module
    image: tuple[int, int, int]
    grouped: str


_HIDDEN = r"hidden_\d+/kernel"
_RESNET20 = linen.ResNet(cifar_resnet(20))

NETWORKS = {
    "cnn": Network(linen.CNN(), (28, 28, 1), _HIDDEN),
    "resnet20": Network(_RESNET20, (32, 32, 3), r".*/conv/kernel"),
    # To try the command.
    "small": Network(linen.CNN(widths=(2,)), (4, 4, 1), _HIDDEN),
}
*_REAL, _SMALL = NETWORKS


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        networks: Networks to train.
        optimizers: Optimizers, beside their baselines.
        batch: Number of images.
        turns: Number of turns of each case.
        steps: Number of steps of a turn, at most.
    """

    networks: Annotated[tuple[str, ...], some(one_of(NETWORKS))] = (*_REAL,)
    optimizers: Annotated[tuple[str, ...], some(one_of(OPTIMIZERS))] = (
        OPTIMIZERS
    )
    batch: Count = 128
    turns: Count = 15
    steps: Count = 10


def draw(network: Network, batch: int) -> tuple[Any, tuple[Any, Any]]:
    """Draw initial variables, and images and labels of no meaning."""
    random = np.random.default_rng(0)
    images = random.standard_normal((batch, *network.image), np.float32)
    labels = jnp.asarray(random.integers(10, size=batch), jnp.int32)
    init = jax.jit(functools.partial(network.model.init, train=False))
    return init(jax.random.key(0), images), (jnp.asarray(images), labels)


def build(
    network: Network, variables: Any, tx: optax.GradientTransformation | None
) -> steps.Case:
    """Build a step of training; without an optimizer it keeps the gradients."""
    loss = training.make_loss(network.model)

    def step(params, state, batch):
        rest, inner = state
        gradient = jax.grad(loss, has_aux=True)
        gradients, rest = gradient(params, rest, *batch)
        if tx is None:
            return params, (rest, gradients)
        updates, inner = tx.update(gradients, inner, params)
        return optax.apply_updates(params, updates), (rest, inner)

    rest = jax.tree.map(jnp.copy, variables)
    params = rest.pop("params")
    init = functools.partial(jax.tree.map, jnp.copy) if tx is None else tx.init
    return steps.Case(step, params, (rest, jax.jit(init)(params)))


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each network."""
    results.expect(len(settings.networks))
    for name in settings.networks:
        part = functools.partial(_part, NETWORKS[name], settings)
        results.part(name, part)


def _part(network: Network, settings: Settings) -> list[dict[str, Any]]:
    variables, batch = draw(network, settings.batch)
    params = variables["params"]
    gradients = jax.tree.map(lambda w: 1e-3 * w, params)

    def compiled(case, data):
        return steps.compile_case(case, data)[0].run(data)

    runs = {PASSES: compiled(build(network, variables, None), batch)}
    asked = settings.optimizers
    for name in dict.fromkeys([*map(baseline, asked), *asked]):
        tx = make(name, params, network.grouped)
        runs[name] = compiled(build(network, variables, tx), batch)
        runs[ALONE(name)] = compiled(steps.build(tx, params), gradients)
    return rows(time_in_turns(runs, settings.turns, settings.steps))


def rows(seconds: Seconds) -> list[dict[str, Any]]:
    """Return a row for each optimizer, from times of steps and passes."""

    def row(name: str) -> dict[str, Any]:
        own = seconds[name]
        most, share, least = (1 - x for x in quartiles(seconds[PASSES], own))
        return {
            **compared(name, baseline(name), seconds),
            "share": share,
            "share_quartiles": [least, most],
            "alone": quartiles(seconds[ALONE(name)], own)[1],
        }

    return [row(name) for name in OPTIMIZERS if name in seconds]


def report(content: Content) -> str:
    """Return a table of all networks."""
    device, parts = content["versions"]["device"], content["parts"]
    head = [f"training step on {device}", "optimizer", "ms", "its share"]
    head += ["alone", "whole step", "to"]
    lines = [[f"`{x}`", *_cells(row)] for x in parts for row in parts[x]]
    return pages.table([head, *lines])


def _cells(row: dict[str, Any]) -> list[str]:
    shares = [100 * x for x in (row["share"], *row["share_quartiles"])]
    return [
        f"`{row['optimizer']}`",
        duration(row),
        "{:.1f} % ({:.1f} to {:.1f})".format(*shares),
        f"{100 * row['alone']:.2f} %",
        cell(row),
        f"`{row['baseline']}`",
    ]


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings((_SMALL,), OPTIMIZERS[:2], 4, 1, 1),
    measure=measure,
    report=report,
    page="step-time.md",
    selects=("networks", "optimizers"),
    timed=True,
)
