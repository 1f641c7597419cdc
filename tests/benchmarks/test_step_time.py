"""The timing harness on a network of two leaves."""

import json
import math
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    pages,
    step_time,
    step_time_chart,
    step_time_peers,
    step_time_report,
    step_time_steps,
    step_time_turns,
)
from benchmarks.step_time_cases import BY_HAND, draw, makers, optimizers
from benchmarks.step_time_report import AXPY, COPY
from benchmarks.step_time_sets import SETS, ParameterSet

pytestmark = pytest.mark.usefixtures("optax_promotion")

SMALL = ParameterSet(
    {"stem/kernel": (4, 3), "head/bias": (2,)}, "stem/kernel", family=True
)

PEERS = {
    "torch": "2",
    "device": "a CPU",
    "rows": [
        {
            "optimizer": name,
            "baseline": "torch SGD",
            "ratio": 2.0,
            "quartiles": [1.5, 2.5],
            "milliseconds": 1.0,
            "bytes_per_weight": 40.0,
        }
        for name in ("torch SGD", "x")
    ],
}


@pytest.fixture(scope="module")
def found():
    with jax.numpy_dtype_promotion("standard"):
        return step_time.measure(SMALL, turns=2, steps=1, compiles=1)


@pytest.fixture(scope="module")
def rows(found):
    return found["rows"]


def test_every_case_is_held_to_a_baseline(rows):
    params, _ = draw(SMALL)
    names = {BY_HAND, *optimizers(params, SMALL.grouped)}
    assert [row["optimizer"] for row in rows] == list(makers(params, SMALL))
    assert {row["optimizer"] for row in rows} == names
    for row in rows:
        assert row["baseline"] in names
        low, high = row["quartiles"]
        assert 0 < low <= row["ratio"] <= high
        assert row["milliseconds"] > 0
        assert row["bytes_per_weight"] > 0
        assert row["of_bandwidth"] > 0
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


def test_bandwidth_by_the_clock():
    # 12 numbers of 4 bytes: 3 * 48 and 2 * 48 bytes, in 1 and 0.5 seconds.
    params = {"w": jnp.ones((4, 3))}
    seconds = {AXPY: [1.0], COPY: [0.5]}
    speeds = step_time_report.bandwidths(seconds, 48)
    assert speeds == {AXPY: 144e-9, COPY: 192e-9}

    name = "optax.sgd(momentum)"
    case = step_time_steps.Case(None, params, params)
    compiled = step_time_steps.Compilation(1.0, 1.0, 1, 0.0, 0.0)
    [row] = step_time_report.report(
        {AXPY: case, name: case},
        dict.fromkeys([AXPY, name], compiled),
        {**seconds, name: [2.0]},
    )
    # SGD with momentum moves 5 * 48 = 240 bytes, here in 2 seconds, and the
    # copy would have moved 2 * 192 = 384. It is worth two axpy of 12 bytes.
    assert row["of_bandwidth"] == pytest.approx(240 / 384, rel=1e-12)
    assert row["bytes_per_weight"] == 24
    assert row["milliseconds"] == 2000


def test_bandwidth_of_this_machine(found):
    assert found["weights"] == 14
    assert found["dtype"] == "float32"
    assert set(found["bandwidth"]) == {AXPY, COPY}
    assert min(found["bandwidth"].values()) > 0


def test_one_at_a_time_gives_the_same_rows():
    only = ["psi_sgd(momentum)", "optax.adam"]
    both = [
        step_time.measure(SMALL._replace(together=together), 1, 1, 1, only)
        for together in (True, False)
    ]
    names = [[row["optimizer"] for row in one["rows"]] for one in both]
    assert names[0] == names[1] == ["optax.sgd(momentum)", *only]
    own = [row["ratio"] for row in both[1]["rows"]]
    assert own[0] == own[2] == 1


def test_what_is_left_out_is_not_made():
    params, _ = draw(SMALL)
    chosen = SMALL._replace(left_out=("optax.lars",))
    assert set(makers(params, SMALL)) - set(makers(params, chosen)) == {
        "optax.lars"
    }


def test_tables_have_a_line_for_each(rows):
    for table in (step_time_report.table, step_time_report.short_table):
        lines = table(rows, "a device").splitlines()
        assert len(lines) == 2 + len(rows)
        assert len({line.count("|") for line in lines}) == 1
        assert "one step on a device" in lines[0]


def compiled(case, gradients):
    return step_time_steps.compile_case(case, gradients)[0]


def test_steps_are_in_place_and_not_on_the_callers_arrays():
    params, gradients = draw(SMALL)
    tx = optimizers(params, SMALL.grouped)["psi_sgd(momentum)"]
    before = params["stem/kernel"] + 0
    case = compiled(step_time_steps.build(tx, params), gradients)
    case.run(gradients)(2)
    assert (params["stem/kernel"] == before).all()
    assert case.params["stem/kernel"].is_deleted()


def test_by_hand_keeps_the_norms_of_what_is_grouped():
    params, gradients = draw(SMALL)
    gradients = jax.tree.map(lambda g: 1000 * g, gradients)
    norms = {}
    for name in (BY_HAND, "optax.sgd(momentum)"):
        case = compiled(makers(params, SMALL)[name](), gradients)
        moved, _ = case.step(case.params, case.state, gradients)
        assert (moved["head/bias"] != params["head/bias"]).all()
        norms[name] = np.linalg.norm(moved["stem/kernel"], axis=0)
    before = np.linalg.norm(params["stem/kernel"], axis=0)
    # A sum of four squares (4 roundings), a root, a quotient and a product,
    # each at most 2^-24, twice over.
    np.testing.assert_allclose(norms[BY_HAND], before, rtol=14 * 2**-24)
    assert (np.abs(norms["optax.sgd(momentum)"] / before - 1) > 1e-3).all()


def test_the_copy_is_a_copy_into_the_place_of_the_last():
    params, gradients = draw(SMALL)
    case = step_time_steps.build_copy(params)
    assert case.params.size == 14
    case = compiled(case._replace(params=case.params + 1), gradients)
    target, source = case.step(case.params, case.state, gradients)
    assert (target == 1).all()
    assert (source == 1).all()
    assert case.params.is_deleted()


class Clock:
    """A clock that goes on when it is told."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def test_turns_by_a_clock(monkeypatch):
    clock, calls = Clock(), []
    monkeypatch.setattr(step_time_turns, "time", clock)

    def running(name, seconds):
        def run(steps):
            calls.append((name, steps))
            clock.now += steps * seconds

        return run

    # Binary fractions, so that the times are exact: two steps of the slow one
    # fill a second, and of the slowest not even one.
    runs = {
        name: running(name, seconds)
        for name, seconds in [("a", 0.125), ("b", 0.5), ("c", 3.0)]
    }
    seconds = step_time_turns.time_in_turns(runs, turns=2, steps=4)
    assert seconds == {"a": [0.125] * 2, "b": [0.5] * 2, "c": [3.0] * 2}
    warm = [(name, 1) for name in "abc" for _ in range(2)]
    assert calls == warm + 2 * [("a", 4), ("b", 2), ("c", 1)]


@pytest.mark.parametrize("name", SETS)
def test_the_sets_are_networks_with_groups(name):
    chosen = SETS[name]
    sizes = {path: math.prod(s) for path, s in chosen.shapes.items()}
    grouped = [path for path in sizes if re.fullmatch(chosen.grouped, path)]
    # Most weights are in groups: all of them in `tiny`, and all of a GPT's but
    # its embeddings.
    assert sum(sizes[path] for path in grouped) > 0.6 * chosen.weights


@pytest.fixture
def docs(tmp_path, monkeypatch):
    """Pages to fill, each with its markers."""
    folder = tmp_path / "docs"
    folder.mkdir()
    monkeypatch.setattr(pages, "DOCS", folder)
    for page, names in [
        ("step-time.md", ["cpu resnet50", "cpu tiny", "waiting"]),
        ("choosing.md", ["step time"]),
        ("../README.md", ["step time"]),
    ]:
        markers = [f"<!-- {n}: begin -->\n<!-- {n}: end -->" for n in names]
        (folder / page).write_text("\n".join(markers))
    return folder


def test_the_program(tmp_path, docs, monkeypatch, capsys):
    monkeypatch.setitem(SETS, "resnet50", SMALL)
    monkeypatch.setattr(
        step_time.peers, "outputs", lambda module, arguments: [PEERS]
    )
    arguments = [
        *("--turns", "1", "--steps", "1", "--compiles", "1", "--peers"),
        *("--only", "psi_sgd(momentum)", "--out", str(tmp_path)),
        *("--note", "waiting"),
    ]
    step_time.main(arguments)
    found = json.loads((tmp_path / "step_time.json").read_text())
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["device"]
    set_ = found["sets"]["resnet50"]
    names = [row["optimizer"] for row in set_["rows"]]
    assert names == ["optax.sgd(momentum)", "psi_sgd(momentum)"]
    assert set_["peers"] == [PEERS]
    assert "`psi_sgd(momentum)`" in capsys.readouterr().out
    page = (docs / "step-time.md").read_text()
    assert "`psi_sgd(momentum)`" in page.partition("waiting: begin")[2]


def test_what_cannot_be_asked_for(capsys):
    with pytest.raises(SystemExit):
        step_time.main(["--sets", "resnet5"])
    assert "resnet50" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        step_time.main(["--only", "optax.adam", "--docs"])
    assert "leave out --only or --docs" in capsys.readouterr().err


def test_earlier_numbers_are_kept_on_the_same_machine_only(tmp_path):
    path = tmp_path / "step_time.json"
    here = {"machine": step_time.machine(), "sets": {}}
    assert step_time.earlier(path) == here
    before = {**here, "sets": {"tiny": {}}}
    path.write_text(json.dumps(before))
    assert step_time.earlier(path) == before
    before["machine"] = {**here["machine"], "device": "another"}
    path.write_text(json.dumps(before))
    assert step_time.earlier(path) == here


def test_the_pages_of_the_chosen_sets_are_filled(found, docs):
    sets = {"resnet50": {**found, "peers": [PEERS]}, "tiny": found}
    where = {**step_time.machine(), "platform": "cpu"}
    results = {"machine": where, "sets": sets}
    page, choosing = docs / "step-time.md", docs / "choosing.md"
    empty = page.read_text(), choosing.read_text()

    step_time.publish(results, ["tiny"])
    text = page.read_text()
    assert "14 weights in float32" in text
    assert text.startswith(empty[0].splitlines()[0] + "\n<!-- cpu resnet50: en")
    assert choosing.read_text() == empty[1]
    assert not (docs / "step-time.png").exists()

    step_time.publish(results, ["resnet50"])
    assert re.search(r"\| `x` +\| 2\.00 \(1\.50 to 2\.50\)", page.read_text())
    readme = (docs.parent / "README.md").read_text()
    for text in choosing.read_text(), readme:
        assert "`psi_sgd(momentum)`" in text
    assert (docs / "step-time.png").read_bytes().startswith(b"\x89PNG")


def test_the_chart_has_a_bar_for_all_but_the_baselines(rows):
    drawn = step_time_chart.figure(rows, PEERS["rows"], "a device")
    bars = [
        label.get_text()
        for axes in drawn.axes
        for label in axes.get_yticklabels()
    ]
    ours = {row["optimizer"] for row in rows}
    ours -= {row["baseline"] for row in rows}
    assert len(bars) == len(ours) + 1
    assert set(bars) == {*ours, "x"}
    for axes in drawn.axes:
        ends = [bar.get_width() for bar in axes.patches]
        assert ends == sorted(ends)


def test_the_first_environment_counts(monkeypatch):
    second = {**PEERS, "rows": [*PEERS["rows"], {"optimizer": "y"}]}
    arguments = []

    def outputs(*given):
        arguments.append(given)
        return [PEERS, second, PEERS]

    monkeypatch.setattr(step_time.peers, "outputs", outputs)
    first, other = step_time.run_peers("tiny")
    assert first == PEERS
    assert other["rows"] == [{"optimizer": "y"}]
    assert arguments == [
        ("benchmarks.step_time_peers", ["--set", "tiny"]),
    ]


def test_a_library_that_is_not_there():
    assert step_time_peers._load("no_such_library") is None


class Optimizer:
    """As one of torch's, of its name and what it was made from."""

    def __init__(self, params, *_, **__):
        self.params = params

    def step(self):
        pass


def test_libraries_that_are_there_are_found(monkeypatch):
    def load(module):
        if module == "heavyball":
            kinds = ("SGD", "AdamW", "HyperBallAdamW")
            return types.SimpleNamespace(**dict.fromkeys(kinds, Optimizer))
        return None

    monkeypatch.setattr(step_time_peers, "_load", load)
    optim = types.SimpleNamespace(SGD=Optimizer, AdamW=Optimizer)
    torch = types.SimpleNamespace(optim=optim)
    own = step_time_peers.cases(torch, libraries=False)
    assert list(own) == [step_time_peers.SGD, step_time_peers.ADAMW]
    found = step_time_peers.cases(torch)
    assert [name for name in found if name.startswith("heavyball")] == [
        "heavyball SGD",
        "heavyball AdamW",
        "heavyball HyperBallAdamW",
    ]
    for name, make in found.items():
        matrices, vectors = make(["m"], ["v"])
        assert (matrices.params, vectors.params) == (["m"], ["v"])
        assert [one.params for one in make(["m"], [])] == [["m"]]
        assert step_time_peers.baseline(name) in own
