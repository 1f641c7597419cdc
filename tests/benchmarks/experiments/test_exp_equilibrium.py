"""The experiment on equilibria: its predictions, windows and records."""

import numpy as np
import optax
import pytest

pytest.importorskip("sklearn")

import psi_optax
from benchmarks import data, training
from benchmarks.experiments.equilibrium import MEASUREMENT
from benchmarks.experiments.equilibrium.experiment import make_watched
from benchmarks.experiments.equilibrium.law import Law, forecast, trace
from benchmarks.experiments.equilibrium.windows import (
    arrival,
    edges,
    mean,
    means,
    middles,
    overall,
    windows,
)
from benchmarks.experiments.rotations import rms
from benchmarks.harness.results import Results
from psi_optax.models import linen

pytestmark = pytest.mark.usefixtures("optax_promotion")

SGD, ADAMW = Law("sgd", 0.05, 0.01), Law("adamw", 0.01, 0.5)
START, NOISE = np.array([2.0, 0.1]), np.array([0.1, 0.2])
SIZE, STEPS = 20, 1500


@pytest.mark.parametrize("law", [SGD, ADAMW])
def test_with_a_steady_gradient_both_predictions_are_one(law):
    norm, angle = forecast(law, START, NOISE, SIZE, STEPS)
    traced, turned = trace(law, START, np.tile(NOISE, (STEPS, 1)), SIZE)
    assert norm.shape == angle.shape == (STEPS, 2)
    # 1500 steps in float32, each rounded to 6e-8, and the relaxation's fourth
    # power; errors relax as norms do, within 50 steps or 100.
    np.testing.assert_allclose(traced, norm, rtol=1e-4)
    np.testing.assert_allclose(turned, angle, rtol=3e-4)
    # From where they began to the equilibrium, where all turn alike.
    np.testing.assert_allclose(norm[0], START, rtol=1e-6)
    np.testing.assert_allclose(norm[-1], law.norm(NOISE, SIZE), rtol=1e-2)
    np.testing.assert_allclose(angle[-1], law.rotation, rtol=2e-2)
    assert np.all(np.abs(angle[0] / law.rotation - 1) > 0.5)


def test_only_sgd_depends_on_gradients():
    (sgd, other), adamw = (
        [forecast(law, START, c, SIZE, STEPS) for c in (NOISE, 2 * NOISE)]
        for law in (SGD, ADAMW)
    )
    np.testing.assert_array_equal(*adamw)
    # r^4 goes with c^2, and the rotation with nothing.
    np.testing.assert_allclose(other[0][-1] / sgd[0][-1], 2**0.5, rtol=1e-2)
    np.testing.assert_allclose(other[1][-1], sgd[1][-1], rtol=1e-2)


def test_a_filter_without_gradients_only_shrinks():
    for norm, angle in (
        forecast(SGD, START, 0 * NOISE, SIZE, 100),
        trace(SGD, START, np.zeros((100, 2)), SIZE),
    ):
        assert np.all(np.isfinite(angle))
        assert np.all(np.diff(norm, axis=0) < 0)


def test_arrival():
    step = middles(4)
    curve = [3.0, 1.15, 1.05, 1.3]
    # Half way, on a logarithmic axis, from 15 to 5 %.
    half_way = np.sqrt(step[1] * step[2])
    assert arrival(curve, 1.0, 4) == pytest.approx(half_way)
    assert arrival(curve, 3.0, 4) == pytest.approx(step[0])
    assert arrival(curve, 9.0, 4) is None


def test_windows_keep_means_and_squares():
    values = np.random.RandomState(0).normal(size=(1000, 3)) + 1
    assert len(middles(1000)) == len(np.diff(edges(1000)))
    whole = 1000, 0, 1000
    assert overall(windows(values), *whole) == pytest.approx(rms(values))
    assert mean(means(values), *whole) == pytest.approx(values.mean())
    # Unweighted they would be those of the first steps.
    assert abs(np.mean(means(values)) - values.mean()) > 1e-3


def test_the_record_is_of_directions():
    digits, seeds = data.load("digits"), range(2)
    model = linen.MLP((8,), epsilon=0.0)
    batches = training.make_batches(200, 50, 1, seeds)
    watched = make_watched(
        model,
        lambda rate, groups, **_: psi_optax.psi(optax.sgd(rate), groups),
        digits,
    )
    records = []
    for factor in (1, 4):
        start = training.initialize(model, digits.train_images, seeds)
        start["params"]["hidden_0"]["kernel"] *= factor
        record = watched(start, batches, 0.1, 0.0)
        records.append({"loss": record["loss"], **record["layers"]["hidden_0"]})
    one, four = records
    assert one["loss"].shape == (4, 2)
    assert one["size"] == 64
    # A power of two, on the PSI manifold: the same bits.
    for kind, factor in (("loss", 1), ("norm", 4), ("gradient", 1)):
        np.testing.assert_array_equal(factor * one[kind], four[kind])
    np.testing.assert_array_equal(one["rotation"], four["rotation"])
    # And a step of plain descent turns by the arctangent of rate times
    # gradient: to float32's rounding of angles of 1e-3 or more.
    assert one["rotation"].shape == (4, 16)
    slope = np.arctan(0.1 * one["gradient"])
    np.testing.assert_allclose(one["rotation"], slope, rtol=1e-3)


def test_matched_methods_rotate_as_sgd_does(tmp_path):
    with Results(tmp_path / "numbers.json", {}) as results:
        MEASUREMENT.measure(MEASUREMENT.smoke, results)
    # 200 steps, of which SGD needs some 50 to settle: 0.1 / (4 * 0.002) = 12
    # of relaxation, from norms that begin where they end.
    part = results.content["parts"]["matched sgd"]
    late = [np.mean(run["rotation"][-5:]) for run in part["runs"].values()]
    assert np.all(np.abs(np.array(late) / part["rotation"] - 1) < 0.25)
