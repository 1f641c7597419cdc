"""Settings and runs of the experiment on equilibria."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks import data, training
from benchmarks.data import Dataset
from benchmarks.experiments import matched, noisy_data
from benchmarks.experiments.equilibrium.law import Law, forecast, trace
from benchmarks.experiments.equilibrium.report import figures, report
from benchmarks.experiments.equilibrium.windows import means, windows
from benchmarks.experiments.rotations import rms
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Counts,
    Positive,
    Positives,
    at_least,
    one_of,
)
from benchmarks.harness.results import Results
from benchmarks.optimizers import MOMENTUM, OPTIMIZERS, TUNED
from benchmarks.training import Build, for_seeds, kernel_groups, make_training
from psi_optax.dynamics import matching_learning_rate
from psi_optax.models import linen

PILOT_SEED = 2000  # far from the seeds of the final runs, which start at 0


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    dataset: Annotated[str, one_of(data.NAMES)] = "fashion-mnist"  # Data set.
    examples: Count = 10_000  # Training images that are used.
    # Hidden units of each layer.
    widths: Counts = (64, 64)
    batch_size: Count = 64  # Examples in a batch.
    # Steps; norms should settle in the first half.
    steps: Annotated[int, at_least(2)] = 5000
    seeds: Count = 2  # Seeds.
    sgd_rates: Positives = (0.01, 0.03, 0.1)  # Learning rates of SGD.
    # Weight decays of SGD, with each of the rates.
    sgd_decays: Positives = (0.005, 0.02, 0.08)
    adamw_rates: Positives = (0.001, 0.003, 0.01)  # Learning rates of AdamW.
    # Weight decays of AdamW, with each of the rates.
    adamw_decays: Positives = (0.3, 1.0, 3.0)
    # Rate and decay of SGD that other methods are matched to.
    matched_sgd: tuple[Positive, Positive] = (0.03, 0.02)
    matched_adamw: tuple[Positive, Positive] = (0.003, 1.0)  # Those of AdamW.
    pilots: Count = 2  # Runs that find the gradient norm for psi_sgd.


def measure(settings: Settings, results: Results) -> None:
    """Train at every rate and decay, then at the matched rotation."""
    full = noisy_data.first(data.load(settings.dataset), settings.examples)
    compiled = partial(_compile, settings, full)
    sgd = itertools.product(settings.sgd_rates, settings.sgd_decays)
    adamw = itertools.product(settings.adamw_rates, settings.adamw_decays)
    cases = [
        ("sgd", "sgd_decay", list(sgd), settings.matched_sgd),
        ("adamw", "adamw", list(adamw), settings.matched_adamw),
    ]
    results.expect(sum(len(points) + 1 for _, _, points, _ in cases))
    for name, decayed, points, matched_point in cases:
        train = compiled(TUNED[decayed].build)
        for rate, decay in points:
            part = f"{name}, rate {rate:g}, decay {decay:g}"
            results.part(part, partial(_compare, train, Law(name, rate, decay)))
        law = Law(name, *matched_point)
        match = partial(_match, settings, compiled, train, law)
        results.part(f"matched {name}", match)


def _compile(settings, dataset, build):
    """Return the training, as a function of a law and the first seed."""
    images, size = dataset.train_images, settings.batch_size
    model = linen.MLP(settings.widths, dataset.num_classes)
    watched = make_watched(model, build, dataset)
    epochs = math.ceil(settings.steps / max(1, len(images) // size))

    def train(law, first=0):
        seeds = range(first, first + settings.seeds)
        start, batches = training.begin(model, images, seeds, size, epochs)
        return watched(start, batches[:, : settings.steps], law.rate, law.decay)

    return train


def make_watched(model: linen.MLP, build: Build, dataset: Dataset) -> Callable:
    """Compile training as `benchmarks.training.make_train`, at a constant rate.

    `train(variables, batches, rate, decay)` returns "loss", of shape `(steps,
    seeds)`, and under "layers" for each layer its "size", the number of inputs,
    and arrays of shape `(steps, filters of all seeds)`: "norm" before the step,
    "gradient", the norm of the gradient in direction space, and "rotation", in
    radians.
    """
    groups = kernel_groups(model, dataset.train_images)
    layers = [f"hidden_{index}" for index in range(len(model.widths))]

    def look(before, after, gradients, loss):
        norm = psi_optax.group_norms(before, groups)
        slope = psi_optax.group_norms(gradients, groups)
        seen = {
            "norm": norm,
            "gradient": jax.tree.map(jnp.multiply, norm, slope),
            "rotation": psi_optax.rotation(before, after, groups),
        }
        by_layer = {
            layer: {kind: x[layer]["kernel"] for kind, x in seen.items()}
            for layer in layers
        }
        return {"loss": loss, "layers": by_layer}

    train = make_training(model, build, groups, lambda rate, _: rate, look)
    compiled = for_seeds(train, dataset)

    def watched(variables, *arguments):
        record = jax.tree.map(_columns, compiled(variables, *arguments)[1])
        for layer, seen in record["layers"].items():
            seen["size"] = variables["params"][layer]["kernel"].shape[1]
        return record

    return watched


def _columns(values):
    """Return values of `(seeds, steps, ...)` as `(steps, all others)`."""
    rows = np.moveaxis(np.asarray(values, np.float64), 0, 1)
    return rows.reshape(len(rows), -1)


def _compare(train, law):
    """Return norms and rotations at a point, with their predictions."""
    layers = {
        name: _compare_layer(law, **layer)
        for name, layer in train(law)["layers"].items()
    }
    return {"rotation": law.rotation, "layers": layers}


def _compare_layer(law, size, norm, gradient, rotation):
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


def _match(settings, compiled, train, law):
    """Train with decay, and with the methods that are matched to it."""
    records, pilots = {"decayed": train(law)}, []
    builds = {"rotational": _rotational}
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


def _rotational(rate, decay, groups):
    """Make a method that rotates as AdamW does, in Adam's directions."""
    options = {"optimizer": "adamw", "momentum": MOMENTUM}
    return OPTIMIZERS["rotational"].make(
        matching_learning_rate(rate, decay, **options),
        groups,
        direction=optax.scale_by_adam(MOMENTUM),
        ordinary=TUNED["adamw"].build(rate, decay, groups),
    )


def _all_layers(record, kind):
    layers = record["layers"].values()
    return np.concatenate([layer[kind] for layer in layers], axis=1)


def _pilots(settings, compiled, law, decayed):
    """Find the gradient norm for psi_sgd; see docs/matching-weight-decay.md."""
    late = slice(settings.steps // 2, None)
    guess = float(rms(_all_layers(decayed, "gradient")[late]))

    def turn(build: training.Build, index: int) -> dict[str, float]:
        record = compiled(build)(law, PILOT_SEED + index * settings.seeds)
        return {"rotation": float(rms(_all_layers(record, "rotation")[late]))}

    return matched.pilots(turn, law.rotation, guess, settings.pilots)


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
