"""The sensitivity experiment: its grid, and what is made of the accuracies."""

import json

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks import rescaling, training
from benchmarks.experiments import command, sensitivity
from benchmarks.experiments.sensitivity_report import grid, table, widths
from benchmarks.methods import METHODS

pytestmark = pytest.mark.usefixtures("optax_promotion")

SMALL = sensitivity.EXPERIMENT.smoke


def test_rates_are_half_a_decade_apart_and_decays_one():
    rates, decays = grid(1e-3, 1e-4, 9, 5)
    np.testing.assert_allclose(rates[[0, 1, 2, 8]], [1e-3, 10**-2.5, 0.01, 10])
    np.testing.assert_allclose(decays, [1e-4, 1e-3, 1e-2, 0.1, 1])


def test_widths_of_made_up_regions():
    good = np.zeros((3, 8, 2), bool)
    good[0, 1:5, 0] = good[1, 2:6, 0] = good[2, 3:7, 0] = True
    # 12 of 48 points; 4 rates at each scale, of which 3 and 4 are common.
    assert widths(good) == {
        "share": 0.25,
        "at one scale": 2.0,
        "at all scales": 1.0,
    }
    # With the other decay, which is one choice for all scales, none is.
    moved = good.copy()
    moved[2] = good[2][:, ::-1]
    assert widths(moved) == {
        "share": 0.25,
        "at one scale": 2.0,
        "at all scales": 0.0,
    }


def test_a_point_of_the_grid_is_a_training_at_its_rate_decay_and_scale():
    settings = SMALL._replace(rates=2, decays=2, epochs=1)
    runs = sensitivity._Runs(settings)
    found = runs.measure("sgd_decay", 0.1, 1)
    assert found.shape == (2, 2)

    seeds = range(1, 2)
    dataset = runs.dataset
    start = training.initialize(runs.model, dataset.train_images, seeds)
    start = rescaling.scale_filters(start, runs.groups.groups, 0.1)
    batches = training.make_batches(500, 64, 1, seeds)
    train = training.make_train(runs.model, METHODS["sgd_decay"].build, dataset)
    rate, decay = 0.01 * 10**0.5, 0.01
    alone = runs.evaluate(train(start, batches, rate, decay))[0]
    # The same in another program: of 599 test images, those that float32's
    # rounding can tip over, which are hardly more than one.
    assert abs(found[1, 0] - alone[0]) < 2 / 599
    assert np.abs(found - found[1, 0]).max() > 2 / 599


def content(accuracies):
    """Made-up results: for each method (scales, rates, decays), two seeds."""
    parts = {
        f"{name}/{scale:g}/{seed}": (np.array(values) + offset).tolist()
        for (name, *_), of_method in zip(SMALL.grids, accuracies, strict=True)
        for scale, values in zip(SMALL.scales, of_method, strict=True)
        for seed, offset in enumerate((-0.02, 0.02))
    }
    settings = json.loads(json.dumps(SMALL._asdict()))
    return {"settings": settings, "parts": parts}


def test_the_table_counts_what_is_near_the_best_of_all():
    low, high = np.full((2, 4, 2), 0.5), np.full((2, 4, 2), 0.6)
    high[0, :2] = high[1, 1:3] = 0.905
    low[0, 0, 0] = 0.9
    low[1, 1, 0] = 0.896
    cells = {
        line.split("|")[1].strip(): [x.strip() for x in line.split("|")[2:-1]]
        for line in table(content([low, high])).splitlines()
        if line.startswith("|")
    }
    # Of 16 points SGD has 2 that are at most 0.01 below 0.905, one for each
    # scale; psi_sgd 8, and with either decay two rates, of which one is common.
    assert cells["SGD"] == ["90.00", "12", "12", "0.5", "0.0"]
    assert cells["psi_sgd"] == ["90.50", "50", "50", "1.0", "0.5"]


def test_a_small_run_writes_its_files_and_goes_on(
    tmp_path, capsys, monkeypatch
):
    arguments = ["--smoke", "--out", str(tmp_path)]
    command.main(sensitivity.EXPERIMENT, arguments)
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "sensitivity-smoke.json").read_text())
    assert len(found["parts"]) == 2 * 2 * 2
    shapes = {np.shape(part) for part in found["parts"].values()}
    assert shapes == {(SMALL.rates, SMALL.decays)}
    image = tmp_path / "sensitivity-smoke.png"
    assert image.read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(sensitivity._Runs, "measure", None)
    command.main(sensitivity.EXPERIMENT, arguments)
    assert capsys.readouterr().out == printed


def test_the_page_shows_the_committed_numbers():
    page = command.PAGES / "sensitivity.md"
    found = json.loads(page.with_suffix(".json").read_text())
    settings = json.loads(json.dumps(sensitivity.EXPERIMENT.settings._asdict()))
    assert found["settings"] == settings
    assert table(found) in page.read_text()
    assert page.with_suffix(".png").exists()
