"""Training at all rates, strengths and seeds at once, by method and scale."""

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import training
from benchmarks.experiments.dense import listed
from benchmarks.experiments.noisy_data import split
from benchmarks.experiments.perturbations.methods import (
    INNER,
    LABELS,
    METHODS,
    OPTIMIZER_MAKERS,
)
from benchmarks.experiments.perturbations.report import (
    faults,
    figures,
    report,
)
from benchmarks.experiments.rescaling.experiment import scale_filters
from benchmarks.harness.files import InputError
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Counts,
    Positive,
    Positives,
    Share,
    one_of,
    some,
)
from benchmarks.harness.results import Results
from psi_optax.models import linen

# Images and training images, validation images, side of the squares of pixels
# that become one, epochs and batch size.
_SIZES = {
    "digits": (900, 298, 1, 20, 64),
    "fashion-mnist": (4000, 2000, 2, 8, 128),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    # Data sets.
    datasets: Annotated[tuple[str, ...], some(one_of(_SIZES))] = (*_SIZES,)
    # Methods.
    methods: Annotated[tuple[str, ...], some(one_of(METHODS))] = (*METHODS,)
    # Learning rates, ascending.
    rates: Positives = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    # Factors of the initial filters; 1 has to be one of them.
    scales: Positives = (0.125, 1.0, 8.0)
    seeds: Count = 5  # Seeds.
    noise: Share = 0.2  # Share of wrong labels in training and validation.
    shorter: Count = 1  # Divisor of the number of epochs.
    widths: Counts = (32, 32)  # Hidden units of each layer.
    bn_epsilon: Positive = 1e-20  # Epsilon of batch normalization.


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each data set, method, optimizer and scale."""
    if 1.0 not in settings.scales:
        raise InputError("--scales lacks 1, where rates are tuned: add it.")
    if "none" not in settings.methods:
        raise InputError("--methods lacks none, the baseline: add it.")
    counts = map(len, (settings.datasets, settings.methods, settings.scales))
    results.expect(int(np.prod([*counts, len(LABELS)])))
    for dataset in settings.datasets:
        runs = Runs(settings, dataset)
        for name in settings.methods:
            for optimizer in LABELS:
                run = runs.compile(name, optimizer)
                for scale in settings.scales:
                    part = f"{dataset}/{name}/{optimizer}/{scale:g}"
                    results.part(part, partial(run, scale))


class Runs:
    """Training on one data set.

    Args:
        settings: those of the experiment.
        dataset: its name.
    """

    def __init__(self, settings: Settings, dataset: str):
        self.settings = settings
        train, validation, pool, epochs, self.batch_size = _SIZES[dataset]
        self.epochs = max(epochs // settings.shorter, 1)
        self.splits = split(dataset, train, validation, pool, settings.noise)
        first = self.splits[0]
        self.model = linen.MLP(
            settings.widths,
            first.num_classes,
            epsilon=settings.bn_epsilon,
            momentum=0.0,
        )
        self.groups = training.kernel_groups(
            self.model, first.train_images
        ).groups

    def begin(self, longer: int) -> tuple[Any, ...]:
        """Return initial variables, batches and a key for each seed."""
        images, seeds = self.splits[0].train_images, range(self.settings.seeds)
        sizes = self.batch_size, longer * self.epochs
        start = training.begin(self.model, images, seeds, *sizes)
        return *start, jax.vmap(jax.random.key)(jnp.asarray(seeds))

    def compile(self, name: str, optimizer: str) -> Callable[[float], Any]:
        """Return a function of scale: results by name, of nested lists.

        They are accuracies, and the test loss, of shape `(rates, strengths,
        seeds)`.
        """
        grid = self.settings.rates, METHODS[name].strengths
        points = jnp.asarray(list(itertools.product(*grid)), jnp.float32)
        rates, strengths = points.T
        start = self.begin(METHODS[name].longer)
        train, evaluate = self._train(name, optimizer), self._evaluate()

        def run(scale: float) -> dict[str, Any]:
            variables, *rest = start
            variables = scale_filters(variables, self.groups, scale)
            params = train(variables["params"], *rest, rates, strengths)
            shape = *map(len, grid), self.settings.seeds
            return {
                key: listed(np.asarray(found).reshape(shape), 6)
                for key, found in evaluate(params).items()
            }

        return run

    def _train(self, name: str, optimizer: str) -> Callable:
        """Compile the training at all points, from all seeds.

        The points share batches, so that the first layer is one product.
        """
        whole = training.make_loss(self.model)
        method, make = METHODS[name], OPTIMIZER_MAKERS[optimizer]

        def train(images, labels, params, batches, key, rate, strength):
            def gradient(params, batch):
                arguments = {}, images[batch], labels[batch]
                return jax.grad(whole, has_aux=True)(params, *arguments)[0]

            inner = make(
                optax.cosine_decay_schedule(rate, len(batches)), self.groups
            )
            tx = optax.with_extra_args_support(
                method.wrap(inner, self.groups, strength, key)
            )
            step = _make_step(tx, gradient, batches)
            carry = params, tx.init(params)
            numbers = jnp.arange(len(batches))
            (params, state), _ = jax.lax.scan(step, carry, numbers)
            return method.final(state, params)

        at_points = jax.vmap(train, (*[None] * 5, 0, 0))
        from_seeds = jax.vmap(
            at_points, (None, None, 0, 0, 0, None, None), out_axes=1
        )
        return partial(jax.jit(from_seeds), *self._arrays()["train"])

    def _evaluate(self) -> Callable[[Any], dict[str, jax.Array]]:
        """Compile the evaluation of weights, of shape `(points, seeds)`.

        Statistics of batch normalizations are those of all training images.
        """
        model = self.model

        def evaluate(arrays, params):
            images, _ = arrays["train"]
            _, statistics = model.apply(
                {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            variables = {"params": params, **statistics}

            def part(name):
                images, labels = arrays[name]
                logits: Any = model.apply(variables, images, train=False)
                accuracy = (logits.argmax(-1) == labels).mean()
                return accuracy, training.cross_entropy(logits, labels).mean()

            # Validation chooses by accuracy.
            validation, _ = part("validation")
            test, loss = part("test")
            return {"validation": validation, "test": test, "test loss": loss}

        def at_points(arrays, params):
            each = jax.vmap(partial(evaluate, arrays))
            return jax.lax.map(each, params)

        return partial(jax.jit(at_points), self._arrays())

    def _arrays(self) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Return images and labels by part.

        As constants of a program they would be compiled in.
        """
        tuning, final = self.splits
        return {
            "train": _pair(tuning.train_images, tuning.train_labels),
            "validation": _pair(tuning.test_images, tuning.test_labels),
            "test": _pair(final.test_images, final.test_labels),
        }


def _make_step(
    tx: optax.GradientTransformationExtraArgs,
    gradient: Callable[[Any, jax.Array], Any],
    batches: jax.Array,
) -> Callable[[Any, jax.Array], Any]:
    """Return a step for `jax.lax.scan` over numbers of batches.

    Each inner step of Entropy-SGD takes a batch of another part of the
    training.
    """
    count = len(batches)

    def step(carry, number):
        params, state = carry

        def at(params, inner):
            ahead = inner * count // INNER["steps"]
            return gradient(params, batches[(number + ahead) % count])

        updates, state = tx.update(at(params, 0), state, params, grad_fn=at)
        return (optax.apply_updates(params, updates), state), None

    return step


def _pair(images: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(images), jnp.asarray(labels)


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        datasets=("digits",),
        methods=("none", "relative", "noise"),
        rates=(0.03, 0.3),
        scales=(0.125, 1.0),
        seeds=2,
        shorter=10,
        widths=(16,),
    ),
    measure=measure,
    report=report,
    page="experiments/perturbations.md",
    figures=figures,
    faults=faults,
)
