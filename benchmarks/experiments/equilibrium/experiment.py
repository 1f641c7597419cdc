"""Settings and runs of the experiment on equilibria."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import optax

from benchmarks import data, training
from benchmarks.experiments import matched
from benchmarks.experiments.equilibrium.law import Law, forecast, trace
from benchmarks.experiments.equilibrium.report import figures, report
from benchmarks.experiments.equilibrium.watching import make_watched
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
from benchmarks.optimizers import MOMENTUM, OPTIMIZERS, TUNED
from benchmarks.training import Build
from psi_optax.dynamics import matching_learning_rate
from psi_optax.models import linen

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


def measure(settings: Settings, results: Results) -> None:
    """Train at every rate and decay, then at the matched rotation."""
    laws = {name: _laws(settings, name) for name in DECAYED}
    results.expect(sum(len(points) + 1 for points in laws.values()))
    compiled = functools.partial(_compile, settings, _load(settings))
    for optimizer, points in laws.items():
        train = compiled(TUNED[DECAYED[optimizer]].build)
        for law in points:
            results.part(
                f"{optimizer}, rate {law.rate:g}, decay {law.decay:g}",
                functools.partial(_compare, train, law),
            )
        law = Law(optimizer, *getattr(settings, f"matched_{optimizer}"))
        results.part(
            f"matched {optimizer}",
            functools.partial(_match, settings, compiled, train, law),
        )


def _laws(settings: Settings, optimizer: str) -> list[Law]:
    """Return an optimizer's rates, each with each of its decays."""
    kinds = (getattr(settings, f"{optimizer}_{x}") for x in ("rates", "decays"))
    return [Law(optimizer, *point) for point in itertools.product(*kinds)]


def _load(settings: Settings) -> data.Dataset:
    full, count = data.load(settings.dataset), settings.examples
    return full._replace(
        train_images=full.train_images[:count],
        train_labels=full.train_labels[:count],
    )


def _compile(
    settings: Settings, dataset: data.Dataset, build: Build
) -> Callable[..., dict[str, Any]]:
    """Return the training, as a function of a law and the first seed."""
    images, size = dataset.train_images, settings.batch_size
    model = linen.MLP(settings.widths, dataset.num_classes)
    watched = make_watched(model, build, dataset)
    epochs = math.ceil(settings.steps / max(1, len(images) // size))

    def train(law: Law, first: int = 0) -> dict[str, Any]:
        seeds = range(first, first + settings.seeds)
        batches = training.make_batches(len(images), size, epochs, seeds)
        start = training.initialize(model, images, seeds)
        steps = batches[:, : settings.steps]
        return watched(start, steps, law.rate, law.decay)

    return train


def _compare(train: Callable, law: Law) -> dict[str, Any]:
    """Return norms and rotations at a point, with their predictions."""
    layers = {
        name: _compare_layer(law, **layer)
        for name, layer in train(law)["layers"].items()
    }
    return {"rotation": law.rotation, "layers": layers}


def _compare_layer(
    law: Law,
    size: int,
    norm: np.ndarray,
    gradient: np.ndarray,
    rotation: np.ndarray,
) -> dict[str, Any]:
    steps = len(norm)
    # Filters without gradients in the last tenth are dead: they only shrink.
    alive = np.any(gradient[-max(1, steps // 10) :] > 0, axis=0)
    norm, gradient, rotation = (x[:, alive] for x in (norm, gradient, rotation))
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


def _match(
    settings: Settings, compiled: Callable, train: Callable, law: Law
) -> dict[str, Any]:
    """Train with decay, and with the methods that are matched to it."""
    records, pilots = {"decayed": train(law)}, []
    builds: dict[str, Build] = {"rotational": _rotational}
    if law.optimizer == "sgd":
        pilots = _pilots(settings, compiled, law, records["decayed"])
        found = matched.builds(pilots[-1]["corrected"])
        builds = {name: found[name] for name in ("rotational", "psi_sgd")}
    records |= {name: compiled(build)(law) for name, build in builds.items()}
    curves = {
        name: {
            "loss": means(record["loss"]),
            "rotation": windows(_all_layers(record, "rotation")),
        }
        for name, record in records.items()
    }
    return {"rotation": law.rotation, "pilots": pilots, "runs": curves}


def _rotational(rate: Any, decay: Any, groups: Any):
    """Make a method that rotates as AdamW does, in Adam's directions."""
    return OPTIMIZERS["rotational"].make(
        matching_learning_rate(
            rate, decay, optimizer="adamw", momentum=MOMENTUM
        ),
        groups,
        direction=optax.scale_by_adam(MOMENTUM),
        ordinary=TUNED["adamw"].build(rate, decay, groups),
    )


def _all_layers(record: dict[str, Any], kind: str) -> np.ndarray:
    layers = record["layers"].values()
    return np.concatenate([layer[kind] for layer in layers], axis=1)


def _pilots(
    settings: Settings, compiled: Callable, law: Law, decayed: dict[str, Any]
) -> list[dict[str, float]]:
    """Find the gradient norm for psi_sgd; see docs/matching-weight-decay.md."""
    late, pilots = slice(settings.steps // 2, None), []
    norm = float(rms(_all_layers(decayed, "gradient")[late]))
    for index in range(settings.pilots):
        train = compiled(matched.psi_sgd(norm))
        record = train(law, PILOT_SEED + index * settings.seeds)
        rotation = float(rms(_all_layers(record, "rotation")[late]))
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
