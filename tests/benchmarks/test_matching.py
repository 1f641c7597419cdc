"""The matching experiment: its schedule, its optimizers, what it reports."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("sklearn")

import psi_optax
from benchmarks import (
    data,
    held_rate,
    matched,
    matching,
    matching_report,
    pages,
    recording,
    training,
)
from benchmarks.methods import METHODS, Method
from psi_optax.models import linen

pytestmark = pytest.mark.usefixtures("optax_promotion")

MODEL = linen.MLP(widths=(8,), momentum=0.9)


@pytest.fixture(scope="module")
def digits():
    return data.hold_out(data.load("digits"), fraction=0.5)


@pytest.fixture(scope="module")
def page():
    return matching._PAGE.read_text(encoding="utf-8")


def started(dataset, seeds, epochs):
    variables = training.initialize(MODEL, dataset.train_images, seeds)
    size = len(dataset.train_labels)
    return variables, training.make_batches(size, 64, epochs, seeds)


def test_the_transient_leaves_some_steps_to_look_at():
    for held in (100, 101):
        assert held_rate.transient_steps(1.0, 0.1, held) >= held / 4
    # 12 * (1 - 0.9) / (4 * 0.03 * 0.1) = 100, of which none may be missing.
    assert held_rate.transient_steps(0.03, 0.1, held=102) in (100, 101)
    with pytest.raises(ValueError, match="100: .*epochs"):
        held_rate.transient_steps(0.03, 0.1, held=100)


def test_recorded_training_is_training_and_rotations_are_those_of_steps(digits):
    variables, batches = started(digits, range(2), epochs=2)
    rate = 0.01
    expected = float(np.arctan(rate))

    def build(rate, groups, **_):
        return psi_optax.rotational(
            rate, optax.identity(), groups, b2=0.0, eps=0.0
        )

    record = recording.make_recorded(
        MODEL, build, digits, optax.cosine_decay_schedule
    )
    after, angles = record(variables, batches, rate, 0.0)
    steps = batches.shape[1]
    assert angles.shape == (2, steps, 8)
    # With no mean over steps each has the length of its rate, and turns by its
    # arctangent: to float32's 6e-8 in the angle, and as many in weights that
    # were rounded once more, over an angle of 0.01: 1e-5, and some for sums.
    np.testing.assert_allclose(angles[:, 0], expected, rtol=1e-4)
    middle = np.arctan(rate / 2)  # the cosine's
    np.testing.assert_allclose(angles[:, steps // 2], middle, rtol=1e-4)
    assert abs(expected / middle - 1) > 0.9

    train = training.make_train(MODEL, build, digits)
    plain = train(jax.tree.map(jnp.copy, variables), batches, rate, 0.0)
    # The same steps in another program, whose sums may have another order:
    # 1e-7 a step, and over 14 of them not much more.
    for one, other in zip(*map(jax.tree.leaves, (after, plain)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    moved = np.abs(
        after["params"]["hidden_0"]["kernel"]
        - variables["params"]["hidden_0"]["kernel"]
    )
    assert moved.max() > 1e-2


def test_only_sgd_decays_filters_and_all_decay_the_head(digits):
    params = training.initialize(MODEL, digits.train_images, range(1))["params"]
    params = jax.tree.map(lambda leaf: leaf[0] + 1.0, params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    groups = training.kernel_groups(MODEL, digits.train_images)

    def decayed(build):
        tx = build(rate=0.1, decay=0.01, groups=groups)
        updates, _ = tx.update(zeros, tx.init(params), params)
        flat = jax.tree.leaves_with_path(updates)
        return {jax.tree_util.keystr(path) for path, u in flat if np.any(u)}

    head, filters = "['head']['kernel']", "['hidden_0']['kernel']"
    builds = matched.builds(1.0)
    assert builds.keys() == matched.LABELS.keys()
    for name, build in builds.items():
        expected = {head, filters} if name == "sgd_decay" else {head}
        assert decayed(build) == expected


def results(rotations, accuracies):
    """Made-up results of flat curves: by method, SGD with decay first."""
    names = list(matched.LABELS)
    methods = {
        name: {
            "label": matched.LABELS[name],
            "curve": [angle] * 10,
            "filters": [angle / 2, angle * 2],
            "accuracy": accuracy,
        }
        for name, angle, accuracy in zip(
            names, rotations, accuracies, strict=True
        )
    }
    chosen = {"learning_rate": 0.1, "weight_decay": 0.05}
    return {
        "steps": 10,
        "held": 5,
        "transient": 2,
        "seeds": 2,
        "batch_size": 64,
        "tuning": {"trials": [chosen], "chosen": chosen, "at_edge": []},
        "pilots": [],
        "predicted": [rotations[0]] * 10,
        "methods": methods,
        "versions": {"jax": "1.2.3", "optax": "4.5.6"},
    }


ALIKE = [[0.98, 0.96]] * 4


def test_what_is_wrong_is_said():
    assert matching_report.faults(results([1, 1.04, 0.96, 0.5], ALIKE)) == []
    wrong = {
        "`psi_sgd`, matched turns by 1.060": ([1, 1.06, 1, 0.5], ALIKE),
        "`rotational`, matched turns by 0.940": ([1, 1, 0.94, 0.5], ALIKE),
        "SGD, filters not decayed turns by 1.0": ([1, 1, 1, 1.01], ALIKE),
        # SGD's standard deviation is sqrt(2) %.
        "`psi_sgd`, matched: accuracy differs by -1.50 %, and SGD's "
        "spreads by 1.41 %": (
            [1, 1, 1, 0.5],
            [[0.98, 0.96], [0.965, 0.945], [0.984, 0.984], [0.1, 0.1]],
        ),
    }
    for words, case in wrong.items():
        [said] = matching_report.faults(results(*case))
        assert words in said


def test_parts_of_a_run_are_told_apart():
    run = results([1, 1, 1, 1], ALIKE)
    curve = [9.0, 9.0, 3.0, 4.0, 5.0, 2.0, 2.0, 2.0, 2.0, 1.0]
    assert matching_report.rotations(run, curve) == {
        "rate held": pytest.approx(np.sqrt(50 / 3)),
        "rate falling": pytest.approx(np.sqrt(17 / 5)),
        "last tenth": 1.0,
    }


def rows_of(text):
    """The tables' rows, by their first cell; later ones of one name last."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    found = {}
    for name, *cells in lines:
        found.setdefault(name, []).append(cells)
    return found


def test_the_page_shows_what_is_claimed(page):
    shown = rows_of(page)
    assert shown[""] == [["predicted", *matched.LABELS.values()]]
    _, _, psi, rotational, plain = map(float, shown["- of SGD's"][0])
    assert max(abs(psi - 1), abs(rotational - 1)) <= matching_report.TOLERANCE
    assert abs(plain - 1) > matching_report.TOLERANCE
    [[_, sgd, *_]] = shown["accuracy, %"]
    [[_, _, *differences]] = shown["- less SGD's"]
    mean = [float(cell.split(" ± ")[0]) for cell in differences]
    spread = float(sgd.split(" ± ")[1])
    assert max(map(abs, mean[:2])) <= spread
    assert pages.fill(page, "matching", "text") != page
    [image] = re.findall(r"\]\((.*\.png)\)", page)
    assert (pages.DOCS / image).exists()


def test_the_pilots_of_the_page_find_the_norm_of_noise(page):
    """Where gradients are noise alone, their norm is known."""
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
    norm = found["gradient_norm"]
    np.testing.assert_allclose(norm, np.sqrt(15), rtol=0.07)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The experiment in small, with a page of its own."""
    usual = METHODS["sgd_decay"]
    method = Method(usual.label, usual.build, (0.3,), (0.1,))
    monkeypatch.setitem(METHODS, "sgd_decay", method)
    settings = functools.partial(matching.Settings, widths=(8,), pilots=2)
    monkeypatch.setattr(matching, "Settings", settings)
    path = tmp_path / "page.md"
    path.write_text("<!-- matching: begin -->\n<!-- matching: end -->\n")
    monkeypatch.setattr(matching, "_PAGE", path)
    return path


def test_a_small_run_writes_its_page_its_figure_and_its_numbers(
    small, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(matching_report, "faults", lambda _: ["All is wrong."])
    command = "--seeds 2 --epochs 2 --docs --out"
    with pytest.raises(SystemExit, match=r"All is wrong\."):
        matching.main([*command.split(), str(tmp_path / "new")])

    found = json.loads((tmp_path / "new" / "matching.json").read_text())
    assert (found["steps"], found["held"], found["transient"]) == (36, 18, 10)
    assert len(found["predicted"]) == found["steps"]
    first, second = found["pilots"]
    assert first["gradient_norm"] == matching.FIRST_GUESS
    assert second["gradient_norm"] == first["corrected"]
    assert 0 < first["rotation"] < first["wanted"]
    assert list(found["methods"]) == list(matched.LABELS)
    for method in found["methods"].values():
        assert len(method["curve"]) == found["steps"]
        assert min(method["curve"]) > 0
        assert all(0.2 < accuracy <= 1 for accuracy in method["accuracy"])

    section = matching_report.section(found)
    assert section in capsys.readouterr().out
    assert section in small.read_text()
    assert f"JAX {jax.__version__}, " in section
    rows = rows_of(section)
    assert list(rows)[:2] == ["pilot", "-----"]
    assert [len(cells[0]) for cells in rows.values()] == [4] * 4 + [5] * 9
    image = small.with_suffix(".png").read_bytes()
    assert image.startswith(b"\x89PNG")


@pytest.mark.parametrize("wrong", ["--seeds 1", "--epochs many", "--x"])
def test_a_wrong_command_is_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        matching.main(wrong.split())
    assert "usage: python -m benchmarks.matching" in capsys.readouterr().err
