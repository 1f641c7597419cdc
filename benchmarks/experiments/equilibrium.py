"""How weight decay sets norms and rotations: predicted and measured.

    python -m benchmarks.experiments.equilibrium
    python -m benchmarks.experiments.equilibrium --docs

A batch-normalized network is trained by SGD with momentum and by AdamW, at
several constant rates and decays. Norms and rotations of its filters are
predicted along the whole way to their equilibrium, and compared. Then methods
that keep norms turn by the angle of the equilibrium from the first step on.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import optax

import psi_optax
from benchmarks import data, matched, training
from benchmarks.experiments import equilibrium_report
from benchmarks.experiments.command import Experiment
from benchmarks.experiments.command import main as run
from benchmarks.experiments.equilibrium_law import (
    Law,
    forecast,
    traced,
)
from benchmarks.experiments.equilibrium_training import Record, make_watched
from benchmarks.experiments.equilibrium_windows import means, windows
from benchmarks.experiments.results import Results
from benchmarks.methods import METHODS
from benchmarks.recording import rms
from benchmarks.training import Build
from psi_optax.models import linen

__all__ = ["EXPERIMENT", "Settings", "main", "measure"]

PILOT_SEED = 2000  # far from the seeds of the final runs, which start at 0


class Settings(NamedTuple):
    """What the numbers depend on.

    Attributes:
        dataset: name of the data set.
        examples: how many of its training images are used.
        widths: numbers of hidden units.
        batch_size: number of examples in a batch.
        steps: how many; norms should settle in the first half.
        seeds: number of seeds.
        sgd: rates and decays of SGD, each with each.
        adamw: those of AdamW.
        matched: a rate and a decay of SGD, and of AdamW, to be matched.
        pilots: how many runs find the gradient norm that psi_sgd is told.
    """

    dataset: str = "fashion-mnist"
    examples: int = 10_000
    widths: tuple[int, ...] = (64, 64)
    batch_size: int = 64
    steps: int = 5000
    seeds: int = 2
    sgd: tuple[tuple[float, ...], tuple[float, ...]] = (
        (0.01, 0.03, 0.1),
        (0.005, 0.02, 0.08),
    )
    adamw: tuple[tuple[float, ...], tuple[float, ...]] = (
        (0.001, 0.003, 0.01),
        (0.3, 1.0, 3.0),
    )
    matched: tuple[tuple[float, float], tuple[float, float]] = (
        (0.03, 0.02),
        (0.003, 1.0),
    )
    pilots: int = 2


SMOKE = Settings(
    dataset="digits",
    examples=500,
    widths=(8,),
    batch_size=32,
    steps=200,
    seeds=2,
    sgd=((0.1,), (0.02,)),
    adamw=((0.01,), (1.0,)),
    matched=((0.1, 0.02), (0.01, 1.0)),
    pilots=1,
)


class _Runs:
    """Training of one network on one data set."""

    def __init__(self, settings: Settings):
        self.settings = settings
        full = data.load(settings.dataset)
        self.dataset = full._replace(
            train_images=full.train_images[: settings.examples],
            train_labels=full.train_labels[: settings.examples],
        )
        self.model = linen.MLP(settings.widths, full.num_classes)
        pixels = math.prod(full.train_images.shape[1:])
        inputs = (pixels, *settings.widths)
        self.sizes = {
            f"hidden_{index}": inputs[index]
            for index in range(len(settings.widths))
        }

    def compile(self, build: Build) -> Callable[..., Record]:
        """Return a function of a rate, a decay and the first seed."""
        watched = make_watched(self.model, build, self.dataset)

        def train(rate: float, decay: float, first_seed: int = 0) -> Record:
            settings = self.settings
            seeds = range(first_seed, first_seed + settings.seeds)
            images, labels = self.dataset[1:3]
            epochs = math.ceil(
                settings.steps / (len(labels) // settings.batch_size)
            )
            batches = training.make_batches(
                len(labels), settings.batch_size, epochs, seeds
            )
            start = training.initialize(self.model, images, seeds)
            return watched(start, batches[:, : settings.steps], rate, decay)

        return train


def measure(settings: Settings, results: Results) -> None:
    """Train at every point, then at the matched rotation.

    Args:
        settings: the experiment.
        results: gets the points by the optimizer, the rate and the decay, and
            the matched runs as "matched" and the optimizer's name.
    """
    runs = _Runs(settings)
    for optimizer, method, grid, point in (
        ("sgd", "sgd_decay", settings.sgd, settings.matched[0]),
        ("adamw", "adamw", settings.adamw, settings.matched[1]),
    ):
        train = runs.compile(METHODS[method].build)
        for rate in grid[0]:
            for decay in grid[1]:
                law = Law(optimizer, rate, decay)
                results.part(
                    f"{optimizer}, rate {rate:g}, decay {decay:g}",
                    functools.partial(_point, runs, train, law),
                )
        results.part(
            f"matched {optimizer}",
            functools.partial(_matched, runs, train, Law(optimizer, *point)),
        )


def _point(runs: _Runs, train: Callable, law: Law) -> dict[str, Any]:
    record = train(law.rate, law.decay)
    return {
        "rotation": law.rotation,
        "layers": {
            layer: _compare(record, layer, law, size)
            for layer, size in runs.sizes.items()
        },
    }


def _compare(record: Record, layer: str, law: Law, size: int) -> dict[str, Any]:
    """One layer's norms and rotations, with what is predicted of them."""
    seen = [_columns(part[layer]) for part in record[1:]]
    steps = len(seen[0])
    late = slice(steps // 2, steps)
    # The others are left out: they only shrink, in the end to nothing.
    alive = _are_alive(seen[1])
    norm, gradient, rotation = (columns[:, alive] for columns in seen)
    noise = rms(gradient[late], 0)
    measured = {"norm": norm, "rotation": rotation}
    predicted = forecast(law, norm[0], noise, size, steps)
    followed = traced(law, norm[0], gradient, size)
    curves = {
        what: {
            "measured": windows(measured[what]),
            "forecast": windows(predicted[index]),
            "traced": windows(followed[index]),
        }
        for index, what in enumerate(measured)
    }
    return {
        "curves": curves,
        "gradient": windows(gradient),
        "dead": int(np.sum(~alive)),
        "rotation": float(rms(rotation[late])),
        "filters": np.quantile(rms(rotation[late], 0), (0.1, 0.9)).tolist(),
        "norm": float(rms(norm[late])),
        "predicted norm": float(rms(law.norm(noise, size))),
    }


def _are_alive(gradients: np.ndarray) -> np.ndarray:
    """Which columns see a gradient in the last tenth of the steps."""
    return np.any(gradients[-max(1, len(gradients) // 10) :] > 0, axis=0)


def _columns(values: np.ndarray) -> np.ndarray:
    """Of shape (steps, seeds and filters)."""
    return np.moveaxis(values, 0, 1).reshape(values.shape[1], -1)


def _matched(runs: _Runs, train: Callable, law: Law) -> dict[str, Any]:
    """The decayed run, and those that take its place."""
    decayed = train(law.rate, law.decay)
    builds = {"rotational": _rotational(law)}
    pilots = []
    if law.optimizer == "sgd":
        pilots = _pilots(runs, law, decayed)
        norm = pilots[-1]["corrected"]
        builds = {
            name: matched.builds(norm)[name]
            for name in ("rotational", "psi_sgd")
        }
    records = {
        name: runs.compile(build)(law.rate, law.decay)
        for name, build in builds.items()
    }
    return {
        "rotation": law.rotation,
        "pilots": pilots,
        "runs": {
            name: {
                "loss": means(record.loss.T),
                "rotation": windows(_turned(record)),
            }
            for name, record in {"decayed": decayed, **records}.items()
        },
    }


def _rotational(law: Law) -> Build:
    """What turns as AdamW does, with Adam's directions."""

    def build(rate: Any, decay: Any, groups: Any):
        return psi_optax.rotational(
            psi_optax.dynamics.matching_learning_rate(
                rate, decay, optimizer="adamw", momentum=law.momentum
            ),
            optax.scale_by_adam(law.momentum),
            groups,
            ordinary=METHODS["adamw"].build(
                rate=rate, decay=decay, groups=groups
            ),
        )

    return build


def _turned(record: Record) -> np.ndarray:
    """The rotations of all filters, of shape (steps, all)."""
    parts = [_columns(part) for part in record.rotation.values()]
    return np.concatenate(parts, axis=1)


def _pilots(runs: _Runs, law: Law, decayed: Record) -> list[dict[str, float]]:
    """Find the gradient norm for psi_sgd, as docs/matching-weight-decay.md."""
    late = slice(runs.settings.steps // 2, None)
    gradients = [part[:, late].ravel() for part in decayed.gradient.values()]
    norm, pilots = float(rms(np.concatenate(gradients))), []
    for index in range(runs.settings.pilots):
        seed = PILOT_SEED + index * runs.settings.seeds
        train = runs.compile(matched.psi_sgd(norm))
        turned = float(rms(_turned(train(law.rate, law.decay, seed))[late]))
        corrected = norm * math.tan(turned) / math.tan(law.rotation)
        pilots.append(
            {"gradient": norm, "rotation": turned, "corrected": corrected}
        )
        norm = corrected
    return pilots


EXPERIMENT = Experiment(
    name="equilibrium",
    about="Weight decay explained: norms and rotations, step by step.",
    settings=Settings(),
    smoke=SMOKE,
    measure=measure,
    table=equilibrium_report.table,
    figure=equilibrium_report.figure,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment from the command line.

    Args:
        arguments: the command line; that of the process by default.
    """
    run(EXPERIMENT, arguments)


if __name__ == "__main__":
    main()
