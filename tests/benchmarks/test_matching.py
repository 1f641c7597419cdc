"""The matching experiment: its schedule, its optimizers, its claims."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("sklearn")

import psi_optax
from benchmarks import data, training
from benchmarks.experiments import held_rate, matched, rotations
from benchmarks.experiments.matching import MEASUREMENT, experiment, report
from benchmarks.harness.pages import DOCS
from benchmarks.harness.results import Results, read
from psi_optax.models import linen

pytestmark = pytest.mark.usefixtures("optax_promotion")

MODEL = linen.MLP(widths=(8,), momentum=0.9)


@pytest.fixture(scope="module")
def digits():
    return data.hold_out(data.load("digits"), fraction=0.5)


def test_the_transient_leaves_some_steps_to_look_at():
    for held in (100, 101):
        assert held_rate.transient_steps(1.0, 0.1, held) >= held / 4
    # 12 * (1 - 0.9) / (4 * 0.03 * 0.1) = 100, of which none may be missing.
    assert held_rate.transient_steps(0.03, 0.1, held=102) in (100, 101)
    with pytest.raises(ValueError, match=r"100.*epochs"):
        held_rate.transient_steps(0.03, 0.1, held=100)


def test_rotations_are_those_of_steps(digits):
    start = training.begin(MODEL, digits.train_images, range(2), 64, 2)
    schedule, still = optax.cosine_decay_schedule, {"b2": 0.0, "eps": 0.0}

    def build(rate, groups, **_):
        return psi_optax.rotational(
            rate,
            optax.identity(),
            groups,
            ordinary=optax.sgd(rate),
            **still,
        )

    record = rotations.make_recorded(MODEL, build, digits, schedule)
    rate, steps = 0.01, start[1].shape[1]
    _, angles = record(*start, rate, 0.0)
    assert angles.shape == (2, steps, 8)
    # With no mean over steps each has the length of its rate, in the middle of
    # the cosine one half, and turns by its arctangent: to float32's 6e-8, and
    # as many in weights that were rounded, over 0.01: 1e-5, and some for sums.
    for step, length in (0, rate), (steps // 2, rate / 2):
        expected = np.arctan(length)
        np.testing.assert_allclose(angles[:, step], expected, rtol=1e-4)


def test_only_sgd_decays_filters_and_all_decay_the_head(digits):
    params = training.initialize(MODEL, digits.train_images, range(1))["params"]
    params = jax.tree.map(lambda leaf: leaf[0] + 1.0, params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    groups = training.kernel_groups(MODEL, digits.train_images)
    head, filters = "['head']['kernel']", "['hidden_0']['kernel']"
    builds = matched.builds(1.0)
    assert builds.keys() == matched.LABELS.keys()
    for name, build in builds.items():
        tx = build(rate=0.1, decay=0.01, groups=groups)
        updates, _ = tx.update(zeros, tx.init(params), params)
        flat = jax.tree.leaves_with_path(updates)
        decayed = {jax.tree_util.keystr(path) for path, u in flat if np.any(u)}
        assert decayed == ({head, filters} if name == "sgd_decay" else {head})


def content(angles, accuracies):
    """Return made-up results of flat curves, SGD with decay first."""
    parts = {"schedule": {"steps": 10, "held": 5, "transient": 2}}
    for name, angle, accuracy in zip(
        matched.LABELS, angles, accuracies, strict=True
    ):
        parts[name] = {"curve": [angle] * 10, "accuracy": accuracy}
    return {"settings": {"pilots": 4}, "parts": parts}


ALIKE = [[0.98, 0.96]] * 4


def test_what_is_wrong_is_said():
    assert report.faults(content([1, 1.04, 0.96, 0.5], ALIKE)) == []
    # SGD's standard deviation is sqrt(2) %.
    apart = [[0.98, 0.96], [0.965, 0.945], [0.984, 0.984], [0.1, 0.1]]
    for said, *case in (
        ("`psi_sgd`, matched turns by 1.060", [1, 1.06, 1, 0.5], ALIKE),
        ("`rotational`, matched turns by 0.940", [1, 1, 0.94, 0.5], ALIKE),
        ("SGD, filters not decayed turns by 1.0", [1, 1, 1, 1.01], ALIKE),
        ("by -1.50 %, and SGD's spreads by 1.41 %", [1, 1, 1, 0.5], apart),
    ):
        [fault] = report.faults(content(*case))
        assert said in fault


def test_parts_of_a_run_are_told_apart():
    schedule = content([1, 1, 1, 1], ALIKE)["parts"]["schedule"]
    curve = [9.0, 9.0, 3.0, 4.0, 5.0, 2.0, 2.0, 2.0, 2.0, 1.0]
    assert report.rotations(schedule, curve) == {
        "rate held": pytest.approx(np.sqrt(50 / 3)),
        "rate falling": pytest.approx(np.sqrt(17 / 5)),
        "last tenth": 1.0,
    }


def test_the_claims_hold_for_the_numbers_of_the_page():
    assert report.faults(read(DOCS / "numbers" / "matching.json")) == []


def test_the_pilots_of_the_page_find_the_norm_of_noise():
    """Where gradients are noise alone, their norm is known."""
    page = (DOCS / MEASUREMENT.page).read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shape, steps = (16, 8), 200
    noise = np.random.RandomState(0).normal(size=(steps, *shape))
    start = np.random.RandomState(1).normal(size=shape)

    def loss(weights, batch):
        w = weights["kernel"]
        return jnp.sum(batch * w / jnp.sqrt(jnp.sum(w * w, 0, keepdims=True)))

    found = {
        "params": {"kernel": jnp.asarray(start, jnp.float32)},
        "groups": psi_optax.ScaleGroup(0),
        "batches": jnp.asarray(noise, jnp.float32),
        "loss": loss,
    }
    exec(code, found)
    # The tangent part of noise has 15 dimensions of variance 1. An RMS over
    # 150 steps, of which 19 in a row are about one under momentum 0.9, in 8
    # filters of 15 dimensions: sqrt(1 / (2 * 150 / 19 * 8 * 15)) = 2.3 %.
    # The guess that the first pilot begins with is off by a factor of 4.
    np.testing.assert_allclose(found["gradient_norm"], np.sqrt(15), rtol=0.07)


def test_each_pilot_begins_with_the_norm_that_the_last_one_corrected(tmp_path):
    settings = dataclasses.replace(MEASUREMENT.smoke, pilots=2)
    with Results(tmp_path / "matching.json", {}) as results:
        MEASUREMENT.measure(settings, results)
    parts = results.content["parts"]
    schedule = parts["schedule"]
    predicted = schedule.pop("predicted")
    assert schedule == {"steps": 36, "held": 18, "transient": 10}
    first, second = parts["pilots"]
    assert first["gradient_norm"] == experiment.FIRST_GUESS
    assert second["gradient_norm"] == first["corrected"]
    assert 0 < first["rotation"] < first["wanted"]
    for name in matched.LABELS:
        assert len(parts[name]["curve"]) == len(predicted) == 36
        assert min(parts[name]["curve"]) > 0
        assert all(0.2 < accuracy <= 1 for accuracy in parts[name]["accuracy"])
