"""The language experiment: its text, its model, its methods, its choices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from benchmarks.experiments.held_rate import held_rotation
from benchmarks.experiments.language import MEASUREMENT, text
from benchmarks.experiments.language.report import best_pair, settling
from benchmarks.experiments.language.training import Runs, make
from psi_optax.dynamics import equilibrium_rotation

pytestmark = pytest.mark.usefixtures("optax_promotion")

RATE, DECAY = 0.01, 0.3
GROUPS = {"layer": psi_optax.ScaleGroup((0, 1)), "head": None}


def decode(tokens):
    return "".join("\n" if token == 0 else chr(token + 31) for token in tokens)


def test_no_paragraph_is_in_two_parts():
    loaded = text.load()
    parts = [set(decode(tokens).split("\n\n")) for tokens in loaded]
    # Those at the cuts are halves, and may be found elsewhere.
    for index, part in enumerate(parts):
        assert all(len(part & other) <= 1 for other in parts[index + 1 :])
    assert min(map(len, parts)) > 100
    assert max(map(np.max, loaded)) < text.VOCABULARY
    assert "indentation" in decode(loaded.train)


def test_all_matrices_of_the_layers_are_scale_invariant():
    runs = Runs(MEASUREMENT.smoke)
    pieces = runs.batches(0)[0, 0]
    leaves, tree = jax.tree.flatten_with_path(runs.init(jax.random.key(0)))
    paths = [jax.tree_util.keystr(path) for path, _ in leaves]

    def loss(scaled=None):
        """Return the loss with one leaf doubled."""
        factors = [2.0 if path == scaled else 1.0 for path in paths]
        pairs = zip(leaves, factors, strict=True)
        params = tree.unflatten([leaf * factor for (_, leaf), factor in pairs])
        return float(runs.loss(params, pieces))

    matrices = {p for p in paths if "layer" in p and "kernel" in p}
    found = jax.tree.leaves_with_path(runs.groups.groups)
    assert {jax.tree_util.keystr(path) for path, _ in found} == matrices
    assert len(matrices) == 6
    # The loss moves by less than RMSNorm's epsilon of 1e-6 over mean squares,
    # which are above 1e-3 here.
    assert all(abs(loss(path) - loss()) < 1e-3 for path in matrices)
    assert abs(loss("['head']['kernel']") - loss()) > 1e-2


def noise(seed):
    draws = np.random.RandomState(seed).normal(size=(2, 8, 16))
    return dict(zip(GROUPS, jnp.asarray(draws, jnp.float32), strict=True))


def first_step(optimizer):
    """Return updates, and the grouped matrix's angle and relative norm."""
    params, gradients = noise(0), noise(1)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    angle = psi_optax.rotation(params, after, GROUPS)["layer"]
    before, norm = (np.linalg.norm(tree["layer"]) for tree in (params, after))
    return updates, float(angle), norm / before


def step_of(name, factor, unit=1.0):
    schedule = optax.constant_schedule(RATE)
    return first_step(make(name, GROUPS, schedule, DECAY, factor, unit))


def test_at_factor_1_adamw_is_adamw_and_else_only_groups_differ():
    whole, _, growth = first_step(optax.adamw(RATE, weight_decay=DECAY))
    usual, double = step_of("adamw", 1.0)[0], step_of("adamw", 2.0)[0]
    # Rotations are proportional to the root of the rate: four times the step.
    for path, times in {"layer": 4.0, "head": 1.0}.items():
        # The same formula, to a few roundings of float32.
        np.testing.assert_allclose(usual[path], whole[path], rtol=1e-6)
        np.testing.assert_allclose(double[path], times * usual[path], rtol=1e-6)
    # The control of methods that preserve norms.
    assert abs(growth - 1) > 1e-4


@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize(
    # A first step of `rotational` is its own mean, and rounding 6e-8 of weights
    # that move by 1e-2. A random step has a part along the weights, of 1/128 in
    # mean square, and seldom twice that: 1 - sqrt(1 - 4/128) = 1.6 %, doubled.
    ("name", "tolerance"),
    [("rotational", 1e-4), ("adamh", 0.04)],
)
def test_steps_of_controlled_length_turn_as_wanted(name, tolerance, factor):
    updates, angle, growth = step_of(name, factor)
    wanted = equilibrium_rotation(RATE, DECAY, optimizer="adamw")
    expected = np.arctan(factor * np.tan(wanted))
    np.testing.assert_allclose(angle, expected, rtol=tolerance)
    # float32 sums of 128 squares, and an update that is rounded once more.
    assert abs(growth - 1) < 1e-6
    usual = step_of("adamw", 1.0)[0]["head"]
    np.testing.assert_allclose(updates["head"], usual, rtol=1e-6)


def test_the_unit_is_a_factor_of_psi_adams_rate():
    _, once, growth = step_of("psi_adam", 1.0, unit=0.001)
    _, twice, _ = step_of("psi_adam", 1.0, unit=0.002)
    assert abs(growth - 1) < 1e-6
    # The first step has 128 elements of 0.018 * 0.001, an angle of 2e-4: no
    # curvature, and 6e-8 of rounding are 3e-4 of it.
    np.testing.assert_allclose(twice, 2 * once, rtol=2e-3)


def test_diverged_runs_are_not_chosen_and_early_rotations_do_not_count():
    settings = {"rates": [0.02, 0.2], "decays": [1.0], "steps": 8, "chunks": 8}
    fast, slow = {"validation": [1.0, None]}, {"validation": [9.0, 2.0]}
    parts = {"tuning/0.02/1": slow, "tuning/0.2/1": fast}
    content = {"settings": settings, "parts": parts}
    assert best_pair(content) == (0.02, 1.0)
    # The rate is held for 4 steps: more than 1 / (4 * 0.2), and less than
    # 1 / (4 * 0.02).
    assert settling(content) == (0.2, 1.0)
    fast["validation"][-1] = 1.5
    assert best_pair(content) == (0.2, 1.0)
    # The rate is held for 4 of 8 chunks, the latter two of which count.
    part = {"rotation": [9.0, 9.0, 3.0, 4.0, 9.0, 9.0, 9.0, 9.0]}
    assert held_rotation(settings, part) == np.sqrt(12.5)
