"""Runs of the experiment on converted learning rates."""

import dataclasses
import functools
from functools import partial
from typing import Annotated, Any

import numpy as np
import optax

import psi_optax
from benchmarks.experiments.conversion import report
from benchmarks.experiments.conversion.problems import (
    NETWORKS,
    Method,
    Problem,
    Record,
    make_methods,
    make_recorded,
)
from benchmarks.experiments.rotations import rms
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Positives, at_least, one_of, some
from benchmarks.harness.results import Results
from psi_optax.dynamics import ConvertedLearningRate, convert_learning_rate
from psi_optax.transforms import retract

SEED, PILOT_SEED, SETTLING_SEED = 0, 2000, 3000


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    # Networks that are trained.
    networks: Annotated[tuple[str, ...], some(one_of(NETWORKS))] = (*NETWORKS,)
    steps: Annotated[int, at_least(2)] = 200  # Steps that are compared.
    # Learning rates of SGD, Adam, Lion and Muon without decay.
    rates: Positives = (0.01, 0.001, 0.0002, 0.002)
    # Those of SGD, AdamW, Lion and Muon with decay.
    decayed_rates: Positives = (0.03, 0.003, 0.0005, 0.005)
    # Their weight decays.
    decays: Positives = (0.05, 3.0, 10.0, 1.0)
    # Times as many steps, for norms to settle.
    settling: Count = 5


def measure(settings: Settings, results: Results) -> None:
    """Train each network by each optimizer, and by its conversions."""
    decayed = list(zip(settings.decayed_rates, settings.decays, strict=True))
    each = len(settings.rates) + len(decayed)
    results.expect(len(settings.networks) * each)
    for network in settings.networks:
        problem = NETWORKS[network]()
        methods = make_methods(problem).items()
        runs = {k: _Runs(problem, x, settings) for k, x in methods}
        for name, rate in zip(runs, settings.rates, strict=False):
            run = partial(runs[name].convert, rate)
            results.part(f"{network}, {name}", run)
        for name, point in zip(runs, decayed, strict=False):
            run = partial(runs[name].convert_decayed, *point)
            results.part(f"{network}, {name}, decay", run)


class _Runs:
    """Runs of an optimizer, and of what its learning rate is converted to."""

    def __init__(self, problem: Problem, method: Method, settings: Settings):
        self.problem, self.method = problem, method
        self.steps, self.settling = settings.steps, settings.settling

    def convert(self, rate: float) -> dict[str, Any]:
        """Return mean rotations, with the norms of the initialization."""
        params = self.problem.params
        plain = self._convert(rate, params)
        pilot = self._train("source", PILOT_SEED, params, rate, 0.0)
        source = self._train("source", SEED, params, rate, 0.0)
        noise = self._convert(rate, params, **self._gradients(pilot))
        found = self._converted(rate, params, pilot)
        return {
            "rate": rate,
            "spread": plain.spread,
            "noise": _expected(noise),
            **self._compare(source, params, found, rate),
            "own": self._mean(self._train("own", SEED, params, rate)),
        }

    def convert_decayed(self, rate: float, decay: float) -> dict[str, Any]:
        """Return mean rotations at the equilibrium of weight decay.

        SGD's and AdamW's are predicted, from the norm of SGD's gradients in a
        pilot. Lion's and Muon's are converted from the norms that they have.
        """
        settled = self._settle(rate, decay)
        params = settled.carry[0]
        pilot = self._train("source", PILOT_SEED, settled, rate, decay)
        source = self._train("source", SEED, settled, rate, decay)
        by_norms = self._converted(rate, params, pilot)
        psi = self._train("psi", SEED, params, by_norms["psi rate"], rate)
        predicted = self._predict(rate, decay, pilot)
        trusted = self.method.decayed in ("sgd", "adamw")
        found = predicted if trusted else by_norms
        return {
            "rate": rate,
            "decay": decay,
            "law": predicted.get("returned"),
            "psi by norms": self._mean(psi),
            **self._compare(source, params, found, rate),
        }

    def _settle(self, rate, decay):
        """Return a record that ends at the equilibrium of weight decay."""
        settled = self.problem.params
        for index in range(self.settling):
            seed = SETTLING_SEED + index
            settled = self._train("source", seed, settled, rate, decay)
        return settled

    def _predict(self, rate, decay, pilot):
        """Return the rates by the law of the equilibrium, if there is one."""
        if self.method.decayed == "muon":
            return {}
        options = {"weight_decay": decay, "optimizer": self.method.decayed}
        find = partial(self._convert, rate, self.problem.params, **options)
        psi = find(**self._gradients(pilot))
        return {
            "psi rate": psi.learning_rate,
            "returned": _expected(psi),
            "angle": find(to="angle").learning_rate,
        }

    def _converted(self, rate, params, pilot):
        """Return the rates by the rotation that a pilot measured."""
        medians = self.problem.tree(np.median(pilot.rotation, 0))
        find = partial(self._convert, rate, params, measured_rotation=medians)
        psi, angle = find(), find(to="angle")
        return {
            "psi rate": psi.learning_rate,
            "returned": _expected(psi),
            "angle": angle.learning_rate,
        }

    def _compare(self, source, params, found, rate):
        """Return what was found, and the rotations of all runs with it."""
        psi = self._train("psi", SEED, params, found["psi rate"], rate)
        turned = self._train("rotational", SEED, params, found["angle"], rate)
        growth = np.median(source.norm[-1] / source.norm[0])
        return {
            **found,
            "growth": float(growth),
            "source": self._mean(source),
            "psi": self._mean(psi),
            "rotational": self._mean(turned),
        }

    def _mean(self, record: Record) -> float:
        """Return the mean over weights of medians over steps."""
        rotation, sizes = np.median(record.rotation, 0), self.problem.sizes
        moves = rotation > 0
        logs = np.log(rotation[moves])
        return float(np.exp(np.average(logs, weights=sizes[moves])))

    def _convert(self, rate, params, **options):
        return convert_learning_rate(
            rate, params, self.problem.groups, **self.method.options | options
        )

    def _gradients(self, record):
        """Return the gradient norm that SGD needs, as an option."""
        if self.method.decayed != "sgd":
            return {}
        norms = self.problem.tree(rms(record.gradient, 0))
        return {"gradient_norm": norms}

    def _train(self, kind, seed, start, *rates):
        batches = self.problem.draw(self.steps, seed)
        return self._compiled[kind](start, batches, *rates)

    @functools.cached_property
    def _compiled(self):
        """Training by the optimizer, and by three that keep norms."""
        make, groups = self.method.make, self.problem.groups

        def psi(rate, ordinary):
            rest = make(ordinary, 0.0)
            return psi_optax.psi(make(rate, 0.0), groups, ordinary=rest)

        def own(rate):
            return optax.chain(make(rate, 0.0), retract(groups))

        def rotational(rate, ordinary):
            unsigned = optax.chain(make(1.0, 0.0), optax.scale(-1.0))
            rest = make(ordinary, 0.0)
            return psi_optax.rotational(rate, unsigned, groups, ordinary=rest)

        builds = {
            "source": make,
            "psi": psi,
            "own": own,
            "rotational": rotational,
        }
        return {k: make_recorded(self.problem, x) for k, x in builds.items()}


def _expected(found: ConvertedLearningRate) -> float:
    """Return the mean rotation that a conversion returned."""
    if found.rotation is None:
        raise ValueError("the rotation is unknown: pass a measured one.")
    return found.rotation.mean


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        networks=("Transformer",),
        steps=2,
        rates=(0.01,),
        decayed_rates=(0.03,),
        decays=(0.05,),
        settling=1,
    ),
    measure=measure,
    report=report.report,
    page="learning-rates.md",
    faults=report.faults,
)
