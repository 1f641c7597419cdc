"""The equivariance table: what it measures, that it is true, and its page."""

import inspect
import json
import re
import stat

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from benchmarks import (
    equivariance,
    equivariance_problem as problem,
    pages,
    peers,
)
from benchmarks.equivariance_optimizers import OPTAX, OURS, Entry
from benchmarks.equivariance_peers import missing
from tests.compilation import quick_jit

pytestmark = pytest.mark.usefixtures("optax_promotion")

WHOLE_OPTIMIZERS = [
    name
    for name, item in vars(psi_optax.optimizers).items()
    if inspect.isfunction(item)
]


def loss(weights, x, y):
    """The module's formula, for automatic differentiation."""
    for w in weights.values():
        v = problem.GAIN * w / jnp.sqrt((w**2).sum(0, keepdims=True))
        x = jnp.tanh(x @ v)
    return ((x @ problem._HEAD - y) ** 2).sum(1).mean() / 2


@pytest.mark.usefixtures("x64")
def test_the_gradient_is_that_of_the_loss():
    weights = problem.rescaled(problem.start(), "filter", 10, 1)
    batch = problem._INPUTS[3], problem._LABELS[3]
    expected = quick_jit(jax.grad(loss))(weights, *batch)
    actual = problem.gradient(3, weights)
    for name, w in weights.items():
        # Sums of 32 products of numbers near 1, divided by norms down to 0.1:
        # 32 * 10 * 1.1e-16 = 4e-14.
        np.testing.assert_allclose(actual[name], expected[name], atol=1e-13)
        radial = (w * actual[name]).sum(0)
        assert np.abs(radial).max() < 1e-13
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


@pytest.mark.parametrize("kind", problem.KINDS)
def test_a_unit_has_one_factor_and_units_differ(kind):
    start = problem.start()
    scaled = problem.rescaled(start, kind, 10, 1)
    factors = {name: (scaled[name] / start[name]).round(9) for name in start}
    per_tensor = [len(np.unique(x)) for x in factors.values()]
    together = len(np.unique(np.concatenate([*factors.values()], axis=None)))
    expected = {
        "network": ([1, 1], 1),
        "tensor": ([1, 1], 2),
        "filter": ([16, 10], 26),
    }
    assert (per_tensor, together) == expected[kind]


# Steps round by 1.1e-16, and 30 of them on this loss make 3e-15 of it at most;
# an error in a formula shows as 0.01 or more.
@pytest.mark.parametrize("name", OURS)
def test_ours_are_what_is_claimed_of_them(name):
    entry = OURS[name]
    with jax.enable_x64(True):
        found = problem.measure(equivariance.follow(entry.tx, quick_jit))
    assert equivariance.verdict(found["errors"]) == entry.claim
    assert equivariance.faults([{"optimizer": name, **found}]) == []


@pytest.mark.parametrize("name", ["sgd(momentum)", "adamw"])
def test_the_scale_matters_to_optax(name):
    found = equivariance.measure(OPTAX[name], quick_jit)
    assert min(found["errors"].values()) > 1e-2
    assert "bits" not in found


def test_bits_are_kept_or_not():
    def claimed(tx):
        return equivariance.measure(Entry(tx, "filter"), quick_jit)["bits"]

    assert claimed(OURS["psi_sgd(momentum)"].tx)
    assert not claimed(OURS["adamh(per_tensor=False, equivariant=False)"].tx)


def test_what_is_wrong_is_said():
    fine = {"network": 0.0, "tensor": 0.0, "filter": 0.0}
    row = {"optimizer": "one", "errors": fine, "claim": "filter", "moved": 0.5}
    assert equivariance.faults([row, {"optimizer": "absent"}]) == []
    cases = {
        "claimed is filter, found is tensor": {
            "errors": {**fine, "filter": 1e-2}
        },
        "claimed is filter, found is none": {
            "errors": {**fine, "network": float("nan")}
        },
        "claimed is filter, found is filter, to epsilon": {
            "errors": {**fine, "filter": 1.1e-12}
        },
        "changes bits": {"bits": False},
        "raise its rate": {"moved": float("nan")},
    }
    for words, change in cases.items():
        [said] = equivariance.faults([{**row, **change}])
        assert words in said


def test_directions_are_compared_and_not_norms():
    start = problem.start()
    path = problem.stacked([start, start])
    scaled = problem.stacked([start, problem.rescaled(start, "filter", 2, 9)])
    assert problem.direction_error(path, scaled) == 0
    flipped = {**scaled, "second": -scaled["second"]}
    largest = np.abs(problem.directions(start)["second"]).max()
    assert problem.direction_error(path, flipped) == 2 * largest


def rows_of(text):
    """What the lines of Markdown tables say, name by name."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert {len(cells) for cells in lines} == {len(equivariance._HEAD)}
    return {cells[0]: cells[1:] for cells in lines if "`" in cells[0]}


@pytest.fixture(scope="module")
def page():
    return equivariance._PAGE.read_text(encoding="utf-8")


def test_the_page_shows_every_optimizer_and_every_claim(page):
    shown = rows_of(page)
    ours = [f"`{name}`" for name in [*OURS, *OPTAX]]
    theirs = [f"{row['library']} `{row['optimizer']}`" for row in missing()]
    assert list(shown) == ours + theirs
    for name, entry in OURS.items():
        *_, verdict, bits = shown[f"`{name}`"]
        assert verdict == entry.claim
        assert bits == ("yes" if entry.claim in problem.KINDS else "")
    assert pages.fill(page, "equivariance", "text") != page


# psi_sgd and psi_adam are psi_direction with a direction.
@pytest.mark.parametrize(
    "name", sorted({*WHOLE_OPTIMIZERS} - {"psi_direction"})
)
def test_no_optimizer_of_ours_is_forgotten(name):
    assert any(name in re.findall(r"\w+", label) for label in OURS)


def test_whole_optimizers_are_found_by_the_above():
    assert {"psi", "adamp", "muonh"} < set(WHOLE_OPTIMIZERS)
    assert "retract" not in WHOLE_OPTIMIZERS
    assert "PsiState" not in WHOLE_OPTIMIZERS


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Stands for a Python that has torch alone."""
    fake = {
        **missing()[0],
        "version": "1.2.3",
        "errors": {"network": 0.5, "tensor": 0.6, "filter": 0.7},
        "moved": 0.8,
        "growth": 1.25,
    }
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho noise\necho '{json.dumps([fake])}'\n")
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr(peers, "PYTHONS", [python, tmp_path / "absent"])


@pytest.mark.usefixtures("environment")
def test_the_script_prints_and_writes_the_tables(monkeypatch, tmp_path, capsys):
    climb = Entry(optax.identity(), "filter")
    monkeypatch.setattr(equivariance, "OURS", {"climb": climb})
    monkeypatch.setattr(equivariance, "OPTAX", {"sgd": OPTAX["sgd"]})
    page = tmp_path / "page.md"
    markers = "<!-- equivariance: begin -->\n<!-- equivariance: end -->\n"
    page.write_text(markers)
    monkeypatch.setattr(equivariance, "_PAGE", page)
    with pytest.raises(SystemExit, match="climb: .*filter.*none"):
        equivariance.main(["--docs", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "equivariance.json").read_text())
    section = equivariance.section(results)
    printed = capsys.readouterr().out
    assert section in printed
    assert section in page.read_text()
    assert "Not installed, see `make oracles`: AdamW, " in printed
    assert f"JAX {jax.__version__}, " in section
    assert "torch 1.2.3." in section
    shown = rows_of(section)
    assert shown["torch `SGD(momentum)`"] == [
        *("0.50", "0.60", "0.70", "0.80", "1.25", "none", "")
    ]
    assert shown["torch `AdamW`"] == ["not installed", *[""] * 6]
    assert shown["`climb`"][-1] == "no"


@pytest.mark.skipif(
    not peers.PYTHONS[0].exists(), reason="make oracles was not run"
)
def test_torch_and_optax_make_the_same_run(monkeypatch):
    monkeypatch.setattr(peers, "PYTHONS", peers.PYTHONS[:1])
    rows = {row["optimizer"]: row for row in equivariance.run_peers(None)}
    ours = equivariance.measure(OPTAX["sgd(momentum)"], quick_jit)

    def distance(row):
        return abs(row["moved"] - ours["moved"]) + max(
            abs(row["errors"][kind] - ours["errors"][kind])
            for kind in problem.KINDS
        )

    # 1e-16 a step, times what 30 steps make of it from small weights, at which
    # SGD's steps are large: below 1e-9, where another method is at 0.1.
    assert distance(rows["SGD(momentum)"]) < 1e-9
    assert distance(rows["AdamW"]) > 0.1
