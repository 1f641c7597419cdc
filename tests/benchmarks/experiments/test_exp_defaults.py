"""The experiment without tuning: its trainings, conversions and regrets."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("sklearn")

import psi_optax
from benchmarks.experiments.defaults import MEASUREMENT
from benchmarks.experiments.defaults.experiment import train
from benchmarks.experiments.defaults.methods import METHODS, SGD_RATE
from benchmarks.experiments.defaults.report import regrets
from benchmarks.experiments.defaults.tasks import TASKS
from benchmarks.harness.files import InputError
from benchmarks.harness.results import Results

pytestmark = pytest.mark.usefixtures("optax_promotion")

GRAPH = "GCN, karate club"
SMALL = dataclasses.replace(MEASUREMENT.smoke, seeds=2, steps=20)


@pytest.fixture(scope="module")
def graph():
    return TASKS[GRAPH]()


def test_a_run_is_as_if_trained_alone(graph):
    factor, seed = 0, 1
    found = train(graph, "sgd", SMALL)
    params = graph.init(jax.random.key(seed))
    rate = SMALL.factors[factor] * SGD_RATE
    schedule = optax.cosine_decay_schedule(rate, SMALL.steps)
    tx = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(schedule, 0.9))
    state = tx.init(params)
    for _ in range(SMALL.steps):
        gradients = jax.grad(graph.loss)(params, None)
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    for name, value in graph.evaluate(params).items():
        # Rounding of 20 steps in another program, and to 5 digits.
        assert found[name][factor][seed] == pytest.approx(
            float(value), rel=1e-4
        )
    assert found["test"][factor] != found["test"][1]


@pytest.mark.parametrize(
    "name", ["psi_sgd", "psi_adam", "rotational", "adamh", "muonh"]
)
def test_methods_keep_the_norms_of_groups_and_learn(graph, name):
    params = graph.init(jax.random.key(0))
    schedule = partial(optax.cosine_decay_schedule, decay_steps=100)
    tx = METHODS[name].make(params, graph.groups, schedule)
    state, new = tx.init(params), params
    for _ in range(3):
        gradients = jax.grad(graph.loss)(new, None)
        updates, state = tx.update(gradients, state, new)
        new = optax.apply_updates(new, updates)
    assert graph.loss(new, None) < graph.loss(params, None)
    groups = graph.groups
    if name in ("adamh", "muonh"):
        groups = psi_optax.joint_groups(groups)
    before, after = (
        jax.tree.leaves(psi_optax.group_norms(x, groups)) for x in (params, new)
    )
    # Roundings of float32.
    np.testing.assert_allclose(before, after, rtol=3e-7)
    assert jnp.abs(new["head"] - params["head"]).max() > 1e-4


def test_psi_sgd_begins_to_rotate_as_sgd_does(graph):
    """By the mean over groups that the conversion keeps."""
    params = graph.init(jax.random.key(0))
    schedule = partial(optax.cosine_decay_schedule, decay_steps=100)
    angles = {}
    for name in ("sgd", "psi_sgd"):
        tx = METHODS[name].make(params, graph.groups, schedule)
        gradients = jax.grad(graph.loss)(params, None)
        updates, _ = tx.update(gradients, tx.init(params), params)
        new = optax.apply_updates(params, updates)
        angle = psi_optax.rotation(params, new, graph.groups)["hidden"]
        angles[name] = np.tan(angle).ravel()
    means = [np.exp(np.log(x).mean()) for x in angles.values()]
    # The decay of SGD is 1e-2 of a gradient, and radial.
    assert means[1] == pytest.approx(means[0], rel=1e-3)
    # Its groups differ.
    assert np.abs(angles["sgd"] / angles["psi_sgd"] - 1).max() > 0.05


def test_regrets_are_of_choices_by_validation():
    settings = dataclasses.asdict(
        dataclasses.replace(SMALL, factors=(0.5, 1.0))
    )
    parts = {
        # By factor and seed.
        f"{GRAPH}/adamw": {
            "validation": [[0.5, 0.7], [0.9, 0.9]],
            "test": [[0.6, 0.6], [1.0, 1.2]],
            "accuracy": [[0.5, 0.5], [0.25, 0.75]],
        },
        f"{GRAPH}/psi_adam": {
            "validation": [[0.8, None], [0.7, 0.8]],
            "test": [[0.1, None], [0.5, 0.8]],
            "accuracy": [[0.5, 0.5], [0.6, 0.8]],
        },
    }
    found = regrets({"settings": settings, "parts": parts})
    np.testing.assert_allclose(found.default, [[0.5], [0.05]])
    np.testing.assert_allclose(found.tuned, [[0.0], [0.05]], atol=1e-12)
    assert found.chosen.tolist() == [[0.5], [1.0]]
    np.testing.assert_allclose(found.accuracy, [[50.0], [70.0]])


def test_the_default_is_required(tmp_path):
    settings = dataclasses.replace(SMALL, factors=(0.5, 2.0))
    with pytest.raises(InputError, match="--factors lacks 1"):
        MEASUREMENT.measure(settings, Results(tmp_path / "numbers.json", {}))
