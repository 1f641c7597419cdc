"""The experiment on transfer: its problems, methods, trainings and tables."""

import copy
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("sklearn")

import psi_optax
from benchmarks.experiments.transfer import MEASUREMENT
from benchmarks.experiments.transfer.choices import chosen, row
from benchmarks.experiments.transfer.experiment import Study
from benchmarks.experiments.transfer.methods import (
    METHODS,
    MUP,
    PLAIN,
    muon_axes,
    shrink_head,
)
from benchmarks.experiments.transfer.points import (
    BASE,
    Point,
    Sizes,
    points,
)
from benchmarks.experiments.transfer.problems import PROBLEMS
from benchmarks.experiments.transfer.trainings import (
    begin,
    has_failed,
    make_train,
    train_all,
)
from benchmarks.harness.results import Results

pytestmark = pytest.mark.usefixtures("optax_promotion")

SMALL = MEASUREMENT.smoke
BASES = {"mlp": Sizes(4, 2, 8, 12), "language": Sizes(8, 1, 2, 6)}


@pytest.fixture(scope="module", params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param](SMALL, BASES[request.param])


@pytest.fixture(scope="module")
def mlp():
    return PROBLEMS["mlp"](SMALL, BASES["mlp"])


@pytest.fixture(scope="module")
def language():
    return PROBLEMS["language"](SMALL, BASES["language"])


def test_each_point_changes_one_factor():
    base = Sizes(32, 2, 16, 800)
    expected = {
        "base/1": {},
        "width/2": {"width": 64, "growth": 2},
        "batch/2": {"batch": 32},
        "examples/2": {"batch": 32, "steps": 400},
        "scale/0.0625": {"scale": 0.0625},
        "depth/2": {"depth": 4},
        "length/2": {"steps": 1600},
    }
    found = {
        str(point): base.at(point)
        for point in points(dataclasses.asdict(SMALL))
    }
    assert found == {k: base._replace(**x) for k, x in expected.items()}


def test_groups_are_proven_and_spheres_are_whole_matrices(language):
    params = language.init(jax.random.key(0))["params"]
    [layer] = [language.groups[x] for x in params if x.startswith("layer_")]
    head = psi_optax.ScaleGroup((0, 2))
    assert layer["attention"]["query"]["kernel"] == head
    assert layer["attention"]["value"]["kernel"] is None
    tie = language.groups["embed"]["embedding"].tie
    assert tie == layer["mlp"]["down"]["kernel"].tie is not None
    spheres = jax.tree.leaves(language.spheres)
    assert len(spheres) == 6
    assert all(x.axes == tuple(range(len(x.axes))) for x in spheres)


def test_a_scale_changes_no_function_but_weights(problem):
    variables = {
        x: begin(problem, "sgd", BASES["mlp"]._replace(scale=x), range(1))[0]
        for x in (1.0, 16.0)
    }
    first = {
        k: jax.tree.map(lambda leaf: leaf[0], x) for k, x in variables.items()
    }
    batch = problem.draw(range(1))[0, 0]
    data = jax.tree.map(jnp.asarray, problem.data)
    losses = [
        float(problem.loss(x["params"], x, data, batch)[0])
        for x in first.values()
    ]
    # A power of two, and an epsilon of 1e-20 in normalizations.
    assert losses[0] == losses[1]
    norms = [optax.tree.norm(x["params"]) for x in first.values()]
    assert norms[1] > 4 * norms[0]


def test_matrices_of_muon_map_the_stream_to_heads_and_back(language):
    axes = muon_axes(language.spheres)["layer_0"]
    numbers = optax.contrib.MuonDimensionNumbers
    assert axes["attention"]["query"]["kernel"] == numbers(0, (1, 2))
    assert axes["attention"]["out"]["kernel"] == numbers((0, 1), 2)
    assert axes["mlp"]["up"]["kernel"] == numbers((0,), 1)
    params = language.init(jax.random.key(0))["params"]
    tx = METHODS["muonh"].make(0.1, 0.01, language, 1)
    gradients = jax.tree.map(
        lambda x: jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape),
        params,
    )
    updates, _ = tx.update(gradients, tx.init(params), params)
    after = optax.apply_updates(params, updates)
    kept = psi_optax.group_norms(params, language.spheres)
    found = psi_optax.group_norms(after, language.spheres)
    for before, now in zip(*map(jax.tree.leaves, (kept, found)), strict=True):
        # Each matrix on its sphere, to float32.
        np.testing.assert_allclose(before, now, rtol=1e-5)
    moved = jax.tree.map(
        lambda x, y: float(jnp.abs(x - y).max()), params, after
    )
    assert min(jax.tree.leaves(moved)) > 0


def first_step(name, problem, growth, params):
    tx = METHODS[name].make(0.1, 0.5, problem, growth)
    gradients = jax.tree.map(lambda x: jnp.ones_like(x) - 2 * x, params)
    updates, _ = tx.update(gradients, tx.init(params), params)
    return updates


def test_mup_divides_the_rates_of_what_grows_but_not_the_decay(mlp):
    params = mlp.init(jax.random.key(0))["params"]
    plain = first_step(PLAIN, mlp, 1, params)
    same = first_step(MUP, mlp, 1, params)
    wide = first_step(MUP, mlp, 4, params)
    decay = jax.tree.map(lambda w: -0.1 * 0.5 * w * (w.ndim > 1), params)
    for layer in params:
        for name, w in params[layer].items():
            grows = (layer, name) in (
                ("hidden_1", "kernel"),
                ("head", "kernel"),
            )
            rest = decay[layer][name]
            share = 0.25 if grows else 1.0
            expected = share * (plain[layer][name] - rest) + rest
            # The same formula, to roundings of float32.
            options = {"rtol": 1e-5, "atol": 1e-7}
            np.testing.assert_allclose(
                same[layer][name], plain[layer][name], **options
            )
            np.testing.assert_allclose(wide[layer][name], expected, **options)
            changed = float(
                jnp.abs(wide[layer][name] - same[layer][name]).max()
            )
            assert (changed > 1e-3) == grows, (layer, name, w.shape)


def test_the_head_of_mup_shrinks(problem):
    variables = problem.init(jax.random.key(0))
    shrunk = shrink_head(variables, 4)["params"]
    ratios = jax.tree.map(
        lambda x, y: float(jnp.linalg.norm(y) / (jnp.linalg.norm(x) or 1.0)),
        variables["params"],
        shrunk,
    )
    assert ratios["head"]["kernel"] == pytest.approx(0.5, rel=1e-6)
    del ratios["head"]
    assert set(jax.tree.leaves(ratios)) <= {0.0, 1.0}


PAIRS = [(0.25, 0.01), (0.5, 0.01)]


def losses_at(problem, name, sizes, seeds=range(2)):
    return train_all(problem, name, METHODS[name], sizes, seeds, PAIRS)


def test_scales_change_no_loss_on_proven_groups(mlp):
    """With SGD they do."""
    base = BASES["mlp"]
    for name, changes in (("psi_sgd", False), ("sgd", True)):
        one = losses_at(mlp, name, base)
        for scale in (0.0625, 16.0):
            # After few steps the validation loss has one: that of the initial
            # running statistics.
            other = losses_at(mlp, name, base._replace(scale=scale))
            assert (one["train"] != other["train"]) == changes


def test_a_rate_and_a_seed_are_as_if_trained_alone(mlp):
    sizes, method = BASES["mlp"], METHODS["psi_adam"]
    found = losses_at(mlp, "psi_adam", sizes)
    variables, batches = begin(mlp, "psi_adam", sizes, range(1, 2))
    one = jax.tree.map(lambda x: x[0], variables)
    train = make_train(mlp, method, sizes)
    data = jax.tree.map(jnp.asarray, mlp.data)
    after, losses = train(data, one, batches[0], *PAIRS[1])
    assert losses.shape == (sizes.steps,)
    # Twelve steps in another program, in float32.
    expected = float(mlp.evaluate(after, mlp.held_out["test"]))
    assert found["test"][1][1] == pytest.approx(expected, rel=1e-3)
    assert found["train"][1][1] == pytest.approx(float(losses[-1]), rel=1e-3)
    assert abs(found["train"][0][1] - float(losses[-1])) > 1e-3


def test_a_run_that_diverges_is_none_and_others_are_not(mlp):
    pairs = [(0.1, 0.0), (1e30, 0.0)]
    part = train_all(mlp, "sgd", METHODS["sgd"], BASES["mlp"], range(1), pairs)
    for kind in ("train", "validation", "test"):
        assert np.isfinite(part[kind][0][0])
        assert part[kind][1] == [None]
    # Losses that end above their beginning have diverged, too.
    rows = np.array([[2.0, 1.0, 1.5], [2.0, 1.0, 2.5], [2.0, np.inf, 1.0]])
    assert has_failed(rows, 1).tolist() == [False, True, True]
    assert has_failed(rows, 2).tolist() == [False, False, True]


def valley(optimum, seeds, grid=range(-5, 3)):
    losses = [[1 + 0.1 * (x - optimum) ** 2] * seeds for x in grid]
    return {
        "rates": [2.0**x for x in grid],
        "tuned": [0.1 for _ in grid],
        **dict.fromkeys(("train", "validation", "test"), losses),
    }


def made_up():
    """Results whose best rate moves by 1 / √factor with the width alone."""
    settings = dataclasses.asdict(SMALL) | {"widths": [2, 4, 8]}
    methods, parts = ("adamw", "adamw_mup", "psi_sgd"), {}
    for name in methods:
        for point in points(settings):
            seeds = 1 if point.factor in ("depth", "length") else 2
            half = -0.5 * np.log2(point.value) * (point.factor == "width")
            part = valley(-1.5 + half, seeds)
            parts[f"mlp/{name}/{point}/0"] = part
        tuning = valley(-1, 1) | {"tuned": [0.01, 0.1] * 4}
        parts[f"mlp/{name}/tuning"] = tuning
    return {"settings": settings, "parts": parts}


def cells(report, label):
    lines = [x for x in report.splitlines() if x.startswith(f"| {label} ")]
    return [[c.strip() for c in x.split("|")[2:-1]] for x in lines]


def test_tables_have_the_moves_and_the_rule():
    content = made_up()
    shown = MEASUREMENT.report(content)
    base, width, *rest = cells(shown, "BatchNorm MLP, psi_sgd")
    assert base[:2] == ["0.01★", "-1.5 [-1.5, -1.5]"]
    moves = [f"{x} [{x}, {x}]" for x in ("-0.5", "-1.0", "-1.5")]
    # At 8 times the width the rate of the base is off by 1.5 octaves.
    assert width[:4] == [*moves, "0.225"]
    assert width[-5:-3] == ["1 / √factor", "0.0"]
    # Seeds are equal, and so have no spread for rounding.
    assert len(rest) == 5
    assert all(x[0].startswith(("+0.0", "-0.0")) for x in rest)
    # Over the other factors muP is AdamW.
    assert len(cells(shown, "BatchNorm MLP, AdamW, muP")) == 1
    assert set(MEASUREMENT.figures(content)) == {"transfer", "transfer-mlp"}


def test_losses_that_depend_on_the_scale_are_a_fault():
    content = made_up()
    assert MEASUREMENT.faults(content) == []
    changed = copy.deepcopy(content)
    # Nothing is claimed of AdamW.
    for name in ("adamw", "psi_sgd"):
        part = changed["parts"][f"mlp/{name}/scale/0.0625/0"]
        part["train"] = [[1 + 1e-7] * 2] * 8
    [fault] = MEASUREMENT.faults(changed)
    assert "psi_sgd" in fault


def test_tuned_values_are_chosen_on_validation_data():
    content = made_up()
    # The lowest loss, at a rate of 1 / 2, was with 0.01.
    part = content["parts"]["mlp/adamw/tuning"]
    assert np.argmin(part["validation"]) % 2 == 0
    assert chosen(content, "mlp", PLAIN) == 0.01
    assert chosen(content, "mlp", MUP) == 0.01
    part["tuned"] = [0.1, 0.01] * 4
    assert chosen(content, "mlp", PLAIN) == 0.1
    part["validation"] = [[None]] * 4 + part["validation"][4:]
    part["tuned"] = [0.01] * 5 + [0.1] * 3
    assert chosen(content, "mlp", PLAIN) == 0.01


def test_ordinary_rates_are_those_that_serve_all_methods():
    content = made_up()
    content["settings"]["methods"] = ("psi_sgd", "psi_adam", "adamw")
    best = {"psi_sgd": [0.5, 0.6, 0.9], "psi_adam": [0.9, 0.6, 0.5]}
    for name, losses in best.items():
        content["parts"][f"mlp/{name}/tuning"] = {
            "rates": [1.0] * 3,
            "tuned": [0.001, 0.01, 0.1],
            "validation": [[x] for x in losses],
        }
    assert chosen(content, "mlp", "psi_sgd") == 0.01
    assert chosen(content, "mlp", "psi_adam") == 0.01


def test_extensions_join_their_row():
    content = made_up()
    content["parts"]["mlp/psi_sgd/base/1/1"] = valley(-1.5, 2, range(3, 5))
    assert row(content, "mlp", "psi_sgd", BASE).x.tolist() == [*range(-5, 5)]
    wide = row(content, "mlp", "psi_sgd", Point("width", 2))
    assert len(wide.x) == 8


def test_a_study_that_was_stopped_goes_on_with_its_extensions(
    tmp_path, monkeypatch
):
    settings = dataclasses.replace(SMALL, rates=8, more_rates=2, extensions=1)
    asked = []

    def train(study, name, point, seeds, pairs):
        asked.append((name, point, seeds, pairs))
        # Grids begin at -11 and -9; the best rate of a batch is beyond.
        optimum = 0 if point.factor == "batch" else -5.5
        part = valley(optimum, len(seeds), [np.log2(x) for x, _ in pairs])
        return part | {"tuned": [x for _, x in pairs]}

    def stop(*_):
        raise KeyboardInterrupt

    def measure():
        path = tmp_path / "numbers.json"
        with Results(path, dataclasses.asdict(settings)) as results:
            MEASUREMENT.measure(settings, results)
        return results.content

    monkeypatch.setattr(Study, "_train", train)
    content = measure()
    of_batch = [x for x in content["parts"] if "/batch/" in x]
    assert of_batch == [
        f"mlp/{name}/batch/2/{index}"
        for name in ("adamw", "psi_sgd")
        for index in (0, 1)
    ]
    [depths] = {len(x) for _, point, x, _ in asked if point.factor == "depth"}
    assert depths == 1
    mup = [(point, pairs) for name, point, _, pairs in asked if name == MUP]
    assert {point.factor for point, _ in mup} == {"width"}
    # The tuned value of AdamW is that of muP.
    tuned = {x for _, pairs in mup for _, x in pairs}
    assert tuned == {chosen(content, "mlp", PLAIN)}
    assert MEASUREMENT.report(content)
    monkeypatch.setattr(Study, "_train", stop)
    assert measure() == content
    # The control: of a part that is absent it goes on.
    path = tmp_path / "numbers.json"
    del content["parts"][of_batch[1]]
    path.write_text(json.dumps(content))
    with pytest.raises(KeyboardInterrupt):
        measure()
