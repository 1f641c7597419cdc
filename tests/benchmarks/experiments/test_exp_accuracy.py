"""The accuracy experiment: its data, its paired tests, its training."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks import data, training
from benchmarks.experiments.accuracy import MEASUREMENT
from benchmarks.experiments.accuracy.experiment import make_stepwise
from benchmarks.experiments.accuracy.report import BASELINE, marks_of
from benchmarks.experiments.noisy_data import flip_labels, split
from benchmarks.harness.files import InputError
from benchmarks.harness.results import Results
from benchmarks.optimizers import TUNED
from psi_optax.models import linen

pytestmark = pytest.mark.usefixtures("optax_promotion")

MODEL = linen.MLP(widths=(8,), momentum=0.9)


def test_as_many_labels_are_wrong_as_is_said_and_in_all_ways():
    labels = np.repeat(np.arange(10, dtype=np.int32), 900)
    flipped = flip_labels(labels, 0.3, 10)
    wrong = flipped != labels
    assert wrong.sum() == 2700
    assert flipped.dtype == labels.dtype
    # Each of 9 ways 300 times, with a standard deviation of
    # sqrt(2700 * 8 / 81) = 16.3: five of them.
    offsets = np.bincount((flipped - labels)[wrong] % 10, minlength=10)
    assert offsets[0] == 0
    assert np.abs(offsets[1:] - 300).max() < 82
    np.testing.assert_array_equal(flip_labels(labels, 0.0, 10), labels)


def test_pixels_become_means_and_only_test_labels_are_right(monkeypatch):
    """In a data set whose images show their numbers, before the point."""
    pattern = np.arange(16).reshape(4, 4, 1) / 100

    def numbered(*numbers):
        numbers = np.arange(*numbers)
        images = numbers[:, None, None, None] + pattern[None]
        return images.astype(np.float32), (numbers % 10).astype(np.int32)

    full = data.Dataset("numbered", *numbered(100), *numbered(200, 230), 10)
    monkeypatch.setattr(data, "load", lambda name: full)
    tuning, final = split("numbered", 60, 30, pool=2, noise=0.5)
    assert tuning.train_images is final.train_images
    seen, held = final.train_images, tuning.test_images
    means = [[0.025, 0.045], [0.105, 0.125]]  # (0 + 1 + 4 + 5) / 400, ...
    pooled = np.broadcast_to(means, (60, 2, 2))
    np.testing.assert_allclose((seen % 1)[..., 0], pooled, atol=1e-5)
    numbers = [images[:, 0, 0, 0].astype(int) for images in (seen, held)]
    assert len(np.unique(np.concatenate(numbers))) == 90
    np.testing.assert_array_equal(final.test_labels, full.test_labels)
    labels = final.train_labels, tuning.test_labels
    for given, right in zip(labels, numbers, strict=True):
        assert 0.2 < np.mean(given == right % 10) < 0.8


def test_differences_are_marked_seed_by_seed():
    baseline = np.array([0.90, 0.80, 0.70, 0.60])
    # By less than seeds differ, not at all, by chance, and as much for all.
    methods = ["above", BASELINE, "equal", "like", "below"]
    less = np.array(
        [[10, 12, 11, 9], [0] * 4, [0] * 4, [9, -9, 20, -9], [-8] * 4]
    )
    marks = marks_of(methods, (baseline[None] + less / 1024)[:, None])
    assert marks[:, 0].tolist() == ["▲", "", "", "", "▼"]


def test_the_baseline_has_to_be_measured(tmp_path):
    settings = dataclasses.replace(MEASUREMENT.smoke, methods=("sgd",))
    with pytest.raises(InputError, match=BASELINE):
        MEASUREMENT.measure(settings, Results(tmp_path / "numbers.json", {}))


@pytest.fixture(scope="module")
def digits():
    return data.hold_out(data.load("digits"), fraction=0.5)


def test_step_by_step_is_the_same_training(digits):
    seeds = range(2)
    batches = training.make_batches(len(digits.train_labels), 64, 1, seeds)
    assert batches.shape == (2, 9, 64)
    kernels = []
    for make in (training.make_train, make_stepwise):
        start = training.initialize(MODEL, digits.train_images, seeds)
        first = np.array(start["params"]["hidden_0"]["kernel"])
        train = make(MODEL, TUNED["sgd"].build, digits)
        after = train(start, batches, 0.1, 0.0)
        kernels.append(np.array(after["params"]["hidden_0"]["kernel"]))
    # Other programs, whose sums may have another order: 1e-7 of each a step,
    # and over 9 steps not much more.
    np.testing.assert_allclose(*kernels, rtol=1e-3, atol=1e-4)
    assert np.abs(kernels[0] - first).max() > 0.01
    assert np.abs(kernels[0][0] - kernels[0][1]).max() > 0.1
