"""The timing harness on a network of two leaves."""

import json
import math
import re

import jax
import pytest

from benchmarks import step_time, step_time_peers
from benchmarks.step_time_cases import SETS, ParameterSet, draw, optimizers

pytestmark = pytest.mark.usefixtures("optax_promotion")

SMALL = ParameterSet(
    {"stem/kernel": (4, 3), "head/bias": (2,)}, "stem/kernel", family=True
)


@pytest.fixture(scope="module")
def rows():
    with jax.numpy_dtype_promotion("standard"):
        return step_time.measure(SMALL, turns=2, steps=1, compiles=1)


def test_every_case_is_held_to_a_baseline(rows):
    params, _ = draw(SMALL)
    names = set(optimizers(params, SMALL.grouped))
    assert {row["optimizer"] for row in rows} == names
    for row in rows:
        assert row["baseline"] in names
        low, high = row["quartiles"]
        assert 0 < low <= row["ratio"] <= high
        assert row["bytes_per_weight"] > 0
        assert row["instructions"] > 5
        assert row["trace_s"] > 0
        assert row["peak_mb"] >= row["temporary_mb"] >= 0
    own = [row for row in rows if row["optimizer"] == row["baseline"]]
    for field in ("ratio", "trace_ratio", "compile_ratio"):
        assert [row[field] for row in own] == [1, 1]


def test_the_state_in_copies_of_the_weights(rows):
    state = {row["optimizer"]: row["state"] for row in rows}
    # One copy of the weights, and two with a counter.
    assert state["optax.sgd(momentum)"] == 1
    assert 2 < state["optax.adam"] < 3


def test_the_table_has_a_line_for_each(rows):
    lines = step_time.table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1


def test_steps_are_in_place_and_not_on_the_callers_arrays():
    params, gradients = draw(SMALL)
    tx = optimizers(params, SMALL.grouped)["psi_sgd(momentum)"]
    before = params["stem/kernel"] + 0
    case, _ = step_time.compile_case(step_time.build(tx, params), gradients)
    seconds = step_time.time_in_turns({"case": case}, gradients, 2, 1)
    assert len(seconds["case"]) == 2
    assert (params["stem/kernel"] == before).all()
    assert case.params["stem/kernel"].is_deleted()


@pytest.mark.parametrize("name", SETS)
def test_the_sets_are_networks_with_groups(name):
    chosen = SETS[name]
    sizes = {path: math.prod(s) for path, s in chosen.shapes.items()}
    grouped = [path for path in sizes if re.fullmatch(chosen.grouped, path)]
    # Most weights are in groups: all of them in `tiny`, and all of a GPT's but
    # its embeddings.
    assert sum(sizes[path] for path in grouped) > 0.6 * sum(sizes.values())


def test_the_program(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SETS, "resnet50", SMALL)
    step_time.main(
        [
            *("--turns", "1", "--steps", "1", "--compiles", "1"),
            *("--only", "psi_sgd(momentum)", "--out", str(tmp_path)),
        ]
    )
    found = json.loads((tmp_path / "step_time.json").read_text())
    assert found["machine"]["cores"] >= 1
    names = [row["optimizer"] for row in found["sets"]["resnet50"]]
    assert names == ["optax.sgd(momentum)", "psi_sgd(momentum)"]
    assert "`psi_sgd(momentum)`" in capsys.readouterr().out


def test_other_libraries_stand_below_ours(rows, monkeypatch):
    row = {"optimizer": "x", "baseline": "y", "ratio": 2.0}
    row["quartiles"] = [1.5, 2.5]
    # Torch's own are in both environments: the first of them counts.
    found = [{"rows": [row]}, {"rows": [{**row, "ratio": 9.0}]}]
    monkeypatch.setattr(step_time.peers, "outputs", lambda module: found)
    assert step_time.run_peers() == [row]
    numbers = {"sets": {"resnet50": rows}, "machine": step_time.machine()}
    alone = step_time._page(numbers)
    both = step_time._page({**numbers, "peers": [row]})
    assert "| `x`      | 2.0 (1.5 to 2.5) | `y` |" in both
    assert "Other libraries" not in alone


def test_a_library_that_is_not_there():
    assert step_time_peers._load("no_such_library") is None
