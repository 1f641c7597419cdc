"""The experiment with unbalanced layers: its network, training and report."""

import dataclasses

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks import data, training
from benchmarks.experiments.noisy_data import first
from benchmarks.experiments.two_layers import TwoLayers
from benchmarks.experiments.unbalanced.experiment import (
    COMPARED,
    MEASUREMENT,
    make_curves,
    scale_layers,
)
from benchmarks.experiments.unbalanced.report import CONDITIONS

pytestmark = pytest.mark.usefixtures("optax_promotion")

MODEL = TwoLayers(8, epsilon=0.0)
SEEDS, EPOCHS = range(2), 2


@pytest.fixture(scope="module")
def digits():
    return first(data.load("digits"), 200)


@pytest.fixture(scope="module")
def start(digits):
    return training.initialize(MODEL, digits.train_images, SEEDS)


def curves(name, digits, start, *factors):
    """The losses of training from each of the factors."""
    train = make_curves(MODEL, COMPARED[name].build, digits, EPOCHS)
    batches = training.make_batches(200, 50, EPOCHS, SEEDS)
    return [
        np.asarray(train(scale_layers(start, x), batches, 0.1, 0.0)[1])
        for x in factors
    ]


def test_both_kernels_are_groups_and_scaled_each_by_its_factor(digits, start):
    groups = training.kernel_groups(MODEL, digits.train_images).groups
    assert set(groups) == {"hidden_0", "hidden_1", "norm_0", "norm_1"}
    scaled = scale_layers(start, (4.0, 0.5))
    for name, factor in (("hidden_0", 0.25), ("hidden_1", 2.0)):
        assert groups[name]["kernel"].axes == (0,)
        scaled["params"][name]["kernel"] *= factor
    jax.tree.map(np.testing.assert_array_equal, scaled, start)


def test_psi_sgd_does_not_see_the_factors(digits, start):
    # Powers of two and no epsilon: the same to the last bit. Others round.
    balanced, exact, rounded = curves(
        "psi_sgd", digits, start, (1.0, 1.0), (2.0**13, 2.0**-13), (1e4, 1e-4)
    )
    assert balanced.shape == (len(SEEDS), EPOCHS + 1)
    np.testing.assert_array_equal(balanced, exact)
    # 8 steps from weights that are off by 1e-7.
    np.testing.assert_allclose(balanced, rounded, rtol=1e-3)
    assert np.all(balanced[:, -1] < 0.9 * balanced[:, 0])


def test_sgd_does(digits, start):
    balanced, other = curves("sgd", digits, start, (1.0, 1.0), (1e4, 1e-4))
    np.testing.assert_allclose(balanced[:, 0], other[:, 0], rtol=1e-5)
    assert np.all(np.abs(other[:, -1] - balanced[:, -1]) > 0.1)


def test_divergence_and_edges_show():
    run = {"accuracy": [0.1, 0.2], "loss": [None, 1.0], "curve": [2.0, None]}
    tuned = {
        "label": "SGD, tuned weight decay",
        "chosen": {"learning_rate": 0.5, "weight_decay": 0.25},
        "at_edge": ["weight_decay"],
    }
    parts = {f"tuned sgd, {name}": run for name in CONDITIONS}
    settings = dataclasses.asdict(MEASUREMENT.smoke) | {"retuned": ()}
    content = {"settings": settings, "parts": {"tuned sgd": tuned, **parts}}
    text = MEASUREMENT.report(content)
    assert "| SGD, weight decay |" in text
    assert text.count("diverged") == 3
    assert "15.0 ± 7.1" in text
    assert "lr 0.5, wd 0.25★" in text
    MEASUREMENT.figures(content)
