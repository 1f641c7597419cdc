"""The accuracy experiment: its data, its paired test, its optimizers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sklearn")

from scipy import stats

from benchmarks import data, training
from benchmarks.experiments import accuracy, command
from benchmarks.experiments.accuracy_data import flip_labels, split
from benchmarks.experiments.accuracy_report import compare, holm, table
from benchmarks.experiments.accuracy_runs import looped, scanned
from benchmarks.methods import METHODS, Method
from psi_optax.models import linen

pytestmark = pytest.mark.usefixtures("optax_promotion")

MODEL = linen.MLP(widths=(8,), momentum=0.9)


def test_as_many_labels_are_wrong_as_is_said_and_in_all_ways():
    labels = np.repeat(np.arange(10, dtype=np.int32), 900)
    flipped = flip_labels(labels, 0.3, 10)
    wrong = flipped != labels
    assert wrong.sum() == 2700
    assert flipped.dtype == labels.dtype
    offsets = np.bincount((flipped - labels)[wrong] % 10, minlength=10)
    # Each of 9 ways 300 times, with a standard deviation of
    # sqrt(2700 * 8 / 81) = 16.3: five of them.
    assert offsets[0] == 0
    assert np.abs(offsets[1:] - 300).max() < 82
    np.testing.assert_array_equal(flip_labels(labels, 0.0, 10), labels)


@pytest.fixture
def numbered(monkeypatch):
    """A data set whose images are all different, and say their numbers."""

    def numbers(first, count):
        return np.full((1, 4, 4, 1), 1.0) * np.arange(first, first + count)[
            :, None, None, None
        ].astype(np.float32)

    full = data.Dataset(
        "numbered",
        numbers(0, 100),
        np.arange(100, dtype=np.int32) % 10,
        numbers(1000, 30),
        np.arange(30, dtype=np.int32) % 10,
        10,
    )
    monkeypatch.setattr(data, "load", lambda name: full)
    return full


def test_validation_is_of_other_images_and_test_labels_are_right(numbered):
    tuning, final = split("numbered", 60, 30, pool=2, noise=0.5)
    assert final.train_images.shape == (60, 2, 2, 1)
    assert tuning.train_images is final.train_images
    seen = set(final.train_images[:, 0, 0, 0])
    held = set(tuning.test_images[:, 0, 0, 0])
    assert len(seen) == 60
    assert len(held) == 30
    assert not seen & held
    np.testing.assert_array_equal(final.test_labels, numbered.test_labels)
    for images, labels in (
        (final.train_images, final.train_labels),
        (tuning.test_images, tuning.test_labels),
    ):
        right = labels == images[:, 0, 0, 0].astype(int) % 10
        assert 0.2 < right.mean() < 0.8


def test_pixels_become_means(monkeypatch):
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    labels = np.zeros(1, np.int32)
    one = data.Dataset("one", image, labels, image, labels, 10)
    monkeypatch.setattr(data, "load", lambda name: one)
    found = split("one", 1, 0, pool=2, noise=0.0).final.test_images
    expected = [[2.5, 4.5], [10.5, 12.5]]  # (0 + 1 + 4 + 5) / 4, ...
    np.testing.assert_array_equal(found[0, :, :, 0], expected)


def test_the_paired_test_is_the_known_one():
    random = np.random.RandomState(0)
    ours, theirs = random.normal(size=(2, 10))
    found, known = compare(ours, theirs), stats.ttest_rel(ours, theirs)
    # Both in double precision, from the same sums: a few rounding errors.
    np.testing.assert_allclose(found.p, known.pvalue, rtol=1e-10)
    interval = known.confidence_interval()
    np.testing.assert_allclose(
        [found.mean - found.margin, found.mean + found.margin],
        [interval.low, interval.high],
        rtol=1e-10,
    )
    unpaired = stats.ttest_ind(ours, theirs)
    assert abs(found.p / unpaired.pvalue - 1) > 1e-3
    assert compare([0.5, 0.25], [0.5, 0.25]) == (0, 0, 1)
    assert compare([0.5, 0.25], [0.25, 0.0]).p == 0


def test_holms_correction():
    # By hand: 4 * 0.01, 3 * 0.02, 2 * 0.02, of which the largest so far, 1.
    p = [0.02, 0.01, 0.9, 0.025]
    np.testing.assert_allclose(holm(p), [0.06, 0.04, 0.9, 0.06])
    assert holm([0.6, 0.7]).max() == 1
    # Under no effect at all, 20 tests find something in 5 % of all cases, and
    # uncorrected ones in 1 - 0.95^20 = 64 %. Of 2000 cases: 0.5 %, five times.
    cases = np.random.RandomState(0).uniform(size=(2000, 20))
    found = np.mean([holm(case).min() < 0.05 for case in cases])
    assert abs(found - 0.05) < 0.025
    assert np.mean(cases.min(1) < 0.05) > 0.6


def made_up(ours, theirs):
    """Results of one column, for SGD with decay and psi_sgd."""
    part = {
        "label": "",
        "trials": [],
        "chosen": {"learning_rate": 0.1, "weight_decay": 0.0},
        "at_edge": ["learning_rate"],
    }
    settings = accuracy.EXPERIMENT.smoke._replace(
        networks=(("mlp", 1, 1),), noises=(0.0,)
    )
    return {
        "settings": json.loads(json.dumps(settings._asdict())),
        "parts": {
            "digits/mlp/0/psi_sgd": {**part, "accuracy": ours},
            "digits/mlp/0/sgd_decay": {**part, "accuracy": theirs},
        },
    }


@pytest.mark.parametrize(
    ("ours", "counts"),
    [
        ([0.95, 0.96, 0.97, 0.96], "1 | 0 | 0"),
        ([0.90, 0.91, 0.93, 0.91], "0 | 1 | 0"),
        ([0.80, 0.81, 0.82, 0.80], "0 | 0 | 1"),
    ],
)
def test_the_table_marks_what_differs(ours, counts):
    text = table(made_up(ours, [0.90, 0.92, 0.92, 0.91]))
    [last] = [
        line
        for line in text.split("not told apart")[1].splitlines()
        if line.startswith("| psi_sgd")
    ][:1]
    cells = [cell.strip() for cell in last.strip("|").split("|")]
    assert " | ".join(cells[1:]) == counts
    assert "0.1★" in text


@pytest.fixture(scope="module")
def digits():
    return data.hold_out(data.load("digits"), fraction=0.5)


def test_step_by_step_is_the_same_training(digits):
    groups = training.kernel_groups(MODEL, digits.train_images)
    seeds = range(2)
    start = training.initialize(MODEL, digits.train_images, seeds)
    batches = training.make_batches(len(digits.train_labels), 64, 1, seeds)
    assert batches.shape == (2, 9, 64)

    def train(how, rate):
        run = how(MODEL, METHODS["sgd"].build, groups)
        images, labels = digits.train_images, digits.train_labels
        return run(images, labels, start, batches, rate, 0.0)["params"]

    whole, stepped = train(scanned, 0.1), train(looped, 0.1)
    # Other programs, whose sums may have another order: 1e-7 of each a step,
    # and over 9 steps not much more.
    for one, other in zip(*map(jax.tree.leaves, (whole, stepped)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    kernel = whole["hidden_0"]["kernel"]
    assert np.abs(kernel - start["params"]["hidden_0"]["kernel"]).max() > 0.01
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1


def updates_of(name, digits, gradients, decay=0.0):
    """Parameters of norm 1 or more, and what a method adds to them."""
    start = training.initialize(MODEL, digits.train_images, range(1))["params"]
    params = jax.tree.map(lambda leaf: leaf[0] + 1.0, start)
    groups = training.kernel_groups(MODEL, digits.train_images)
    tx = METHODS[name].build(rate=0.1, decay=decay, groups=groups)
    gradients = jax.tree.map(
        lambda leaf: gradients * jnp.ones_like(leaf), params
    )
    updates, _ = tx.update(gradients, tx.init(params), params)
    return params, updates


@pytest.mark.parametrize(
    ("name", "decayed"),
    [
        ("adamp", {"hidden_0/kernel", "head/kernel"}),
        ("rotational", {"head/kernel"}),
        ("sgd_g", set()),
        ("weight_rescaling", {"hidden_0/kernel"}),  # goes to norm 1 at once
        ("psi_sgdm", set()),
    ],
)
def test_what_moves_without_gradients(digits, name, decayed):
    _, updates = updates_of(name, digits, gradients=0.0, decay=0.01)
    moved = {
        f"{layer}/{leaf}"
        for layer, leaves in updates.items()
        for leaf, update in leaves.items()
        if np.any(update)
    }
    assert moved == decayed


def test_sgd_g_has_a_twentieth_of_the_rate_elsewhere(digits):
    _, updates = updates_of("sgd_g", digits, gradients=1.0)
    # Nesterov's first step is 1 + 0.9 gradients; float32 rounds to 6e-8.
    np.testing.assert_allclose(
        updates["head"]["bias"], -0.1 / 20 * 1.9, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("rotational", True),
        ("sgd_g", True),
        ("psi_sgdm", True),
        ("adamp", False),
    ],
)
def test_methods_keep_norms(digits, name, kept):
    params, updates = updates_of(name, digits, gradients=0.3, decay=0.01)
    before = np.linalg.norm(params["hidden_0"]["kernel"], axis=0)
    after = np.linalg.norm(
        params["hidden_0"]["kernel"] + updates["hidden_0"]["kernel"], axis=0
    )
    # float32 sums of 64 squares, rounded once more in the update.
    assert (np.abs(after / before - 1).max() < 1e-6) == kept


@pytest.fixture
def small(monkeypatch):
    """The experiment in small, of two methods with two trials each."""
    for name in accuracy.EXPERIMENT.smoke.methods:
        usual = METHODS[name]
        method = Method(usual.label, usual.build, (0.1, 0.3), (0.01,))
        monkeypatch.setitem(accuracy.TUNED, name, method)
    accuracy._compiled.cache_clear()
    yield
    accuracy._compiled.cache_clear()


def test_a_small_run_writes_its_files_and_goes_on(
    small, tmp_path, capsys, monkeypatch
):
    arguments = ["--smoke", "--out", str(tmp_path)]
    command.main(accuracy.EXPERIMENT, arguments)
    printed = capsys.readouterr().out
    assert "30 % of labels wrong" in printed
    content = json.loads((tmp_path / "accuracy-smoke.json").read_text())
    assert len(content["parts"]) == 2
    for part in content["parts"].values():
        assert len(part["trials"]) == 2
        assert len(part["accuracy"]) == accuracy.EXPERIMENT.smoke.seeds
        assert all(0 <= accuracy <= 1 for accuracy in part["accuracy"])
    image = tmp_path / "accuracy-smoke.png"
    assert image.read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(accuracy._Runs, "measure", None)
    command.main(accuracy.EXPERIMENT, arguments)
    assert table(content) in capsys.readouterr().out


def test_the_page_shows_the_committed_numbers():
    page = command.PAGES / "accuracy.md"
    content = json.loads(page.with_suffix(".json").read_text())
    settings = json.loads(json.dumps(accuracy.EXPERIMENT.settings._asdict()))
    assert content["settings"] == settings
    assert table(content) in page.read_text()
    assert page.with_suffix(".png").exists()
