"""Batch size: the random-matrix rule, batch Hessians and learning rates."""

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks import data, training
from benchmarks.experiments.batch_size.curvature import (
    BatchCurvature,
    outlier,
)
from benchmarks.experiments.batch_size.report import predict
from benchmarks.experiments.batch_size.rules import (
    LOWEST,
    RULES,
    best,
    moved,
    rates,
    train_all,
)
from benchmarks.experiments.dense import EXACT, DenseNetwork, training_loss
from benchmarks.experiments.noisy_data import first
from benchmarks.optimizers import OPTIMIZERS

pytestmark = pytest.mark.usefixtures("optax_promotion")

DIGITS = first(data.load("digits"), 64)
MODEL = DenseNetwork((4,), **EXACT)


@pytest.mark.parametrize("value", [3.0, 1.5, 0.5])
def test_the_rule_holds_for_independent_entries(value):
    size, random = 600, np.random.RandomState(0)
    noise = random.normal(size=(size, size))
    noise = (noise + noise.T) / np.sqrt(2 * size)
    noise[0, 0] += value
    top = np.linalg.eigvalsh(noise)[-1]
    # An outlier deviates by about (2 / size) ** 0.5 = 0.06, the edge by less.
    assert abs(top - outlier(value, 1.0)) < 0.12
    # The control: below R there is no outlier.
    buried = abs(top - (value + 1 / value)) > 0.3
    assert buried == (value < 1)


@pytest.fixture(scope="module")
def curvature():
    start = MODEL.init(jax.random.key(1), DIGITS.train_images, train=False)
    batch = DIGITS.train_images, DIGITS.train_labels
    loss = training_loss(MODEL)
    return BatchCurvature(loss, start["params"], batch, products=12, probes=2)


def test_a_batch_of_all_examples_has_no_noise(curvature):
    found = curvature.batches(64, range(2))
    full = float(curvature.full.values[0])
    # float32 sums of 64 terms in another order.
    np.testing.assert_allclose(found["top"], full, rtol=1e-4)
    assert np.max(found["square"]) < 1e-8 * full**2
    assert np.max(found["along"]) < 1e-8 * full**2
    part = curvature.batches(16, range(2))
    assert np.min(part["square"]) > 1e-4 * full**2
    assert not np.allclose(part["top"], full, rtol=0.01)


def test_predictions_are_those_of_means():
    found = {
        "top": [4.0, 6.0],
        "residual": [0.04, 0.0],
        "square": [1.0, 3.0],
        "along": [4.0, 4.0],
        "shift": [0.5, -0.5],
    }
    part = {"full": 4.0, "batches": {"16": found}}
    shown = predict(part, "16")
    expected = {
        "top": 5.0,
        "R": 2**0.5,
        "excess": 1.0,
        "rule": 0.5,
        "along": 1.0,
        "shift": 0.0,
        "residual": 0.01,
    }
    assert shown == pytest.approx(expected, rel=1e-12)


def test_rules_lead_to_rates_of_the_grid():
    assert set(LOWEST) <= set(OPTIMIZERS)
    grid = rates("sgd", 8)
    for name, factor in (("linear", 16.0), ("square root", 4.0)):
        index = moved(2, RULES[name], 16.0)
        assert grid[index] == factor * grid[2]


def test_a_diverged_rate_is_never_the_best():
    assert best({"loss": [[0.5, 0.5], [0.3, 0.5], [0.1, None]]}) == 1


def test_a_rate_of_the_grid_is_a_training_at_that_rate():
    options = {"count": 3, "epochs": 1, "seeds": 2}
    part = train_all(MODEL, DIGITS, "psi_sgd", 16, **options)
    assert np.shape(part["loss"]) == np.shape(part["accuracy"]) == (3, 2)
    images = DIGITS.train_images
    start = training.begin(MODEL, images, range(2), 16, 1)

    def build(rate, groups, **_):
        return OPTIMIZERS["psi_sgd"].make(rate, groups)

    train = training.make_train(MODEL, build, DIGITS)
    after = train(*start, part["rates"][2], 0.0)
    loss = training_loss(MODEL)
    batch = images, DIGITS.train_labels
    alone = [
        float(loss(jax.tree.map(lambda x, i=i: x[i], after["params"]), *batch))
        for i in range(2)
    ]
    # Kept to 4 digits, and 4 steps in another program.
    np.testing.assert_allclose(part["loss"][2], alone, rtol=1e-3)
    assert np.abs(np.subtract(part["loss"][0], alone)).max() > 0.01
