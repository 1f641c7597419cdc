"""Sensitivity: its grid, its trainings, and the sizes of good regions."""

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks import training
from benchmarks.experiments.rescaling.experiment import scale_filters
from benchmarks.experiments.sensitivity import MEASUREMENT
from benchmarks.experiments.sensitivity.experiment import Runs
from benchmarks.experiments.sensitivity.report import points, report, widths
from benchmarks.optimizers import TUNED

pytestmark = pytest.mark.usefixtures("optax_promotion")

SMALL = MEASUREMENT.smoke


def test_grids_of_adam_begin_lower_in_rates_and_higher_in_decays():
    settings = dataclasses.asdict(MEASUREMENT.settings)
    for name, rate, decay in (("sgd", 1e-3, 1e-4), ("adamp", 1e-4, 1e-2)):
        rates, decays = points(settings, name)
        np.testing.assert_allclose(rates, rate * 10 ** np.arange(0, 4.5, 0.5))
        np.testing.assert_allclose(decays, decay * 10.0 ** np.arange(5))


def test_widths_of_made_up_regions():
    good = np.zeros((3, 8, 2), bool)
    good[0, 1:5, 0] = good[1, 2:6, 0] = good[2, 3:7, 0] = True
    # 12 of 48 points; 4 rates at each scale, of which 3 and 4 are common.
    assert widths(good) == (0.25, 2.0, 1.0)
    # With the other decay, which is one choice for all scales, none is.
    good[2] = good[2][:, ::-1]
    assert widths(good) == (0.25, 2.0, 0.0)


def test_a_point_of_the_grid_is_a_training_at_its_rate_decay_and_scale():
    runs = Runs(dataclasses.replace(SMALL, rates=2, decays=2, epochs=1))
    found = np.array(runs.compile("sgd_decay")(0.1, 1))
    assert found.shape == (2, 2)

    seeds, dataset = range(1, 2), runs.dataset
    start = training.initialize(runs.model, dataset.train_images, seeds)
    start = scale_filters(start, runs.groups.groups, 0.1)
    batches = training.make_batches(500, 64, 1, seeds)
    train = training.make_train(runs.model, TUNED["sgd_decay"].build, dataset)
    alone = runs.evaluate(train(start, batches, 0.01 * 10**0.5, 0.01))[0]
    # In another program rounding may tip over hardly more than one image.
    assert abs(found[1, 0] - alone[0]) < 2 / 599
    assert np.abs(found - found[1, 0]).max() > 2 / 599


def test_the_table_counts_accuracies_near_the_best_of_all():
    low, high = np.full((2, 4, 2), 0.5), np.full((2, 4, 2), 0.6)
    high[0, :2] = high[1, 1:3] = 0.905
    low[0, 0, 0], low[1, 1, 0] = 0.9, 0.896
    parts = {
        f"{name}/{scale:g}/{seed}": values + offset
        for name, accuracy in zip(SMALL.optimizers, (low, high), strict=True)
        for scale, values in zip(SMALL.scales, accuracy, strict=True)
        for seed, offset in enumerate((-0.02, 0.02))
    }
    settings = json.loads(json.dumps(dataclasses.asdict(SMALL)))
    rows = report({"settings": settings, "parts": parts}).splitlines()[-2:]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    # Of 16 points SGD has 2 that are at most 0.01 below 0.905, one for each
    # scale; psi_sgd 8, and with either decay two rates, of which one is common.
    assert cells == [
        ["SGD", "90.00", "12", "12", "0.5", "0.0"],
        ["psi_sgd", "90.50", "50", "50", "1.0", "0.5"],
    ]
