"""Training for several seeds, the table of optimizers, and rescaling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import data, training
from benchmarks.experiments.rescaling.experiment import scale_filters
from benchmarks.experiments.tuning import tune
from benchmarks.optimizers import DEFAULT, OPTIMIZERS, TUNED, Tuned
from psi_optax.models import linen

pytest.importorskip("sklearn")
pytestmark = pytest.mark.usefixtures("optax_promotion")

MODEL = linen.MLP(widths=(8,), momentum=0.9)


@pytest.fixture(scope="module")
def digits():
    return data.hold_out(data.load("digits"), fraction=0.5)


def groups_of(dataset):
    return training.kernel_groups(MODEL, dataset.train_images)


def test_every_method_has_as_many_trials():
    assert {len(method.trials()) for method in TUNED.values()} == {12}
    assert len({method.label for method in TUNED.values()}) == len(TUNED)
    assert set(DEFAULT) <= set(TUNED)
    for method in TUNED.values():
        for grid in (method.rates, method.decays):
            assert list(grid) == sorted(set(grid))


def test_every_optimizer_moves_and_takes_a_decay(digits):
    groups = groups_of(digits).groups
    params = training.initialize(MODEL, digits.train_images, range(1))["params"]
    params = jax.tree.map(lambda leaf: leaf[0] + 1.0, params)
    for optimizer in OPTIMIZERS.values():
        for options in ({}, {"decay": 0.1, "momentum": 0.5}):
            tx = optimizer.make(0.1, groups, **options)
            gradients = jax.tree.map(jnp.sin, params)
            updates, _ = tx.update(gradients, tx.init(params), params)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(updates))
            assert np.any(updates["hidden_0"]["kernel"])


def test_filters_and_nothing_else_are_scaled(digits):
    images = digits.train_images
    before = training.initialize(MODEL, images, range(3))
    after = scale_filters(before, groups_of(digits).groups, 0.25)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    np.testing.assert_array_equal(
        after["params"]["hidden_0"]["kernel"],
        0.25 * before["params"]["hidden_0"]["kernel"],
    )
    after["params"]["hidden_0"] = before["params"]["hidden_0"]
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_batches_are_permutations_that_differ_between_seeds():
    batches = training.make_batches(10, batch_size=3, epochs=2, seeds=range(2))
    assert batches.shape == (2, 6, 3)
    for seed in batches:
        for epoch in (seed[:3], seed[3:]):
            assert len(set(epoch.ravel().tolist())) == 9
            assert set(epoch.ravel().tolist()) <= set(range(10))
    assert not np.array_equal(batches[0], batches[1])
    with pytest.raises(ValueError, match="batch of 11"):
        training.make_batches(10, batch_size=11, epochs=1, seeds=range(1))


def test_seeds_train_as_if_each_were_alone(digits):
    seeds = range(2, 5)
    batches = training.make_batches(len(digits.train_labels), 32, 2, seeds)
    train = training.make_train(MODEL, TUNED["psi_sgd"].build, digits)
    evaluate = training.make_evaluate(MODEL, digits)
    images = digits.train_images
    together = training.initialize(MODEL, images, seeds)
    accuracies, losses = evaluate(train(together, batches, 0.1, 0.0))
    assert accuracies.shape == losses.shape == (3,)
    assert accuracies.min() > 0.5
    alone = training.initialize(MODEL, images, range(3, 4))
    accuracy, loss = evaluate(train(alone, batches[1:2], 0.1, 0.0))
    np.testing.assert_allclose(loss[0], losses[1], rtol=1e-3)
    np.testing.assert_allclose(accuracy[0], accuracies[1], atol=0.01)


def test_rates_and_decays_do_not_compile_again(digits):
    batches = training.make_batches(len(digits.train_labels), 64, 1, range(1))
    traces = []

    def build(**options):
        traces.append(options)
        return TUNED["adamw"].build(**options)

    train = training.make_train(MODEL, build, digits)
    results = []
    for rate, decay in ((0.0, 0.1), (0.01, 0.0), (0.01, 40.0)):
        start = training.initialize(MODEL, digits.train_images, range(1))
        results.append(train(start, batches, rate, decay)["params"])
    assert len(traces) == 1
    start = training.initialize(MODEL, digits.train_images, range(1))["params"]
    jax.tree.map(np.testing.assert_array_equal, results[0], start)
    sizes = [np.abs(x["head"]["kernel"]).sum() for x in results]
    assert sizes[2] < 0.5 * sizes[1]


@pytest.mark.parametrize("name", ["sgd_renormalize", "sgd_unit"])
def test_renormalization_is_the_one_written_by_hand(name, digits):
    params = training.initialize(MODEL, digits.train_images, range(1))["params"]
    params = jax.tree.map(lambda leaf: leaf[0], params)
    noise = np.random.RandomState(0)
    gradients = jax.tree.map(
        lambda x: jnp.asarray(noise.normal(size=x.shape), x.dtype), params
    )
    optimizer = TUNED[name].build(rate=0.1, decay=0.0, groups=groups_of(digits))
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    w = np.asarray(params["hidden_0"]["kernel"])
    moved = w - 0.1 * np.asarray(gradients["hidden_0"]["kernel"])
    norm = np.linalg.norm(w, axis=0) if name == "sgd_renormalize" else 1.0
    np.testing.assert_allclose(
        w + updates["hidden_0"]["kernel"],
        moved / np.linalg.norm(moved, axis=0, keepdims=True) * norm,
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        updates["head"]["kernel"], -0.1 * gradients["head"]["kernel"], rtol=1e-6
    )


def test_decays_act_where_they_should(digits):
    params = training.initialize(MODEL, digits.train_images, range(1))["params"]
    params = jax.tree.map(lambda leaf: leaf[0] + 1.0, params)
    zeros = jax.tree.map(jnp.zeros_like, params)

    def decayed(name):
        optimizer = TUNED[name].build(
            rate=0.1, decay=0.01, groups=groups_of(digits)
        )
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        return {
            f"{layer}/{leaf}"
            for layer, leaves in updates.items()
            for leaf, update in leaves.items()
            if np.any(update)
        }

    kernels = {"hidden_0/kernel", "head/kernel"}
    rest = {"head/kernel", "head/bias", "norm_0/scale", "norm_0/bias"}
    assert decayed("sgd") == decayed("psi_sgd") == set()
    assert decayed("sgd_decay") == decayed("adamw") == kernels
    assert decayed("psi_sgd_decay") == {"head/kernel"}
    assert decayed("psi_adam_decay") == rest


def test_tuning_takes_the_best_and_breaks_ties_by_loss():
    found = {0.1: (0.9, 2.0), 0.2: (0.9, 1.0), 0.3: (0.9, np.nan), 0.4: (0, 0)}
    method = Tuned("example", lambda: None, tuple(found))
    seen = []
    result = tune(method, lambda rate, _: found[rate], lambda: seen.append(0))
    assert result["chosen"]["learning_rate"] == 0.2
    assert result["at_edge"] == []
    assert [trial["loss"] for trial in result["trials"]] == [2.0, 1.0, None, 0]
    assert len(seen) == 4


def test_psi_is_indifferent_to_the_scale_and_sgd_is_not(digits):
    """The claim in small: the mean loss that is reached, at two scales."""
    seeds = range(3)
    batches = training.make_batches(len(digits.train_labels), 32, 3, seeds)
    evaluate = training.make_evaluate(MODEL, digits)
    groups = groups_of(digits).groups

    def loss(train, scale):
        start = training.initialize(MODEL, digits.train_images, seeds)
        start = scale_filters(start, groups, scale)
        return float(evaluate(train(start, batches, 0.2, 0.0))[1].mean())

    def ratio(name):
        train = training.make_train(MODEL, TUNED[name].build, digits)
        return loss(train, 64.0) / loss(train, 1.0)

    assert abs(ratio("psi_sgd") - 1) < 0.1
    assert ratio("sgd") > 1.5
