"""Settings and runs of the experiment with unbalanced layers."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from benchmarks import data, training
from benchmarks.experiments import noisy_data
from benchmarks.experiments.tuning import TUNING_SEED, point, tune
from benchmarks.experiments.two_layers import TwoLayers
from benchmarks.experiments.unbalanced.report import figures, report
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Positive, at_least, one_of, some
from benchmarks.harness.results import Results
from benchmarks.optimizers import OPTIMIZERS, TUNED, Tuned

BALANCED = (1.0, 1.0)

COMPARED = TUNED | {
    "psi_sgd_unit": Tuned(
        "psi_sgd, radius 1",
        partial(OPTIMIZERS["psi_sgd"].make, radius=1.0),
        TUNED["psi_sgd"].rates,
    )
}
"""The methods, with the grids for weights that are not multiplied."""

RETUNED = {
    name: dataclasses.replace(COMPARED[name], rates=rates, decays=decays)
    for name, rates, decays in (
        # A rate for each factor of ten: from where the short layer would train
        # well to where the scales of the last normalization leap.
        ("sgd", tuple(10.0**power for power in range(-9, 3)), ()),
        ("sgd_decay", (0.01, 0.03, 0.1, 0.3), (0.03, 0.1, 0.3)),
        ("adamw", (0.001, 0.003, 0.01, 0.03), (1.0, 10.0, 100.0)),
    )
}
"""Methods with grids for the unbalanced weights."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    dataset: Annotated[str, one_of(data.NAMES)] = "mnist"  # Data set.
    examples: Count = 10_000  # Training images that are used.
    # Factors of the two kernels.
    factors: tuple[Positive, Positive] = (1e4, 1e-4)
    # Epsilons of batch normalization; tuning uses the first.
    epsilons: tuple[Positive, Positive] = (1e-20, 1e-5)
    width: Count = 100  # Hidden units.
    epochs: Count = 10  # Epochs of each training.
    batch_size: Count = 100  # Examples in a batch.
    tuning_seeds: Count = 2  # Seeds in tuning.
    seeds: Annotated[int, at_least(2)] = 4  # Seeds of the final runs.
    # Optimizers that are compared.
    methods: Annotated[tuple[str, ...], some(one_of(COMPARED))] = (
        *("sgd", "sgd_decay", "adamw", "weight_rescaling", "sgd_g"),
        *("psi_sgd", "psi_adam", "psi_sgd_unit"),
    )
    # Optimizers that are tuned for the unbalanced weights too.
    retuned: Annotated[tuple[str, ...], some(one_of(RETUNED))] = tuple(RETUNED)


def measure(settings: Settings, results: Results) -> None:
    """Tune every method, "tuned NAME", and train, "tuned NAME, CONDITION"."""
    full = noisy_data.first(data.load(settings.dataset), settings.examples)
    held_out, factors = data.hold_out(full), settings.factors
    tuning_seeds = range(TUNING_SEED, TUNING_SEED + settings.tuning_seeds)
    tuning = _make_train(settings, settings.epsilons[0], held_out, tuning_seeds)
    exact, usual = (
        _make_train(settings, epsilon, full, range(settings.seeds))
        for epsilon in settings.epsilons
    )
    conditions = {
        "balanced": (exact, BALANCED),
        "unbalanced": (exact, factors),
        "usual epsilon": (usual, factors),
    }
    cases = [("tuned", x, COMPARED[x], BALANCED) for x in settings.methods]
    cases += [("retuned", x, RETUNED[x], factors) for x in settings.retuned]
    results.expect(4 * len(settings.methods) + 3 * len(settings.retuned))
    for when, name, method, tuned_at in cases:
        validate = partial(_validate, tuning, name, tuned_at)
        part = f"{when} {name}"
        tuned = results.part(part, partial(tune, method, validate))
        for condition, (train, scales) in conditions.items():
            if (when, condition) != ("retuned", "balanced"):
                run = partial(_test, train, name, scales, *point(tuned))
                results.part(f"{part}, {condition}", run)


def _validate(train, *arguments):
    return train(*arguments)[:2]


def _test(train, *arguments):
    """Return the seeds' accuracies and last losses, and their mean curve."""
    accuracy, _, curve = train(*arguments)
    curve = np.asarray(curve, np.float64)
    return {
        "accuracy": np.asarray(accuracy, np.float64).tolist(),
        "loss": _finite(curve[:, -1]),
        "curve": _finite(curve.mean(0)),
    }


def _finite(values):
    """Return None where a training diverged: JSON has no NaN."""
    return [x if np.isfinite(x) else None for x in values.tolist()]


def _make_train(settings, epsilon, dataset, seeds):
    """Return a function of method, factors, rate and decay.

    It returns each seed's accuracy and loss, both of tests, and its curve.
    """
    sizes, epochs = (settings.width, dataset.num_classes), settings.epochs
    model = TwoLayers(*sizes, epsilon=epsilon, momentum=0.9)
    images, batch_size = dataset.train_images, settings.batch_size
    start = training.begin(model, images, seeds, batch_size, epochs)
    evaluate = training.make_evaluate(model, dataset)

    @cache
    def compiled(name):
        return make_curves(model, COMPARED[name].build, dataset, epochs)

    def train(name, factors, *point):
        variables, batches = start
        scaled = scale_layers(variables, factors)
        after, curve = compiled(name)(scaled, batches, *point)
        return *evaluate(after), curve

    return train


def scale_layers(variables: Any, factors: Sequence[float]) -> Any:
    """Multiply the kernel of each layer of `TwoLayers` by its factor."""
    params = dict(variables["params"])
    for index, factor in enumerate(factors):
        kernel = params[f"hidden_{index}"]["kernel"]
        params[f"hidden_{index}"] = {"kernel": factor * kernel}
    return {**variables, "params": params}


def make_curves(
    model: nn.Module, build: training.Build, dataset: data.Dataset, epochs: int
) -> Callable:
    """Compile the training of a model, as `benchmarks.training.make_train`.

    The function also returns the losses before training and after every epoch,
    of shape `(seeds, epochs + 1)`: of all training images as one batch, so that
    no running statistics enter.
    """
    groups = training.kernel_groups(model, dataset.train_images)
    whole = training.make_loss(model)

    def train(images, labels, variables, batches, rate, decay):
        schedule = optax.cosine_decay_schedule(rate, len(batches))
        optimizer = build(rate=schedule, decay=decay, groups=groups)
        step = training.make_step(model, optimizer, images, labels)

        def loss(variables):
            return whole(variables["params"], variables, images, labels)[0]

        def epoch(carry, batches):
            carry, _ = jax.lax.scan(step, carry, batches)
            return carry, loss(carry[0])

        carry = variables, optimizer.init(variables["params"])
        in_epochs = batches.reshape(epochs, -1, batches.shape[1])
        (after, _), losses = jax.lax.scan(epoch, carry, in_epochs)
        return after, jnp.append(loss(variables), losses)

    return training.for_seeds(train, dataset)


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        dataset="digits",
        examples=300,
        width=8,
        epochs=2,
        seeds=2,
        methods=("sgd",),
        retuned=("sgd",),
    ),
    measure=measure,
    report=report,
    page="experiments/unbalanced.md",
    figures=figures,
)
