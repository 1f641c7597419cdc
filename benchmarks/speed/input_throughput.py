"""Speed of the input of training, and of both together, beside steps alone.

The input is what `benchmarks.train` does for each batch before the step:
choosing, shifting and mirroring images, and putting them on the device. In
training another thread makes the next batches while a step computes: input that
is faster than the step costs nothing but the cores it needs.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from benchmarks import data
from benchmarks.data import Dataset
from benchmarks.harness import pages
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, one_of, some
from benchmarks.harness.results import Content, Results
from benchmarks.speed.turns import Run, quartiles, time_in_turns
from benchmarks.train import batches, run
from benchmarks.train.layout import Layout, make_layout
from benchmarks.train.settings import Settings as Training


class Case(NamedTuple):
    """Settings of training, the data, and the number of steps of a turn."""

    settings: Training
    load: Callable[[], Dataset]
    steps: int


def _random(count: int = 10_000) -> Dataset:
    """Draw images of CIFAR's size, and labels."""
    random = np.random.default_rng(0)
    images = random.standard_normal((count, 32, 32, 3), np.float32)
    labels = random.integers(0, 10, count).astype(np.int32)
    return Dataset("random", images, labels, images[:1000], labels[:1000], 10)


_fashion = functools.partial(data.load, "fashion-mnist")
_cnn = functools.partial(Training, model="cnn")
_augmented = Training(model="resnet20", augment=True)

CASES = {
    "fashion-mnist, cnn": Case(_cnn(), _fashion, 40),
    "fashion-mnist, cnn, --augment": Case(_cnn(augment=True), _fashion, 40),
    "cifar-10 (random images), resnet20, --augment": Case(
        _augmented, _random, 5
    ),
    # To try the command.
    "random images, mlp": Case(
        Training(model="mlp", batch=16), functools.partial(_random, 64), 3
    ),
}
*_LARGE, _SMALL = CASES


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        cases: Data and networks.
        turns: Number of turns of input, steps and training.
    """

    cases: Annotated[tuple[str, ...], some(one_of(CASES))] = (*_LARGE,)
    turns: Count = 5


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each case: speeds relative to steps on one batch."""
    results.expect(len(settings.cases))
    for name in settings.cases:
        part = functools.partial(_part, CASES[name], settings.turns)
        results.part(name, part)


def _part(case: Case, turns: int) -> dict[str, float]:
    dataset, layout = case.load(), make_layout({"data": 1})
    with jax.set_mesh(layout.mesh):
        runs = _runs(case.settings, dataset, layout)
        seconds = time_in_turns(runs, turns, case.steps).wall
    return {
        name: quartiles(seconds["step"], seconds[name])[1]
        for name in ("input", "training")
    }


def _runs(
    settings: Training, dataset: Dataset, layout: Layout
) -> dict[str, Run]:
    """Return what makes batches, takes steps on one batch, and does both."""
    model, optimizer = run.build(settings, dataset)
    shape = batches.image_shape(settings, dataset)
    training = run.start(model, optimizer, layout, shape, seed=0)
    step = run.make_step(model, optimizer, layout, training)
    epoch = itertools.count(1)

    def some(count: int) -> Iterable[Any]:
        made = batches.train_batches(settings, dataset, layout, next(epoch))
        return itertools.islice(made, count)

    def train(some: Iterable[Any]) -> None:
        nonlocal training
        loss = None
        for images, labels in some:
            training, loss = step(training, images, labels)
        jax.block_until_ready(loss)

    [same] = some(1)
    return {
        "input": lambda count: jax.block_until_ready([*some(count)]),
        "step": lambda count: train([same] * count),
        "training": lambda count: train(batches.ahead(some(count))),
    }


def report(content: Content) -> str:
    """Return a table of the cases."""
    device = content["versions"]["device"]
    rows = [
        [name, f"{part['input']:.1f}", f"{part['training']:.2f}"]
        for name, part in content["parts"].items()
    ]
    head = [f"on {device}", "input / step", "training / step"]
    return pages.table([head, *rows], right=True)


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings((_SMALL,), turns=1),
    measure=measure,
    report=report,
    page="training.md",
    selects=("cases",),
    timed=True,
)
