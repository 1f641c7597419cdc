"""Settings and runs of the experiment on equilibria."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import optax

from benchmarks import data, training
from benchmarks.experiments import matched
from benchmarks.experiments.equilibrium.law import Law, forecast, trace
from benchmarks.experiments.equilibrium.report import figures, report
from benchmarks.experiments.equilibrium.watching import Record, make_watched
from benchmarks.experiments.equilibrium.windows import means, windows
from benchmarks.experiments.rotations import rms
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Positive,
    Positives,
    at_least,
    one_of,
    some,
)
from benchmarks.harness.results import Results
from benchmarks.optimizers import OPTIMIZERS, TUNED
from benchmarks.training import Build
from psi_optax.dynamics import matching_learning_rate
from psi_optax.models import linen

__all__ = ["MEASUREMENT", "Settings", "measure"]

PILOT_SEED = 2000  # far from the seeds of the final runs, which start at 0

DECAYED = {"sgd": "sgd_decay", "adamw": "adamw"}
"""The optimizers with weight decay, by the names that laws have."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment.

    Attributes:
        dataset: Name of the data set.
        examples: Number of its training images that are used.
        widths: Numbers of hidden units.
        batch_size: Number of examples in a batch.
        steps: Number of steps; norms should settle in the first half.
        seeds: Number of seeds.
        sgd_rates: Learning rates of SGD.
        sgd_decays: Weight decays of SGD, with each of the rates.
        adamw_rates: Learning rates of AdamW.
        adamw_decays: Weight decays of AdamW, with each of the rates.
        matched_sgd: Rate and decay of SGD that other methods are matched to.
        matched_adamw: Those of AdamW.
        pilots: Number of runs that find the gradient norm for psi_sgd.
    """

    dataset: Annotated[str, one_of(data.NAMES)] = "fashion-mnist"
    examples: Count = 10_000
    widths: Annotated[tuple[int, ...], some(at_least(1))] = (64, 64)
    batch_size: Count = 64
    steps: Annotated[int, at_least(2)] = 5000
    seeds: Count = 2
    sgd_rates: Positives = (0.01, 0.03, 0.1)
    sgd_decays: Positives = (0.005, 0.02, 0.08)
    adamw_rates: Positives = (0.001, 0.003, 0.01)
    adamw_decays: Positives = (0.3, 1.0, 3.0)
    matched_sgd: tuple[Positive, Positive] = (0.03, 0.02)
    matched_adamw: tuple[Positive, Positive] = (0.003, 1.0)
    pilots: Count = 2

    def laws(self, optimizer: str) -> list[Law]:
        """Return an optimizer's rates, each with each of its decays."""
        rates = getattr(self, f"{optimizer}_rates")
        decays = getattr(self, f"{optimizer}_decays")
        return [Law(optimizer, r, d) for r in rates for d in decays]


class _Runs:
    """Training of the network on the data set."""

    def __init__(self, settings: Settings):
        full, count = data.load(settings.dataset), settings.examples
        self.settings = settings
        self.dataset = full._replace(
            train_images=full.train_images[:count],
            train_labels=full.train_labels[:count],
        )
        self.model = linen.MLP(settings.widths, full.num_classes)
        inputs = math.prod(full.train_images.shape[1:]), *settings.widths[:-1]
        self.sizes = {f"hidden_{i}": size for i, size in enumerate(inputs)}

    def compile(self, build: Build) -> Callable[..., Record]:
        """Return a function of a rate, a decay and the first seed."""
        watched = make_watched(self.model, build, self.dataset)
        images, steps = self.dataset.train_images, self.settings.steps
        size = self.settings.batch_size
        epochs = math.ceil(steps / max(1, len(images) // size))

        def train(rate: float, decay: float, first: int = 0) -> Record:
            seeds = range(first, first + self.settings.seeds)
            batches = training.make_batches(len(images), size, epochs, seeds)
            start = training.initialize(self.model, images, seeds)
            return watched(start, batches[:, :steps], rate, decay)

        return train


def measure(settings: Settings, results: Results) -> None:
    """Train at every rate and decay, then at the matched rotation."""
    laws = {name: settings.laws(name) for name in DECAYED}
    results.expect(sum(len(points) + 1 for points in laws.values()))
    runs = _Runs(settings)
    for optimizer, points in laws.items():
        train = runs.compile(TUNED[DECAYED[optimizer]].build)
        for law in points:
            results.part(
                f"{optimizer}, rate {law.rate:g}, decay {law.decay:g}",
                functools.partial(_compare, runs, train, law),
            )
        law = Law(optimizer, *getattr(settings, f"matched_{optimizer}"))
        results.part(
            f"matched {optimizer}",
            functools.partial(_match, runs, train, law),
        )


def _compare(runs: _Runs, train: Callable, law: Law) -> dict[str, Any]:
    record = train(law.rate, law.decay)
    layers = {
        layer: _compare_layer(record, layer, law, size)
        for layer, size in runs.sizes.items()
    }
    return {"rotation": law.rotation, "layers": layers}


def _compare_layer(
    record: Record, layer: str, law: Law, size: int
) -> dict[str, Any]:
    """Return a layer's norms and rotations, and their predictions."""
    seen = [_columns(part[layer]) for part in record[1:]]
    steps = len(seen[0])
    # Dead filters, without gradients in the last tenth, only shrink.
    alive = np.any(seen[1][-max(1, steps // 10) :] > 0, axis=0)
    norm, gradient, rotation = (columns[:, alive] for columns in seen)
    late = slice(steps // 2, steps)
    noise = rms(gradient[late], 0)
    curves = {
        "measured": (norm, rotation),
        "forecast": forecast(law, norm[0], noise, size, steps),
        "traced": trace(law, norm[0], gradient, size),
    }
    return {
        "curves": {
            name: {kind: windows(pair[i]) for kind, pair in curves.items()}
            for i, name in enumerate(("norm", "rotation"))
        },
        "gradient": windows(gradient),
        "dead": int(np.sum(~alive)),
        "rotation": float(rms(rotation[late])),
        "filters": np.quantile(rms(rotation[late], 0), (0.1, 0.9)).tolist(),
        "norm": float(rms(norm[late])),
        "predicted norm": float(rms(law.norm(noise, size))),
    }


def _columns(values: np.ndarray) -> np.ndarray:
    """Return seeds and filters as one axis, behind that of the steps."""
    return np.moveaxis(values, 0, 1).reshape(values.shape[1], -1)


def _match(runs: _Runs, train: Callable, law: Law) -> dict[str, Any]:
    """Train with decay, and with the methods that are matched to it."""
    records, pilots = {"decayed": train(law.rate, law.decay)}, []
    builds = {"rotational": _rotational(law)}
    if law.optimizer == "sgd":
        pilots = _pilots(runs, law, records["decayed"])
        found = matched.builds(pilots[-1]["corrected"])
        builds = {name: found[name] for name in ("rotational", "psi_sgd")}
    for name, build in builds.items():
        records[name] = runs.compile(build)(law.rate, law.decay)
    return {
        "rotation": law.rotation,
        "pilots": pilots,
        "runs": {
            name: {
                "loss": means(record.loss.T),
                "rotation": windows(_rotations(record)),
            }
            for name, record in records.items()
        },
    }


def _rotational(law: Law) -> Build:
    """Return the maker of a method that rotates as AdamW, along Adam."""

    def build(rate: Any, decay: Any, groups: Any):
        return OPTIMIZERS["rotational"].make(
            matching_learning_rate(
                rate, decay, optimizer="adamw", momentum=law.momentum
            ),
            groups,
            direction=optax.scale_by_adam(law.momentum),
            ordinary=TUNED["adamw"].build(rate, decay, groups),
        )

    return build


def _rotations(record: Record) -> np.ndarray:
    """Return the rotations of all filters, of shape `(steps, filters)`."""
    parts = [_columns(part) for part in record.rotation.values()]
    return np.concatenate(parts, axis=1)


def _pilots(runs: _Runs, law: Law, decayed: Record) -> list[dict[str, float]]:
    """Find the gradient norm for psi_sgd; see docs/matching-weight-decay.md."""
    late = slice(runs.settings.steps // 2, None)
    gradients = [part[:, late].ravel() for part in decayed.gradient.values()]
    norm, pilots = float(rms(np.concatenate(gradients))), []
    for index in range(runs.settings.pilots):
        train = runs.compile(matched.psi_sgd(norm))
        seed = PILOT_SEED + index * runs.settings.seeds
        found = train(law.rate, law.decay, seed)
        rotation = float(rms(_rotations(found)[late]))
        corrected = norm * math.tan(rotation) / math.tan(law.rotation)
        pilots.append(
            {"gradient": norm, "rotation": rotation, "corrected": corrected}
        )
        norm = corrected
    return pilots


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        dataset="digits",
        examples=500,
        widths=(8,),
        batch_size=32,
        steps=200,
        sgd_rates=(0.1,),
        sgd_decays=(0.02,),
        adamw_rates=(0.01,),
        adamw_decays=(1.0,),
        matched_sgd=(0.1, 0.02),
        matched_adamw=(0.01, 1.0),
        pilots=1,
    ),
    measure=measure,
    report=report,
    page="experiments/equilibrium.md",
    figures=figures,
)
