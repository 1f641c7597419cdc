"""How fast the input is, and training with it, beside steps alone.

    python -m benchmarks.input_throughput --docs

The input is what `benchmarks.train` does for each batch before the step:
choosing, shifting and mirroring images, and putting them on the device. In
training the next batches are made in another thread while a step computes, so
that input that is faster than the step costs nothing but the cores it needs.
"""

import argparse
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import data, pages
from benchmarks.data import Dataset
from benchmarks.harness.files import one_message
from benchmarks.options import at_least, one_of
from benchmarks.step_time import machine
from benchmarks.train import batches, run, steps
from benchmarks.train.layout import Layout, make_layout
from benchmarks.train.settings import Settings

__all__ = ["CASES", "Ratios", "generated", "main", "measure", "table"]


class Ratios(NamedTuple):
    """Speeds relative to that of steps on one batch: medians of several turns.

    Attributes:
        input: of the input alone.
        training: of both together.
    """

    input: float
    training: float


class Case(NamedTuple):
    """What is measured.

    Attributes:
        settings: the settings.
        load: makes the data.
        steps: of a turn.
    """

    settings: Settings
    load: Callable[[], Dataset]
    steps: int


def generated(count: int = 10_000) -> Dataset:
    """Images of CIFAR's size, drawn at random, and labels."""
    random = np.random.default_rng(0)
    images = random.standard_normal((count, 32, 32, 3), np.float32)
    labels = random.integers(0, 10, count).astype(np.int32)
    return Dataset("random", images, labels, images[:1000], labels[:1000], 10)


CASES = {
    "fashion-mnist, cnn": Case(
        Settings(model="cnn"),
        functools.partial(data.load, "fashion-mnist"),
        steps=40,
    ),
    "fashion-mnist, cnn, --augment": Case(
        Settings(model="cnn", augment=True),
        functools.partial(data.load, "fashion-mnist"),
        steps=40,
    ),
    "cifar-10 (random images), resnet20, --augment": Case(
        Settings(model="resnet20", augment=True), generated, steps=5
    ),
}


def measure(case: Case, turns: int) -> Ratios:
    """Measures input, steps and training in turns."""
    dataset, layout = case.load(), make_layout({"data": 1})
    with jax.set_mesh(layout.mesh):
        train = _training(case.settings, dataset, layout)
        epoch = itertools.count(1)

        def some() -> Iterable[Any]:
            made = batches.train_batches(
                case.settings, dataset, layout, next(epoch)
            )
            return itertools.islice(made, case.steps)

        same = [next(iter(some()))] * case.steps
        train(same[:1])
        found = [
            (
                _seconds(lambda: jax.block_until_ready(list(some()))),
                _seconds(lambda: train(same)),
                _seconds(lambda: train(batches.ahead(some()))),
            )
            for _ in range(turns)
        ]
    alone, step, both = (np.array(x) for x in zip(*found, strict=True))
    return Ratios(*(float(np.median(step / x)) for x in (alone, both)))


def _training(
    settings: Settings, dataset: Dataset, layout: Layout
) -> Callable[[Iterable[Any]], None]:
    """A function that takes a step on each batch, and waits."""
    model, optimizer = run.build(settings, dataset)
    shape = batches.image_shape(settings, dataset)
    training = steps.start(model, optimizer, layout, shape, seed=0)
    step = steps.make_step(model, optimizer, layout, training)

    def train(some: Iterable[Any]) -> None:
        nonlocal training
        loss = None
        for images, labels in some:
            training, loss = step(training, images, labels)
        jax.block_until_ready(loss)

    return train


def _seconds(do: Callable[[], Any]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def table(found: dict[str, Ratios], device: str) -> str:
    """Ratios in Markdown.

    Examples:
        >>> print(table({"a": Ratios(4.0, 0.95)}, "x"))
        | on x | input / step | training / step |
        | ---- | -----------: | --------------: |
        | a    |          4.0 |            0.95 |
    """
    rows = [[f"on {device}", "input / step", "training / step"]]
    rows += [
        [
            name,
            f"{ratios.input:.1f}",
            f"{ratios.training:.2f}",
        ]
        for name, ratios in found.items()
    ]
    return pages.table(rows, right=True)


@one_message()
def main(argv: Sequence[str] | None = None) -> None:
    """Measures all cases, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add(
        "--cases",
        nargs="+",
        choices=CASES,
        type=one_of(CASES),
        default=list(CASES),
    )
    add("--turns", type=at_least(1), default=5)
    add("--docs", action="store_true", help="put the table into the docs")
    given = parser.parse_args(argv)
    found = {name: measure(CASES[name], given.turns) for name in given.cases}
    text = table(found, machine()["device"])
    print(text)
    if given.docs:
        pages.refill(pages.DOCS / "training.md", "input", text)


if __name__ == "__main__":
    main()
