"""The experiment with averages over learners: trainings, tables and claims."""

import copy
import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("sklearn")

from benchmarks import training
from benchmarks.experiments.averaging import MEASUREMENT
from benchmarks.experiments.averaging.experiment import Runs
from benchmarks.experiments.averaging.methods import AVERAGES, LABELS
from benchmarks.harness.files import InputError
from benchmarks.harness.pages import DOCS
from benchmarks.harness.results import Results, read
from benchmarks.optimizers import OPTIMIZERS
from psi_optax import group_norms

pytestmark = pytest.mark.usefixtures("optax_promotion")

SMALL = dataclasses.replace(MEASUREMENT.smoke, epochs=1)
SIZE, RATE = 100, 1  # The index of a rate.


@cache
def trained(averaging, optimizer="sgd", **changes):
    """Return params of the second seed, and distances, at one rate."""
    runs = Runs(dataclasses.replace(SMALL, **changes))
    found, distance = runs.train(SIZE, averaging, optimizer)
    rate = min(RATE, len(runs.settings.rates) - 1)
    params = {name: x["params"] for name, x in found.items()}
    return jax.tree.map(lambda x: x[1, rate], params), distance[1, rate]


def apart(a, b):
    """Return the largest difference of two trees."""
    found = jax.tree.map(lambda x, y: np.abs(x - y).max(), a, b)
    return max(jax.tree.leaves(found))


def by_hand(parts):
    """Train by the mean of the losses of the parts of each batch."""
    runs = Runs(SMALL)
    images, labels = map(jnp.asarray, runs.dataset[1:3])
    sizes = range(SMALL.seeds), SIZE, SMALL.epochs
    variables, batches = training.begin(runs.model, runs.dataset[1], *sizes)
    params = jax.tree.map(lambda x: x[1], variables["params"])
    loss = training.make_loss(runs.model)

    def mean(params, batch):
        split = batch.reshape(parts, -1)
        losses = [loss(params, {}, images[x], labels[x])[0] for x in split]
        return sum(losses) / parts

    rates = optax.cosine_decay_schedule(SMALL.rates[RATE], batches.shape[1])
    tx = OPTIMIZERS["sgd"].make(rates)
    state, gradient = tx.init(params), jax.jit(jax.grad(mean))
    for batch in batches[1]:
        updates, state = tx.update(gradient(params, batch), state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_averaged_gradients_are_those_of_the_batch_but_for_statistics():
    found, distance = trained("gradients")
    assert distance == 0
    assert apart(found["mean"], found["one"]) == 0
    # Five steps in float32. Statistics of the whole batch are others.
    assert apart(found["mean"], by_hand(SMALL.learners)) < 1e-5
    assert apart(found["mean"], by_hand(1)) > 1e-2


def test_after_one_step_the_mean_of_learners_is_that_of_gradients():
    for steps, holds in ((1, True), (5, False)):
        means = [
            trained(averaging, train=SIZE * steps)[0]["mean"]
            for averaging in AVERAGES
        ]
        for other in means[1:]:
            # A mean of four weights of size 1 in float32.
            assert (apart(means[0], other) < 1e-6) == holds


def test_learners_of_a_ring_are_further_apart():
    for optimizer in LABELS:
        distances = [trained(x, optimizer)[1] for x in AVERAGES]
        assert 0 == distances[0] < distances[1] < distances[2]


def test_groups_of_a_learner_keep_their_norms_and_means_do_not():
    runs = Runs(SMALL)
    start = training.initialize(runs.model, runs.dataset[1], range(1, 2))
    start = jax.tree.map(lambda x: x[0], start["params"])
    found, _ = trained("ring", "psi_sgd", train=400)
    expected, one, mean = (
        group_norms(x, runs.groups)
        for x in (start, found["one"], found["mean"])
    )
    # Norms are near 1; a few roundings in float32.
    assert apart(one, expected) < 1e-6
    assert apart(mean, expected) > 1e-5


def test_a_rate_is_as_if_trained_alone():
    for averaging in AVERAGES:
        both, _ = trained(averaging)
        alone, _ = trained(averaging, rates=(SMALL.rates[RATE],))
        other, _ = trained(averaging, rates=(SMALL.rates[0],))
        # Five steps in float32, in programs that round in other places.
        assert apart(both, alone) < 1e-5
        assert apart(both, other) > 1e-2


def made_up(validation, test, distance):
    """Return results that are the same for all optimizers and averages."""
    settings = dataclasses.replace(SMALL, rates=(0.1, 0.2, 0.4, 0.8))
    accuracies = {"validation": validation, "test": test}
    part = {"mean": accuracies, "one": accuracies, "distance": distance}
    parts = {f"{SIZE}/{a}/{o}": part for a in AVERAGES for o in LABELS}
    return {"settings": dataclasses.asdict(settings), "parts": parts}


def test_rates_are_chosen_on_validation_data_alone():
    # By rate and seed: means of 0.9, 0.91, 0.85 and 0.1.
    validation = [[0.9, 0.9], [0.92, 0.9], [0.85, 0.85], [0.1, 0.1]]
    test = [[0.5, 0.5], [0.4, 0.6], [0.9, 0.9], [0.9, 0.9]]
    distance = [[0.01, 0.01], [0.02, 0.04], [0.1, 0.1], [None, 0.1]]
    table = MEASUREMENT.report(made_up(validation, test, distance))
    [line] = [x for x in table.splitlines() if "100, SGD, gradients" in x]
    cells = [x.strip() for x in line.split("|")[2:-1]]
    tested = "50.0 ± 14.1"
    assert cells == ["0.2", tested, tested, "0.2", "0.4", "3"]
    # Close to the best, the lowest rate survives.
    validation[1] = [0.895, 0.895]
    table = MEASUREMENT.report(made_up(validation, test, distance))
    assert "|        0.1★ |" in table


def test_batches_that_learners_cannot_divide(tmp_path):
    settings = dataclasses.replace(SMALL, batch_sizes=(100, 102))
    with pytest.raises(InputError, match="--batch-sizes 102: .* --learners 4"):
        MEASUREMENT.measure(settings, Results(tmp_path / "numbers.json", {}))


def test_the_numbers_that_are_kept_bear_out_the_claims():
    content = read(DOCS / "numbers" / "averaging.json")
    assert MEASUREMENT.faults(content) == []
    for averaging, wrong in (("gradients", 1e-9), ("ring", 0.0), ("all", 0.0)):
        changed = copy.deepcopy(content)
        changed["parts"][f"256/{averaging}/sgd"]["distance"][0][0] = wrong
        [fault] = MEASUREMENT.faults(changed)
        assert fault.startswith(f"256, SGD, {AVERAGES[averaging]}")
