"""The experiment with unbalanced layers: its network, training and report."""

import json

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks import data, training
from benchmarks.experiments import command, unbalanced, unbalanced_report
from benchmarks.experiments.results import Results
from benchmarks.experiments.unbalanced_network import TwoLayers
from benchmarks.experiments.unbalanced_training import (
    first,
    in_epochs,
    make_curves,
    scale_layers,
)
from benchmarks.methods import METHODS

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
    train = make_curves(MODEL, METHODS[name].build, digits)
    batches = in_epochs(training.make_batches(200, 50, EPOCHS, SEEDS), EPOCHS)
    return [
        np.asarray(train(scale_layers(start, x), batches, 0.1, 0.0)[1])
        for x in factors
    ]


def test_only_kernels_are_scaled_each_by_its_factor(start):
    scaled = scale_layers(start, (4.0, 0.5))
    kernels = [f"hidden_{index}" for index in range(2)]
    for name, factor in zip(kernels, (4.0, 0.5), strict=True):
        np.testing.assert_array_equal(
            scaled["params"][name]["kernel"],
            factor * start["params"][name]["kernel"],
        )
        scaled["params"][name] = start["params"][name]
    jax.tree.map(np.testing.assert_array_equal, scaled, start)


def test_both_kernels_are_groups(digits):
    groups = training.kernel_groups(MODEL, digits.train_images).groups
    for name in ("hidden_0", "hidden_1"):
        assert groups[name]["kernel"].axes == (0,)
    assert set(groups) == {"hidden_0", "hidden_1", "norm_0", "norm_1"}


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


def test_the_smoke_run_is_whole_and_goes_on(tmp_path, monkeypatch, capsys):
    arguments = ["--smoke", "--out", str(tmp_path)]
    command.main(unbalanced.EXPERIMENT, arguments)
    printed = capsys.readouterr().out
    assert "| SGD, retuned |" in printed
    assert (tmp_path / "unbalanced-smoke.png").stat().st_size > 10_000
    content = json.loads((tmp_path / "unbalanced-smoke.json").read_text())
    for name, part in content["parts"].items():
        if "trials" in part:
            assert len(part["trials"]) == 12, name
        else:
            assert len(part["accuracy"]) == len(part["loss"]) == 2

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(unbalanced, "_tune", again)
    monkeypatch.setattr(unbalanced, "_train", again)
    experiment = unbalanced.EXPERIMENT
    path = tmp_path / "unbalanced-smoke.json"
    results = Results(path, experiment.smoke._asdict())
    experiment.measure(experiment.smoke, results)
    assert experiment.table(results.content) in printed


def test_every_method_has_as_many_trials():
    settings = unbalanced.Settings()
    for name in settings.methods:
        assert len(unbalanced.COMPARED[name].trials()) == 12
    for name in settings.retuned:
        rates, decays = unbalanced.RETUNED[name]
        assert len(rates) * len(decays) == 12
        assert list(rates) == sorted(rates)


def test_divergence_and_edges_show():
    run = {"accuracy": [0.1, 0.2], "loss": [None, 1.0], "curve": [2.0, None]}
    tuned = {
        "label": "SGD, tuned weight decay",
        "chosen": {"learning_rate": 0.5, "weight_decay": 0.25},
        "at_edge": ["weight_decay"],
    }
    parts = {f"tuned sgd, {name}": run for name in unbalanced_report.CONDITIONS}
    settings = unbalanced.SMOKE._replace(retuned=())._asdict()
    content = {"settings": settings, "parts": {"tuned sgd": tuned, **parts}}
    table = unbalanced_report.table(content)
    assert "| SGD, weight decay |" in table
    assert table.count("diverged") == 3
    assert "15.0 ± 7.1" in table
    assert "lr 0.5, wd 0.25\\*" in table
    unbalanced_report.figure(content)
