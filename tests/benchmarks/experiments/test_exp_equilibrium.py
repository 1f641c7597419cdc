"""The experiment on equilibria: what is predicted, recorded and reported."""

import json

import numpy as np
import optax
import pytest

pytest.importorskip("sklearn")

import psi_optax
from benchmarks import data, training
from benchmarks.experiments import command, equilibrium
from benchmarks.experiments.equilibrium_law import (
    Law,
    forecast,
    traced,
)
from benchmarks.experiments.equilibrium_report import _mean, _rms
from benchmarks.experiments.equilibrium_training import make_watched
from benchmarks.experiments.equilibrium_windows import (
    arrival,
    edges,
    means,
    middles,
    windows,
)
from benchmarks.experiments.results import Results
from benchmarks.recording import rms
from psi_optax.models import linen

pytestmark = pytest.mark.usefixtures("optax_promotion")

SGD, ADAMW = Law("sgd", 0.05, 0.01), Law("adamw", 0.01, 0.5)
START, NOISE = np.array([2.0, 0.1]), np.array([0.1, 0.2])
SIZE, STEPS = 20, 1500


@pytest.mark.parametrize("law", [SGD, ADAMW])
def test_with_a_steady_gradient_both_predictions_are_one(law):
    norm, angle = forecast(law, START, NOISE, SIZE, STEPS)
    steady = np.tile(NOISE, (STEPS, 1))
    followed, turned = traced(law, START, steady, SIZE)
    assert norm.shape == angle.shape == (STEPS, 2)
    # 1500 steps in float32, each rounded to 6e-8, and the relaxation's fourth
    # power; errors relax as norms do, within 50 steps or 100.
    np.testing.assert_allclose(followed, norm, rtol=1e-4)
    np.testing.assert_allclose(turned, angle, rtol=3e-4)
    # From where they began to the equilibrium, where all turn alike.
    np.testing.assert_allclose(norm[0], START, rtol=1e-6)
    np.testing.assert_allclose(norm[-1], law.norm(NOISE, SIZE), rtol=1e-2)
    np.testing.assert_allclose(angle[-1], law.rotation, rtol=2e-2)
    assert np.all(np.abs(angle[0] / law.rotation - 1) > 0.5)


def test_what_depends_on_gradients_is_sgd():
    other = 2 * NOISE
    sgd, adamw = (
        [forecast(law, START, noise, SIZE, STEPS) for noise in (NOISE, other)]
        for law in (SGD, ADAMW)
    )
    np.testing.assert_array_equal(adamw[0], adamw[1])
    # r^4 goes with c^2, and the rotation with nothing.
    np.testing.assert_allclose(
        sgd[1][0][-1] / sgd[0][0][-1], np.sqrt(2), rtol=1e-2
    )
    np.testing.assert_allclose(sgd[1][1][-1], sgd[0][1][-1], rtol=1e-2)


def test_a_filter_without_gradients_only_shrinks():
    for found in (
        forecast(SGD, START, 0 * NOISE, SIZE, 100),
        traced(SGD, START, np.zeros((100, 2)), SIZE),
    ):
        assert all(np.all(np.isfinite(x)) for x in found)
        assert np.all(np.diff(found[0], axis=0) < 0)


def test_arrival():
    step = middles(4)
    curve = np.array([3.0, 1.15, 1.05, 1.3])
    between = arrival(curve, 1.0, 4)
    # Half way, on a logarithmic axis, from 15 to 5 %.
    assert between == pytest.approx(np.sqrt(step[1] * step[2]))
    assert arrival(curve, 3.0, 4) == pytest.approx(step[0])
    assert arrival(curve, 9.0, 4) is None


def test_stretches_keep_means_and_squares():
    values = np.random.RandomState(0).normal(size=(1000, 3)) + 1
    lengths = np.diff(edges(1000))
    assert lengths.sum() == 1000
    assert len(middles(1000)) == len(lengths)
    whole = 0, 1000
    assert _rms(windows(values), 1000, whole) == pytest.approx(rms(values))
    assert _mean(means(values), 1000, whole) == pytest.approx(values.mean())
    # Unweighted they would be those of the first steps.
    assert abs(np.mean(means(values)) - values.mean()) > 1e-3


def test_the_record_is_of_directions():
    digits = data.load("digits")
    model = linen.MLP((8,), epsilon=0.0)
    seeds = range(2)
    start = training.initialize(model, digits.train_images, seeds)
    batches = training.make_batches(200, 50, 1, seeds)
    watched = make_watched(
        model, lambda rate, **_: psi_optax.psi(optax.sgd(rate), GROUPS), digits
    )
    one = watched(start, batches, 0.1, 0.0)
    start["params"]["hidden_0"]["kernel"] *= 4
    four = watched(start, batches, 0.1, 0.0)
    assert one.loss.shape == (2, 4)
    assert one.norm.keys() == {"hidden_0"}
    # A power of two, on the PSI manifold: the same bits.
    np.testing.assert_array_equal(one.loss, four.loss)
    np.testing.assert_array_equal(
        4 * one.norm["hidden_0"], four.norm["hidden_0"]
    )
    for part in ("gradient", "rotation"):
        first, second = (getattr(x, part)["hidden_0"] for x in (one, four))
        assert first.shape == (2, 4, 8)
        np.testing.assert_array_equal(first, second)
    # And a step of plain descent turns by the arctangent of rate times
    # gradient: to float32's rounding of angles of 1e-3 or more.
    np.testing.assert_allclose(
        one.rotation["hidden_0"],
        np.arctan(0.1 * one.gradient["hidden_0"]),
        rtol=1e-3,
    )


GROUPS = {
    "hidden_0": {"kernel": psi_optax.ScaleGroup(0)},
    "norm_0": None,
    "head": None,
}


def test_the_smoke_run_is_whole_and_goes_on(tmp_path, monkeypatch, capsys):
    arguments = ["--smoke", "--out", str(tmp_path)]
    command.main(equilibrium.EXPERIMENT, arguments)
    printed = capsys.readouterr().out
    assert "| SGD: in equilibrium" in printed
    assert (tmp_path / "equilibrium-smoke.png").stat().st_size > 10_000
    content = json.loads((tmp_path / "equilibrium-smoke.json").read_text())
    part = content["parts"]["matched sgd"]
    # 200 steps, of which SGD needs some 50 to settle: 0.1 / (4 * 0.002) = 12
    # of relaxation, from norms that begin where they end.
    late = [np.mean(run["rotation"][-5:]) for run in part["runs"].values()]
    assert np.all(np.abs(np.array(late) / part["rotation"] - 1) < 0.25)

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(equilibrium, "_point", again)
    monkeypatch.setattr(equilibrium, "_matched", again)
    experiment = equilibrium.EXPERIMENT
    path = tmp_path / "equilibrium-smoke.json"
    results = Results(path, experiment.smoke._asdict())
    experiment.measure(experiment.smoke, results)
    assert experiment.table(results.content) in printed
