"""Runs of the experiment on converted learning rates."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import optax

import psi_optax
from benchmarks.experiments.conversion import report
from benchmarks.experiments.conversion.problems import (
    Problem,
    Record,
    make_recorded,
    muon_axes,
    resnet,
    transformer,
)
from benchmarks.experiments.rotations import rms
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Positive, at_least
from benchmarks.harness.results import Results
from psi_optax.dynamics import convert_learning_rate
from psi_optax.transforms import retract

SEED, PILOT_SEED, SETTLING_SEED, MOMENTUM = 0, 2000, 3000, 0.9


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    steps: Annotated[int, at_least(2)] = 200  # Steps that are compared.
    settle: Count = 400  # Steps before these, with weight decay.
    images: Count = 64  # Images in a batch.
    pieces: Count = 16  # Pieces of text in a batch.
    resnet_width: Count = 8  # Channels of the ResNet's first stage.
    transformer_width: Count = 32  # Channels of the Transformer.
    # Learning rates of SGD, Adam, Lion and Muon without decay.
    rates: tuple[Positive, ...] = (0.01, 0.001, 0.0002, 0.002)
    # Learning rates of SGD, AdamW and Lion with decay.
    decayed_rates: tuple[Positive, ...] = (0.03, 0.003, 0.0003)
    # Their weight decays.
    decays: tuple[Positive, ...] = (0.05, 3.0, 30.0)


class Method(NamedTuple):
    """An optimizer whose rate is converted.

    Attributes:
        make: of a rate, and of a decay if it has one.
        direction: the same without a rate, for `rotational`.
        options: of `convert_learning_rate`.
    """

    make: Callable[..., optax.GradientTransformation]
    direction: optax.GradientTransformation
    options: dict[str, Any]


def methods(problem: Problem) -> dict[str, Method]:
    """Return the optimizers by name. Groups alone decay."""
    axes = muon_axes(problem)
    mask = jax.tree.map(lambda _: False, problem.params)
    mask = jax.tree.map(
        lambda group, _: group is not None,
        problem.groups,
        mask,
        is_leaf=lambda x: x is None,
    )

    def sgd(rate, decay=None):
        step = optax.sgd(rate, MOMENTUM)
        if decay is None:
            return step
        return optax.chain(optax.add_decayed_weights(decay, mask), step)

    def adam(rate, decay=None):
        if decay is None:
            return optax.adam(rate, b2=0.99)
        return optax.adamw(rate, b2=0.99, weight_decay=decay, mask=mask)

    def lion(rate, decay=None):
        mask_of_none = None if decay is None else mask
        return optax.lion(rate, weight_decay=decay or 0.0, mask=mask_of_none)

    def muon(rate):
        return optax.contrib.muon(rate, muon_weight_dimension_numbers=axes)

    options = {"momentum": MOMENTUM}
    numbers = {"weight_dimension_numbers": axes}
    unsigned = optax.chain(muon(1.0), optax.scale(-1.0))
    return {
        "sgd": Method(sgd, optax.trace(MOMENTUM), options),
        "adam": Method(adam, optax.scale_by_adam(b2=0.99), {}),
        "lion": Method(lion, optax.scale_by_lion(), {}),
        "muon": Method(muon, unsigned, numbers),
    }


def measure(settings: Settings, results: Results) -> None:
    """Train each network by each optimizer, and by its conversions."""
    networks = {
        "ResNet": partial(resnet, settings.resnet_width, settings.images),
        "Transformer": partial(
            transformer, settings.transformer_width, settings.pieces
        ),
    }
    decays = list(zip(settings.decayed_rates, settings.decays, strict=True))
    results.expect(len(networks) * (len(settings.rates) + len(decays)))
    for network, make in networks.items():
        problem = make()
        found = methods(problem)
        for name, rate in zip(found, settings.rates, strict=True):
            run = partial(_convert, settings, problem, name, rate)
            results.part(f"{network}, {name}", run)
        for name, point in zip(found, decays, strict=False):
            run = partial(_convert_decayed, settings, problem, name, *point)
            results.part(f"{network}, {name}, decay", run)


def _convert(
    settings: Settings, problem: Problem, name: str, rate: float
) -> dict[str, Any]:
    """Return rotations of an optimizer, and of what it is converted to."""
    method = methods(problem)[name]
    options = {"groups": problem.groups, "optimizer": name, **method.options}
    params = problem.params
    plain = convert_learning_rate(rate, params, **options)
    if not plain.fits_all:
        params = psi_optax.normalize(params, problem.groups)
    train = partial(_train, problem, settings.steps, params)
    source, pilot = (train(method.make, x, rate) for x in (SEED, PILOT_SEED))
    convert = partial(convert_learning_rate, rate, params, **options)
    gradients = {"gradient_norm": problem.tree(rms(pilot.gradient, 0))}
    noise = convert(**gradients if name == "sgd" else {})
    found = partial(
        convert,
        measured_rotation=problem.tree(np.median(pilot.rotation, 0)),
    )
    to_psi, angle = found(), found(to="angle").learning_rate
    return {
        "rate": rate,
        "spread": plain.spread,
        "growth": float(np.median(source.norm[-1] / source.norm[0])),
        "noise": noise.rotation.median,
        **_rotations(problem, method, train, source, to_psi, angle, rate),
        "own": _median(train(_retracted(problem, method), SEED, rate)),
    }


def _convert_decayed(
    settings: Settings, problem: Problem, name: str, rate: float, decay: float
) -> dict[str, Any]:
    """Return the same at the equilibrium of weight decay, without a pilot.

    The gradient norm that SGD needs is measured while norms settle.
    """
    method, settle = methods(problem)[name], settings.settle
    start = problem.params
    settled = _train(
        problem, settle, start, method.make, SETTLING_SEED, rate, decay
    )
    train = partial(_train, problem, settings.steps, settled.params)
    decayed = "adamw" if name == "adam" else name
    convert = partial(
        convert_learning_rate,
        rate,
        start,
        problem.groups,
        optimizer=decayed,
        weight_decay=decay,
        **method.options,
    )
    late = rms(settled.gradient[settle // 2 :], 0)
    gradients = {"gradient_norm": problem.tree(late)}
    to_psi = convert(**gradients if name == "sgd" else {})
    angle = convert(to="angle").learning_rate
    source = train(method.make, SEED, rate, decay)
    return {
        "rate": rate,
        "decay": decay,
        "spread": to_psi.spread,
        "growth": float(np.median(source.norm[-1] / source.norm[0])),
        **_rotations(problem, method, train, source, to_psi, angle, rate),
    }


def _rotations(problem, method, train, source, to_psi, angle, rate):
    """Return median rotations over steps and groups, and the rates."""
    psi = train(_psi(problem, method), SEED, to_psi.learning_rate, rate)
    turned = train(_rotational(problem, method), SEED, angle, rate)
    return {
        "psi rate": to_psi.learning_rate,
        "returned": to_psi.rotation.median,
        "angle": angle,
        "source": _median(source),
        "psi": _median(psi),
        "rotational": _median(turned),
    }


def _train(problem, steps, params, build, seed, *rates):
    batches = problem.draw(steps, seed)
    return make_recorded(problem, build)(params, batches, *rates)


def _psi(problem, method):
    return lambda rate, ordinary: psi_optax.psi(
        method.make(rate), problem.groups, ordinary=method.make(ordinary)
    )


def _retracted(problem, method):
    return lambda rate: optax.chain(method.make(rate), retract(problem.groups))


def _rotational(problem, method):
    return lambda rate, ordinary: psi_optax.rotational(
        rate,
        method.direction,
        problem.groups,
        ordinary=method.make(ordinary),
    )


def _median(record: Record) -> float:
    return float(np.median(record.rotation))


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(steps=3, settle=2, images=4, pieces=2, resnet_width=2),
    measure=measure,
    report=report.report,
    page="learning-rates.md",
    faults=report.faults,
)
