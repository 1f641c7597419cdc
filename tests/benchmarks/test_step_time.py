"""Timing of steps, on a set of three leaves."""

import math
import re
import types

import jax
import numpy as np
import pytest

import psi_optax
from benchmarks.harness.processes import alone
from benchmarks.harness.results import Results
from benchmarks.speed import step_time_torch, steps, torch_steps, turns
from benchmarks.speed.sets import SETS
from benchmarks.speed.step_time import (
    MEASUREMENT,
    cases,
    experiment,
    report,
    training,
)
from benchmarks.speed.step_time.cases import (
    ADAM,
    BY_HAND,
    CASES,
    MAIN,
    PLAIN,
    SGD,
)
from benchmarks.speed.step_time.experiment import measure_set
from benchmarks.speed.step_time.traffic import traffic
from benchmarks.speed.turns import Times
from psi_optax.optimizers import _known_groups

pytestmark = pytest.mark.usefixtures("optax_promotion")

SMALL = SETS["small"]


def test_every_optimizer_has_a_baseline_and_a_step():
    params, gradients = cases.draw(SMALL)
    assert cases.chosen(SMALL) == list(CASES)
    assert {case.baseline for case in CASES.values()} == {PLAIN, SGD, ADAM}
    for name in CASES:
        tx = cases.make(name, params, SMALL.grouped)
        state = jax.eval_shape(tx.init, params)
        moved, _ = jax.eval_shape(tx.update, gradients, state, params)
        assert moved.keys() == params.keys()


def test_the_cases_of_a_set():
    assert cases.chosen(SMALL, ("psi_adam",)) == [ADAM, "psi_adam"]
    few = SMALL._replace(family=False)
    assert cases.chosen(few) == list(MAIN)
    assert "optax.lars" not in MAIN
    assert cases.chosen(few, ("optax.lars",)) == [SGD, "optax.lars"]


def test_rows_are_held_to_their_baselines():
    found = measure_set("small", 2, 1, 1, (BY_HAND, "psi_adam"))
    assert found["weights"] == 24 * 8 + 8 * 16 + 16 * 8
    rows = {row["optimizer"]: row for row in found["rows"]}
    assert list(rows) == [SGD, BY_HAND, ADAM, "psi_adam"]
    for row in rows.values():
        for clock in ("cpu", "wall"):
            low, high = row[clock]["quartiles"]
            assert 0 < low <= row[clock]["ratio"] <= high
            assert row[clock]["milliseconds"] > 0
        assert row["peak_mb"] >= row["temporary_mb"] >= 0
        assert row["instructions"] > 5
    for baseline in (rows[SGD], rows[ADAM]):
        assert baseline["cpu"]["ratio"] == baseline["wall"]["ratio"] == 1
        assert baseline["trace_ratio"] == baseline["compile_ratio"] == 1
    # Copies of the weights: one, and two with a counter.
    assert rows[SGD]["state"] == 1
    assert 2 < rows[ADAM]["state"] < 2.1


def test_bytes_of_a_step():
    # Three reads and two writes, or two reads and one write, in one fusion.
    plain = traffic(PLAIN, "float32")
    assert plain == {"ordinary": 12, "most": 12, "least": 12}
    # XLA adds the gradient to the momentum twice rather than read it again.
    momentum = traffic(SGD, "float32")
    assert momentum["least"] == 20 <= momentum["ordinary"]
    assert traffic(PLAIN, "bfloat16")["least"] == 6


def test_bytes_of_the_branch_that_runs(monkeypatch):
    # On several devices norms are always measured.
    monkeypatch.setattr(_known_groups, "checks_weights", lambda: False)
    one = {"JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": ""}
    asked = traffic, "psi_sgd(momentum)", "float32"
    found, several = alone(*asked, environment=one), traffic(*asked[1:])
    # The other branch reads the weights, then these and the momentum, 4 bytes
    # each. Sums over columns of 2,304 weights add a few arrays of 1/2304 of it.
    assert found["most"] - found["ordinary"] == pytest.approx(12, rel=0.01)
    assert found["ordinary"] > found["least"] > 20
    assert several["most"] == several["ordinary"]


def test_rows_that_are_not_asked_for_stay(tmp_path, monkeypatch):
    def measured(_, count, *__):
        names = (SGD, "psi_sgd(momentum)") if count == 1 else (SGD, BY_HAND)
        return {"rows": [{"optimizer": x, "turns": count} for x in names]}

    monkeypatch.setattr(experiment, "measure_set", measured)
    results = Results(tmp_path / "times.json", {}, {"device": "a CPU"})
    for count in (1, 2):
        settings = experiment.Settings(("small",), training=False, turns=count)
        MEASUREMENT.measure(settings, results)
    part = results.content["parts"]["small"]
    found = [(row["optimizer"], row["turns"]) for row in part["rows"]]
    assert found == [(SGD, 2), (BY_HAND, 2), ("psi_sgd(momentum)", 1)]


def test_steps_are_in_place_and_not_on_the_callers_arrays():
    params, gradients = cases.draw(SMALL)
    before = params["a/kernel"] + 0
    case = cases.build("psi_sgd(momentum)", params, SMALL.grouped)
    step = steps.compile_case(case, gradients)[0].step
    step(case.params, case.state, gradients)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(case.params))
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


def test_turns_by_a_clock(monkeypatch):
    clock, calls = types.SimpleNamespace(now=0.0), []
    clock.perf_counter = lambda: clock.now
    clock.process_time = lambda: 2 * clock.now  # Two threads are busy.
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
    found = turns.time_in_turns(runs, turns=2, steps=4)
    assert found.wall == {name: [time] * 2 for name, time in times.items()}
    assert found.cpu == {name: [2 * time] * 2 for name, time in times.items()}
    warm = [(name, 1) for name in "abc" for _ in range(2)]
    assert calls == warm + 2 * [("a", 4), ("b", 2), ("c", 1)]


def test_the_sets_are_networks_with_groups():
    for chosen in SETS.values():
        sizes = {path: math.prod(s) for path, s in chosen.shapes.items()}
        grouped = [sizes[x] for x in sizes if re.fullmatch(chosen.grouped, x)]
        # All of `tiny`, and all of a GPT's but its embeddings.
        assert sum(grouped) > 0.6 * chosen.weights


# -- tables -------------------------------------------------------------------


def timed(name, cpu, compiling):
    """Return a row of an optimizer."""
    return {
        "optimizer": name,
        "baseline": CASES[name].baseline,
        "cpu": {"ratio": cpu, "quartiles": [cpu, cpu]},
        "wall": {"ratio": 2 * cpu, "quartiles": [cpu, 3 * cpu]},
        "bytes": {"ordinary": 32.1, "most": 36.1, "least": 20.0},
        "temporary_mb": 0.4,
        "trace_ratio": compiling,
        "compile_ratio": compiling,
    }


def content(platform="cpu"):
    """Return results of three sets, one of them with the family."""
    versions = {"platform": platform, "device": "x", "cores": 2}
    rows = [timed(SGD, 1, 1), timed("psi_sgd(momentum)", 1.5, 2)]
    slow = [timed("psi_sgd(momentum)", 3.0, 17)]
    parts = {
        "resnet50": {"rows": [*rows, timed("sgd_g", 4, 3)]},
        "vit_b16": {"rows": rows},
        "tiny": {"rows": slow},
    }
    versions |= {"jax": "1", "optax": "1"}
    return {"versions": versions, "parts": parts}


def cells(text, name):
    """Return the cells of the lines of an optimizer."""
    lines = [x for x in text.splitlines() if x.startswith(f"| `{name}` ")]
    return [[c.strip() for c in x.split("|")[2:-1]] for x in lines]


def test_tables_of_sets():
    text = report.report(content())
    psi, once = cells(text, "psi_sgd(momentum)"), "1.50 (1.50 to 1.50)"
    assert psi[0] == [once, "32", "0 MB", "2.0", "2.0"]
    assert psi[1] == [once, "3.00 (3.00 to 3.00)", "2.0 to 17.0"]
    assert cells(text, "sgd_g") == [["4.00 (4.00 to 4.00)", "32", "20"]]
    assert cells(text, SGD) == [["1", "32", "0 MB", "1.0", "1.0"]]
    # A GPU works while the CPU waits.
    text = report.report(content("gpu"))
    assert "elapsed time" in text
    assert "CPU time" not in text
    assert cells(text, "sgd_g") == [["8.00 (4.00 to 12.00)", "32", "20"]]


def test_tables_of_other_pages():
    found = report.sections(content())
    family = found["choosing.md", "step time"]
    assert cells(family, SGD) == [["1", "32", "0 MB", "1.0"]]
    assert cells(family, "sgd_g")
    without = content()
    del without["parts"]["resnet50"]
    assert not report.sections(without)


# -- the share of a training step ---------------------------------------------


def test_shares_of_times_that_are_known():
    cpu = {training.PASSES: [3.0, 6.0], SGD: [1.0, 2.0], "psi_adam": [3.0, 2.0]}
    found = training.shares(Times(cpu, cpu))
    # 1/4 in both turns, though the second was slower.
    assert found[SGD] == {"share": 0.25, "quartiles": [0.25, 0.25]}
    # Ratios of 1 and 1/3, hence a median of 2/3 to one.
    assert found["psi_adam"]["share"] == pytest.approx(0.4, rel=1e-12)
    text = report.shares({"cnn": found})
    assert text == f"On `cnn` it is: `{SGD}` 25 %, `psi_adam` 40 %."


# Three layers of 9 * (8 + 8 * 16 + 16 * 32) weights, 2 * 56 of their norms and
# 330 of the head; one more than three stages of three blocks of two.
@pytest.mark.parametrize(
    ("name", "kernels", "weights"),
    [("cnn", 3, 6_274), ("resnet20", 19, 269_722)],
)
def test_the_filters_behind_a_norm_are_grouped(name, kernels, weights):
    network = training.NETWORKS[name]
    variables, _ = jax.eval_shape(lambda: training.draw(network, 1))
    params = training.by_path(variables["params"])
    groups = psi_optax.output_channels(params, where=network.grouped)
    filters = {path for path, w in params.items() if w.ndim == 4}
    assert filters == {x for x, group in groups.items() if group is not None}
    assert len(filters) == kernels
    assert sum(w.size for w in params.values()) == weights


def test_passes_keep_weights_and_write_statistics():
    network = training.NETWORKS["cnn"]
    variables, batch = training.draw(network, 2)
    before = variables["params"]["hidden_0"]["kernel"] + 0
    case = training.build_passes(network, variables)
    step = steps.compile_case(case, batch)[0].step
    params, (rest, gradients) = step(case.params, case.state, batch)
    assert (params["hidden_0"]["kernel"] == before).all()
    assert (gradients["hidden_0"]["kernel"] != 0).any()
    assert (rest["batch_stats"]["norm_0"]["mean"] != 0).all()
    # Copies were donated.
    assert (variables["params"]["hidden_0"]["kernel"] == before).all()


# -- torch's libraries --------------------------------------------------------


def test_the_first_environment_counts(monkeypatch):
    first = {"torch": "2", "rows": [{"optimizer": "x"}]}
    second = {"torch": "3", "rows": [*first["rows"], {"optimizer": "y"}]}
    found = [first, second, first]
    monkeypatch.setattr(step_time_torch, "in_torch", lambda *_: found)
    rest = {"torch": "3", "rows": [{"optimizer": "y"}]}
    assert step_time_torch.run_peers("tiny") == [first, rest]


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
    found = torch_steps.cases(torch)
    own = [torch_steps.SGD, torch_steps.ADAMW]
    assert list(found) == [*own, "heavyball HyperBallAdamW"]
    for name, make in found.items():
        matrices, vectors = make(["m"], ["v"])
        assert (matrices.params, vectors.params) == (["m"], ["v"])
        assert [one.params for one in make(["m"], [])] == [["m"]]
        assert torch_steps.baseline(name) in own
