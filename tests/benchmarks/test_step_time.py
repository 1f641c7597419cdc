"""Timing of steps, on a set of three leaves."""

import math
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.harness.pages import DOCS
from benchmarks.harness.results import Results, read
from benchmarks.speed import steps, torch_steps, turns
from benchmarks.speed.sets import SETS
from benchmarks.speed.step_time import MEASUREMENT, cases, experiment
from benchmarks.speed.step_time.cases import ADAM, BY_HAND, CASES, SGD, baseline
from benchmarks.speed.step_time.experiment import AXPY, COPY, measure_set
from benchmarks.speed.step_time_variants import VARIANTS, build

pytestmark = pytest.mark.usefixtures("optax_promotion")

SMALL = SETS["small"]


def test_every_optimizer_has_a_baseline_and_a_step():
    params, gradients = cases.draw(SMALL)
    assert cases.chosen(SMALL) == list(CASES)
    assert {baseline(name) for name in CASES} == {SGD, ADAM}
    for name in CASES:
        tx = cases.make(name, params, SMALL.grouped)
        state = jax.eval_shape(tx.init, params)
        moved, _ = jax.eval_shape(tx.update, gradients, state, params)
        assert moved.keys() == params.keys()


def test_the_cases_of_a_set():
    assert cases.chosen(SMALL, ("psi_adam",)) == [ADAM, "psi_adam"]
    few = SMALL._replace(family=False, left_out=("optax.lars",))
    left = set(CASES) - set(cases.chosen(few))
    assert {"optax.lars", "sgd_g"} <= left
    assert "optax.lars" in cases.chosen(few, ("optax.lars",))


def test_rows_are_held_to_their_baselines():
    found = measure_set("small", 2, 1, 1, (BY_HAND, "psi_adam"))
    assert found["weights"] == 24 * 8 + 8 * 16 + 16 * 8
    assert min(found["bandwidth"].values()) > 0
    rows = {row["optimizer"]: row for row in found["rows"]}
    assert list(rows) == [SGD, BY_HAND, ADAM, "psi_adam"]
    for row in rows.values():
        low, high = row["quartiles"]
        assert 0 < low <= row["ratio"] <= high
        assert row["peak_mb"] >= row["temporary_mb"] >= 0
        assert row["instructions"] > 5
        for field in ("milliseconds", "bytes_per_weight", "of_bandwidth"):
            assert row[field] > 0
    for field in ("ratio", "trace_ratio", "compile_ratio"):
        assert [rows[name][field] for name in (SGD, ADAM)] == [1, 1]
    # Copies of the weights: one, and two with a counter.
    assert rows[SGD]["state"] == 1
    assert 2 < rows[ADAM]["state"] < 2.1


def test_bandwidth_by_the_clock():
    # 12 numbers of 4 bytes: 3 * 48 and 2 * 48 bytes, in 1 and 0.5 seconds.
    params = {"w": jnp.ones((4, 3))}
    case = steps.Case(None, params, params)
    costs = {x: {"trace_s": 1.0, "compile_s": 1.0} for x in (AXPY, SGD)}
    seconds = {AXPY: [1.0], COPY: [0.5], SGD: [2.0]}
    speeds = experiment.bandwidths({**seconds, AXPY: [9.0, 1.0, 0.5]}, 48)
    assert speeds == {AXPY: 144e-9, COPY: 192e-9}
    [row] = experiment.rows({AXPY: case, SGD: case}, seconds, costs)
    # SGD with momentum moves 5 * 48 = 240 bytes, here in 2 seconds, and the
    # copy would have moved 2 * 192 = 384. It is worth two axpy of 12 bytes.
    assert row["of_bandwidth"] == pytest.approx(240 / 384, rel=1e-12)
    assert row["bytes_per_weight"] == 24
    assert row["milliseconds"] == 2000


def test_one_at_a_time_gives_the_same_rows(monkeypatch):
    monkeypatch.setitem(SETS, "small", SMALL._replace(together=False))
    rows = measure_set("small", 1, 1, 1, ("psi_sgd(momentum)",))["rows"]
    names = [row["optimizer"] for row in rows]
    assert names == [SGD, "psi_sgd(momentum)"]
    assert rows[0]["ratio"] == 1


def test_rows_and_peers_that_are_not_asked_for_stay(tmp_path, monkeypatch):
    def measured(_, count, *__):
        names = (SGD, "psi_sgd(momentum)") if count == 1 else (SGD, BY_HAND)
        return {"rows": [{"optimizer": x, "turns": count} for x in names]}

    monkeypatch.setattr(experiment, "measure_set", measured)
    monkeypatch.setattr(experiment, "run_peers", lambda name: [name])
    results = Results(tmp_path / "times.json", {}, {"device": "a CPU"})
    for count, peers in ((1, True), (2, False)):
        settings = experiment.Settings(("small",), peers=peers, turns=count)
        MEASUREMENT.measure(settings, results)
    part = results.content["parts"]["small"]
    found = [(row["optimizer"], row["turns"]) for row in part["rows"]]
    assert found == [(SGD, 2), (BY_HAND, 2), ("psi_sgd(momentum)", 1)]
    assert part["peers"] == ["small"]


def test_steps_are_in_place_and_not_on_the_callers_arrays():
    params, gradients = cases.draw(SMALL)
    before = params["a/kernel"] + 0
    ones = steps.build_copy(params)
    assert ones.params.size == SMALL.weights
    copy = ones._replace(params=ones.params + 1)
    moving = cases.build("psi_sgd(momentum)", params, SMALL.grouped)
    for case in (moving, copy):
        step = steps.compile_case(case, gradients)[0].step
        moved, state = step(case.params, case.state, gradients)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(case.params))
    assert (moved == 1).all()
    assert (state == 1).all()
    assert (params["a/kernel"] == before).all()


def test_by_hand_keeps_the_norms_of_what_is_grouped():
    params, gradients = cases.draw(SMALL)
    gradients = jax.tree.map(lambda g: 1000 * g, gradients)
    before = np.linalg.norm(params["a/kernel"], axis=0)
    norms = {}
    for name in (BY_HAND, SGD):
        case = cases.build(name, params, SMALL.grouped)
        moved, _ = case.step(case.params, case.state, gradients)
        assert (moved["head"] != params["head"]).all()
        norms[name] = np.linalg.norm(moved["a/kernel"], axis=0)
    # A sum of 24 squares (24 roundings), a root, a quotient and a product,
    # each at most 2^-24, twice over.
    np.testing.assert_allclose(norms[BY_HAND], before, rtol=54 * 2**-24)
    assert (np.abs(norms[SGD] / before - 1) > 5e-4).all()


def test_variants_are_the_step_of_the_package():
    params, gradients = cases.draw(SMALL)
    grouped = {path: params[path] for path in ("a/kernel", "b/kernel")}
    gradients = {path: 1e4 * gradients[path] for path in grouped}
    tx = cases.make("psi_sgd(momentum)", grouped, SMALL.grouped)
    updates, _ = tx.update(gradients, tx.init(grouped), grouped)
    for name, sums in VARIANTS.items():
        case = build(grouped, sums)
        moved, _ = case.step(case.params, case.state, gradients)
        off = max(
            float(abs(moved[path] - w - updates[path]).max())
            for path, w in grouped.items()
        )
        # Weights are below 0.25: a few roundings of at most 2^-26.
        assert (off < 1e-7) == (name != "none")


def test_turns_by_a_clock(monkeypatch):
    clock, calls = types.SimpleNamespace(now=0.0), []
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(turns, "time", clock)

    def running(name, seconds):
        def run(count):
            calls.append((name, count))
            clock.now += count * seconds

        return run

    # Binary fractions, so that the times are exact: two steps of the slow one
    # fill a second, and of the slowest not even one.
    times = {"a": 0.125, "b": 0.5, "c": 3.0}
    runs = {name: running(name, seconds) for name, seconds in times.items()}
    seconds = turns.time_in_turns(runs, turns=2, steps=4)
    assert seconds == {name: [time] * 2 for name, time in times.items()}
    warm = [(name, 1) for name in "abc" for _ in range(2)]
    assert calls == warm + 2 * [("a", 4), ("b", 2), ("c", 1)]


def test_the_sets_are_networks_with_groups():
    for chosen in SETS.values():
        sizes = {path: math.prod(s) for path, s in chosen.shapes.items()}
        grouped = [sizes[x] for x in sizes if re.fullmatch(chosen.grouped, x)]
        # All of `tiny`, and all of a GPT's but its embeddings.
        assert sum(grouped) > 0.6 * chosen.weights


def test_the_chart_has_a_bar_for_all_but_the_baselines():
    content = read(DOCS / "numbers" / "step_time.json")
    part, bars = content["parts"]["resnet50"], []
    rows = part["rows"] + [x for each in part["peers"] for x in each["rows"]]
    for axes in MEASUREMENT.figures(content)["step-time"].axes:
        bars += [label.get_text() for label in axes.get_yticklabels()]
        ends = [bar.get_width() for bar in axes.patches]
        assert ends == sorted(ends)
    baselines = {row["baseline"] for row in rows}
    assert len(bars) == len(rows) - len(baselines)
    assert set(bars) == {row["optimizer"] for row in rows} - baselines


# -- torch's libraries --------------------------------------------------------


def test_the_first_environment_counts(monkeypatch):
    first = {"torch": "2", "rows": [{"optimizer": "x"}]}
    second = {"torch": "3", "rows": [*first["rows"], {"optimizer": "y"}]}
    found = [first, second, first]
    monkeypatch.setattr(experiment, "in_torch", lambda *_: found)
    rest = {"torch": "3", "rows": [{"optimizer": "y"}]}
    assert experiment.run_peers("tiny") == [first, rest]


class Optimizer:
    """As one of torch's, of its name and its parameters."""

    def __init__(self, params, **_):
        self.params = params


def test_libraries_that_are_there_are_found(monkeypatch):
    assert torch_steps.load("no_such_library") is None
    kinds = ("SGD", "AdamW", "HyperBallAdamW")
    heavyball = types.SimpleNamespace(**dict.fromkeys(kinds, Optimizer))
    monkeypatch.setattr(torch_steps, "load", {"heavyball": heavyball}.get)
    torch = types.SimpleNamespace(optim=heavyball)
    own = torch_steps.cases(torch, libraries=False)
    assert list(own) == [torch_steps.SGD, torch_steps.ADAMW]
    found = torch_steps.cases(torch)
    assert {f"heavyball {kind}" for kind in kinds} < set(found)
    assert len(found) == 4 + len(kinds)
    for name, make in found.items():
        matrices, vectors = make(["m"], ["v"])
        assert (matrices.params, vectors.params) == (["m"], ["v"])
        assert [one.params for one in make(["m"], [])] == [["m"]]
        assert torch_steps.baseline(name) in own
