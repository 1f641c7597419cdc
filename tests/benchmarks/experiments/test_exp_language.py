"""The language experiment: its text, its model, its optimizers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from benchmarks.experiments import (
    command,
    language,
    language_methods,
    language_report,
    language_text,
)
from benchmarks.experiments.language_report import (
    held_rotation,
    settling,
    table,
    tuned,
)

pytestmark = pytest.mark.usefixtures("optax_promotion")

SMALL = language.EXPERIMENT.smoke
RATE, DECAY = 0.01, 0.3


def decode(tokens):
    return "".join("\n" if token == 0 else chr(token + 31) for token in tokens)


def test_no_paragraph_is_in_two_parts():
    text = language_text.load()
    parts = [set(decode(tokens).split("\n\n")) for tokens in text]
    # Those at the cuts are halves, and may be found elsewhere.
    for index, part in enumerate(parts):
        for other in parts[index + 1 :]:
            assert len(part & other) <= 1
    assert min(len(part) for part in parts) > 100
    assert "indentation" in decode(text.train)


@pytest.fixture(scope="module")
def runs():
    return language._Runs(SMALL)


@pytest.fixture(scope="module")
def params(runs):
    return runs.init(jax.random.key(0))


def leaves(tree):
    """By path, without the groups' None."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat}


def test_all_matrices_of_the_layers_have_no_scale(runs, params):
    groups = leaves(runs.groups.groups)
    kernels = {
        path for path in leaves(params) if "layer" in path and "kernel" in path
    }
    assert groups.keys() == kernels
    assert len(kernels) == 6
    pieces = runs._batches(0)[0, 0]

    def loss(select, factor):
        scaled = jax.tree_util.tree_map_with_path(
            lambda path, leaf: (
                leaf * factor if select(jax.tree_util.keystr(path)) else leaf
            ),
            params,
        )
        return float(runs.loss(scaled, pieces))

    usual = loss(lambda path: False, 2.0)
    for path in kernels:
        # RMSNorm's epsilon of 1e-6 against mean squares that are well above
        # 1e-3 here; the loss moves by less than their quotient.
        assert abs(loss(path.__eq__, 2.0) - usual) < 1e-3
    head = "['head']['kernel']"
    assert abs(loss(head.__eq__, 2.0) - usual) > 1e-2


GROUPS = {"layer": psi_optax.ScaleGroup((0, 1)), "head": None}


def noise(seed):
    shape = 8, 16
    draws = np.random.RandomState(seed).normal(size=(2, *shape))
    return dict(zip(GROUPS, jnp.asarray(draws, jnp.float32), strict=True))


def first_step(name, factor, unit=1.0):
    """What is added to two matrices, and by what angle the grouped one turns.

    Also its norm after the step, over that before.
    """
    tx = language_methods.builds(unit)[name](
        rate=optax.constant_schedule(RATE),
        decay=DECAY,
        factor=factor,
        groups=GROUPS,
    )
    params, gradients = noise(0), noise(1)
    updates, _ = tx.update(gradients, tx.init(params), params)
    after = optax.apply_updates(params, updates)
    angle = psi_optax.rotation(params, after, GROUPS)["layer"]
    norms = [np.linalg.norm(tree["layer"]) for tree in (params, after)]
    return updates, float(angle), norms[1] / norms[0]


def test_at_factor_1_adamw_is_adamw_and_else_only_groups_differ():
    usual, *_ = first_step("adamw", 1.0)
    double, *_ = first_step("adamw", 2.0)
    tx = language_methods._adamw(RATE, DECAY)
    params = noise(0)
    whole, _ = tx.update(noise(1), tx.init(params), params)
    # The same formula: to a few roundings of float32. Rotations go with the
    # root of the rate, which multiplies the decay too: four times the step.
    for path, times in {"layer": 4.0, "head": 1.0}.items():
        np.testing.assert_allclose(usual[path], whole[path], rtol=1e-6)
        np.testing.assert_allclose(double[path], times * usual[path], rtol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize("name", ["adamh", "rotational"])
def test_steps_of_controlled_length_turn_as_wanted(name, factor):
    updates, angle, growth = first_step(name, factor)
    wanted = psi_optax.dynamics.equilibrium_rotation(
        RATE, DECAY, optimizer="adamw"
    )
    # float32 sums of 128 squares, and an update that is rounded once more.
    assert abs(growth - 1) < 1e-6
    expected = np.arctan(factor * np.tan(wanted))
    if name == "rotational":
        # The first step is its own mean: to the rounding of float32, 6e-8 of
        # weights that are moved by 1e-2 of themselves.
        np.testing.assert_allclose(angle, expected, rtol=1e-4)
    else:
        # What of a random step lies along the weights does not turn them:
        # 1/128 of its square in the mean, and the root of it two times that
        # seldom: 1 - sqrt(1 - 4/128) = 1.6 %, and as much again.
        assert 0.96 < angle / expected < 1.04
    usual, *_ = first_step("adamw", 1.0)
    np.testing.assert_allclose(updates["head"], usual["head"], rtol=1e-6)


def test_adamw_does_not_keep_norms():
    _, _, growth = first_step("adamw", 1.0)
    assert abs(growth - 1) > 1e-4


def test_the_unit_is_a_factor_of_psi_adams_rate():
    _, once, growth = first_step("psi_adam", 1.0, unit=0.001)
    _, twice, _ = first_step("psi_adam", 1.0, unit=0.002)
    assert abs(growth - 1) < 1e-6
    # The first step has 128 entries of 0.018 * 0.001, which is an angle of
    # 2e-4: no curvature, and 6e-8 of rounding are 3e-4 of it.
    np.testing.assert_allclose(twice, 2 * once, rtol=2e-3)


def test_what_diverged_is_not_chosen_and_early_rotations_do_not_count():
    settings = {"rates": [0.1, 0.2], "decays": [1.0], "steps": 8, "chunks": 8}
    parts = {
        "tuning/0.1/1": {"validation": [9.0, 2.0]},
        "tuning/0.2/1": {"validation": [1.0, None]},
    }
    assert tuned({"settings": settings, "parts": parts}) == (0.1, 1.0)
    parts["tuning/0.2/1"]["validation"][-1] = 1.5
    assert tuned({"settings": settings, "parts": parts}) == (0.2, 1.0)
    # Held for 4 steps, of which 1 / (4 * 0.2) is less and 1 / (4 * 0.02) more.
    assert settling({"settings": settings, "parts": parts}) == (0.2, 1.0)
    settings["rates"] = [0.02, 0.2]
    parts["tuning/0.02/1"] = {"validation": [1.0]}
    assert settling({"settings": settings, "parts": parts}) == (0.2, 1.0)
    assert tuned({"settings": settings, "parts": parts}) == (0.02, 1.0)
    # The rate is held for 4 of 8 chunks, of which the latter two count.
    rotation = {"rotation": [9.0, 9.0, 3.0, 4.0, 9.0, 9.0, 9.0, 9.0]}
    assert held_rotation(settings, rotation) == np.sqrt(12.5)


@pytest.fixture
def small(monkeypatch):
    """Two methods instead of four: each takes seconds to compile."""
    labels = {
        name: language_methods.LABELS[name] for name in ("adamw", "psi_adam")
    }
    usual = language_methods.builds
    for module in (language_report, language_methods):
        monkeypatch.setattr(module, "LABELS", labels)
    monkeypatch.setattr(
        language,
        "builds",
        lambda unit: {name: usual(unit)[name] for name in labels},
    )


def test_a_small_run_writes_its_files_and_goes_on(
    small, tmp_path, capsys, monkeypatch
):
    arguments = ["--smoke", "--out", str(tmp_path)]
    command.main(language.EXPERIMENT, arguments)
    printed = capsys.readouterr().out
    assert "6 of 18 parameters have scale groups" in printed
    found = json.loads((tmp_path / "language-smoke.json").read_text())
    # Groups, two trials, two seeds of the best, the pilots, and two
    # methods, factors and seeds.
    assert len(found["parts"]) == 1 + 2 + 2 + language.PILOTS + 8
    part = found["parts"]["psi_adam/0.5/1"]
    assert len(part["validation"]) == len(part["rotation"]) == SMALL.chunks
    # Of 96 characters, and hardly trained.
    assert 2 < part["test"] < np.log(96) + 1
    assert min(part["rotation"]) > 0
    image = tmp_path / "language-smoke.png"
    assert image.read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(language._Runs, "train", None)
    command.main(language.EXPERIMENT, arguments)
    assert capsys.readouterr().out == printed


def test_the_page_shows_the_committed_numbers():
    page = command.PAGES / "language.md"
    found = json.loads(page.with_suffix(".json").read_text())
    settings = json.loads(json.dumps(language.EXPERIMENT.settings._asdict()))
    assert found["settings"] == settings
    assert table(found) in page.read_text()
    assert page.with_suffix(".png").exists()
