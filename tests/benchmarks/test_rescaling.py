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


@pytest.fixture(scope="module")
def groups(digits):
    return training.kernel_groups(MODEL, digits.train_images)


@pytest.fixture(scope="module")
def params(digits):
    """Parameters of norm 1 or more."""
    start = training.initialize(MODEL, digits.train_images, range(1))
    return jax.tree.map(lambda leaf: leaf[0] + 1.0, start["params"])


@pytest.fixture(scope="module")
def gradients(params):
    noise = np.random.RandomState(0)
    return jax.tree.map(
        lambda x: jnp.asarray(noise.normal(size=x.shape), x.dtype), params
    )


def updates_of(name, params, groups, gradients, decay=0.0):
    tx = TUNED[name].build(rate=0.1, decay=decay, groups=groups)
    return tx.update(gradients, tx.init(params), params)[0]


def test_every_method_has_as_many_trials():
    assert {len(method.trials()) for method in TUNED.values()} == {12}
    assert len({method.label for method in TUNED.values()}) == len(TUNED)
    assert set(DEFAULT) <= set(TUNED)
    for method in TUNED.values():
        for grid in (method.rates, method.decays):
            assert list(grid) == sorted(set(grid))


def test_every_optimizer_moves_and_takes_a_decay(params, groups, gradients):
    for optimizer in OPTIMIZERS.values():
        for options in ({}, {"decay": 0.1, "momentum": 0.5}):
            tx = optimizer.make(0.1, groups.groups, **options)
            updates, _ = tx.update(gradients, tx.init(params), params)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(updates))
            assert np.any(updates["hidden_0"]["kernel"])


def test_filters_and_nothing_else_are_scaled(digits, groups):
    before = training.initialize(MODEL, digits.train_images, range(3))
    after = scale_filters(before, groups.groups, 0.25)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    after["params"]["hidden_0"]["kernel"] *= 4
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


KERNELS, HEAD = {"hidden_0/kernel", "head/kernel"}, {"head/kernel"}
REST = {"head/kernel", "head/bias", "norm_0/scale", "norm_0/bias"}


@pytest.mark.parametrize(
    ("name", "decayed", "keeps_norms"),
    [
        ("sgd", set(), False),
        ("sgd_decay", KERNELS, False),
        ("adamw", KERNELS, False),
        ("adamp", KERNELS, False),
        ("rotational", HEAD, True),
        ("sgd_g", set(), True),
        # It goes to norm 1 at once.
        ("weight_rescaling", {"hidden_0/kernel"}, False),
        ("psi_sgd", set(), True),
        ("psi_sgdm", set(), True),
        ("psi_sgd_decay", HEAD, True),
        ("psi_adam_decay", REST, True),
    ],
)
def test_what_decays_and_what_keeps_norms(
    params, groups, gradients, name, decayed, keeps_norms
):
    zeros = jax.tree.map(jnp.zeros_like, params)
    moved = {
        f"{layer}/{leaf}"
        for layer, leaves in updates_of(
            name, params, groups, zeros, decay=0.01
        ).items()
        for leaf, update in leaves.items()
        if np.any(update)
    }
    assert moved == decayed
    updates = updates_of(name, params, groups, gradients, decay=0.01)
    kernel, update = (
        np.asarray(x["hidden_0"]["kernel"], float) for x in (params, updates)
    )
    before, after = (
        np.linalg.norm(x, axis=0) for x in (kernel, kernel + update)
    )
    # float32 sums of 64 squares, rounded once more in the update.
    assert (np.abs(after / before - 1).max() < 1e-6) == keeps_norms


def test_sgd_g_has_a_twentieth_of_the_rate_elsewhere(params, groups):
    gradients = jax.tree.map(jnp.ones_like, params)
    bias = updates_of("sgd_g", params, groups, gradients)["head"]["bias"]
    # Nesterov's first step is 1 + 0.9 gradients; float32 rounds to 6e-8.
    np.testing.assert_allclose(bias, -0.1 / 20 * 1.9, rtol=1e-6)


def test_tuning_takes_the_best_and_breaks_ties_by_loss():
    found = {0.1: (0.9, 2.0), 0.2: (0.9, 1.0), 0.3: (0.9, np.nan), 0.4: (0, 0)}
    method = Tuned("example", lambda: None, tuple(found))
    seen = []
    result = tune(method, lambda rate, _: found[rate], lambda: seen.append(0))
    assert result["chosen"]["learning_rate"] == 0.2
    assert result["at_edge"] == []
    assert [trial["loss"] for trial in result["trials"]] == [2.0, 1.0, None, 0]
    assert len(seen) == 4
