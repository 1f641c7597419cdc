"""The equivariance table: its problem, its claims, and its peers."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import psi_optax
from benchmarks.experiments.equivariance import experiment, peers, problem
from benchmarks.experiments.equivariance.experiment import faults, verdict
from benchmarks.experiments.equivariance.rows import OURS, Row
from benchmarks.harness import processes
from benchmarks.harness.pages import DOCS
from benchmarks.harness.results import Results, read
from psi_optax._compat import enable_x64
from tests.compilation import quick_jit

pytestmark = pytest.mark.usefixtures("optax_promotion")


def loss(weights, x, y):
    """Return the module's formula, for automatic differentiation."""
    for w in weights.values():
        v = problem.GAIN * w / jnp.sqrt((w**2).sum(0, keepdims=True))
        x = jnp.tanh(x @ v)
    return ((x @ problem.HEAD - y) ** 2).sum(1).mean() / 2


@pytest.mark.usefixtures("x64")
def test_the_gradient_is_that_of_the_loss():
    weights = problem.rescaled(problem.start(), "filter", 10, 1)
    batch = problem.INPUTS[3], problem.LABELS[3]
    expected = quick_jit(jax.grad(loss))(weights, *batch)
    actual = problem.gradient(3, weights)
    for name, w in weights.items():
        # Sums of 32 products of numbers near 1, divided by norms down to 0.1:
        # 32 * 10 * 1.1e-16 = 4e-14.
        np.testing.assert_allclose(actual[name], expected[name], atol=1e-13)
        assert np.abs((w * actual[name]).sum(0)).max() < 1e-13
    other = problem.gradient(4, weights)
    assert np.abs(other["first"] - actual["first"]).max() > 0.01


def test_powers_of_two_pass_through_the_gradient():
    start = problem.start(np.float32)
    scaled = problem.rescaled(start, "filter", 2, 20)
    one, other = problem.gradient(0, start), problem.gradient(0, scaled)
    for name, w in start.items():
        factors = scaled[name] / w
        np.testing.assert_array_equal(other[name] * factors, one[name])
        assert np.ptp(np.log2(factors)) > 30
        assert one[name].dtype == np.float32
    tenfold = problem.rescaled(start, "filter", 10, 1)
    assert (problem.gradient(0, tenfold)["first"] != one["first"]).any()


@pytest.mark.parametrize(
    ("kind", "per_tensor", "together"),
    [("network", [1, 1], 1), ("tensor", [1, 1], 2), ("filter", [16, 10], 26)],
)
def test_a_unit_has_one_factor_and_units_differ(kind, per_tensor, together):
    start = problem.start()
    scaled = problem.rescaled(start, kind, 10, 1)
    factors = [(scaled[name] / start[name]).round(9) for name in start]
    assert [len(np.unique(x)) for x in factors] == per_tensor
    assert len(np.unique(np.concatenate(factors, axis=None))) == together


def test_directions_are_compared_and_not_norms():
    start = problem.start()
    scaled = problem.rescaled(start, "filter", 2, 9)
    assert problem.direction_error([start, start], [start, scaled]) == 0
    flipped = {**scaled, "second": -scaled["second"]}
    largest = np.abs(problem.directions(start)["second"]).max()
    assert problem.direction_error([start], [flipped]) == 2 * largest
    lost = {**scaled, "second": np.nan * scaled["second"]}
    assert problem.direction_error([start], [lost]) == problem.DIVERGED


# Steps round by 1.1e-16, and 30 of them on this loss make 3e-15 of it at most;
# an error in a formula shows as 0.01 or more.
@pytest.mark.parametrize("name", OURS)
def test_ours_are_what_is_claimed_of_them(name):
    with enable_x64(True):
        found = problem.measure(experiment.follow(OURS[name].tx))
    row = {**found, "claim": OURS[name].claim, "powers_of_two": None}
    assert row["claim"]
    assert faults({"parts": {name: row}}) == []


def test_the_scale_matters_to_optax_and_bits_are_kept_or_not(monkeypatch):
    found = experiment.measure_row("sgd(momentum)")
    assert min(found["errors"].values()) > 1e-2
    assert found["powers_of_two"] is None
    blurred = OURS["adamh(per_tensor=False, equivariant=False)"]
    monkeypatch.setitem(experiment.ROWS, "blurred", Row(blurred.tx, "filter"))
    assert experiment.measure_row("psi_sgd(momentum)")["powers_of_two"] == 0
    assert experiment.measure_row("blurred")["powers_of_two"] > 0


def test_what_is_wrong_is_said():
    fine = dict.fromkeys(problem.KINDS, 0.0)
    row = {"errors": fine, "claim": "filter", "moved": 0.5}
    row["powers_of_two"] = 0.0
    assert faults({"parts": {"one": row}}) == []
    for words, change in {
        "found is tensor": {"errors": {**fine, "filter": 1e-2}},
        "found is none": {"errors": {**fine, "network": problem.DIVERGED}},
        "found is filter, to": {"errors": {**fine, "filter": 1.1e-12}},
        "changes bits": {"powers_of_two": 1e-7},
        "hardly moves": {"moved": 0.01},
        "diverges": {"moved": problem.DIVERGED},
    }.items():
        [said] = faults({"parts": {"one": {**row, **change}}})
        assert words in said


def test_the_numbers_are_those_of_every_optimizer_and_claim():
    rows = read(DOCS / "numbers" / "equivariance.json")["parts"]
    assert list(rows) == list(experiment.NAMES)
    for name, (_, claim) in OURS.items():
        assert verdict(rows[name]["errors"]) == rows[name]["claim"] == claim
        error = 0.0 if claim in problem.KINDS else None
        assert rows[name]["powers_of_two"] == error


def test_no_optimizer_of_ours_is_forgotten():
    family = set(psi_optax.optimizers.list_optimizers())
    assert {"psi", "adamp", "muonh"} < family
    # psi_sgd and psi_adam are psi_direction with a direction.
    named = {word for label in OURS for word in re.findall(r"\w+", label)}
    assert family - named == {"psi_direction"}


def test_peers_are_those_of_the_environments_that_there_are(
    monkeypatch, tmp_path, capsys
):
    names = tuple(peers.OPTIONS)[:2]
    python = tmp_path / "python"
    rows = json.dumps({names[0]: {"moved": 0.8}})
    python.write_text(f"#!/bin/sh\necho noise\necho '{rows}'\n")
    python.chmod(0o700)
    monkeypatch.setattr(processes, "TORCH", [python, tmp_path / "absent"])
    settings = experiment.Settings(optimizers=names)
    with Results(tmp_path / "equivariance.json", {}) as results:
        experiment.measure(settings, results)
    assert results.content["parts"] == json.loads(rows)
    assert f"see `make oracles`: {names[1]}" in capsys.readouterr().err


@pytest.mark.skipif(
    not processes.TORCH[0].exists(), reason="make oracles was not run"
)
def test_torch_and_optax_make_the_same_run(monkeypatch):
    monkeypatch.setattr(processes, "TORCH", processes.TORCH[:1])
    rows, ours = experiment.run_peers(), experiment.measure_row("sgd(momentum)")

    def distance(row):
        errors = [row["errors"][x] - ours["errors"][x] for x in problem.KINDS]
        return max(map(abs, [row["moved"] - ours["moved"], *errors]))

    # 1e-16 a step, times what 30 steps make of it from small weights, at which
    # SGD's steps are large: below 1e-9, where another method is at 0.1.
    assert distance(rows["torch SGD(momentum)"]) < 1e-9
    assert distance(rows["torch AdamW"]) > 0.1
