"""Smoothness: rescaled copies, the covariate shift and the probes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

pytest.importorskip("sklearn")

from benchmarks import data
from benchmarks.experiments.dense import (
    EXACT,
    DenseNetwork,
    columns,
    listed,
    rescale,
    training_loss,
)
from benchmarks.experiments.noisy_data import first
from benchmarks.experiments.smoothness import MEASUREMENT
from benchmarks.experiments.smoothness.experiment import Runs
from benchmarks.experiments.smoothness.report import faults, rescaling
from benchmarks.experiments.smoothness.shift import covariate_shift

pytestmark = pytest.mark.usefixtures("optax_promotion")

DIGITS = first(data.load("digits"), 64)
BATCH = DIGITS.train_images, DIGITS.train_labels


def network(normalized, activation=jnp.tanh):
    model = DenseNetwork(
        (6, 6), normalized=normalized, activation=activation, **EXACT
    )
    start = model.init(jax.random.key(1), BATCH[0][:2], train=False)
    return training_loss(model), start["params"]


def total(tree):
    return sum(float(abs(x).sum()) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("normalized", "activation", "same"),
    [
        (True, jnp.tanh, True),
        (False, nn.relu, True),
        # The control: tanh is not homogeneous.
        (False, jnp.tanh, False),
    ],
)
def test_rescaled_copies_are_the_same_function(normalized, activation, same):
    loss, params = network(normalized, activation)
    other = rescale(params, normalized, power=3)
    assert total(other) > 1.1 * total(params)
    assert (loss(params, *BATCH) == loss(other, *BATCH)) == same


def test_non_finite_numbers_are_none():
    values = listed(jnp.array([[1.23456, jnp.inf]]), 3)
    assert values == [[1.23, None]]


@pytest.fixture(scope="module")
def moved():
    loss, params = network(True)
    gradient = jax.grad(loss)(params, *BATCH)
    after = jax.tree.map(lambda w, g: w - 0.5 * g, params, gradient)
    return lambda p: loss(p, *BATCH), params, after


def test_a_shift_is_that_of_the_earlier_layers(moved):
    loss, params, after = moved
    found = covariate_shift(loss, params, after, None)
    before = jax.grad(loss)(params)
    early = ("hidden_0", "norm_0")
    other = jax.grad(loss)({**params, **{name: after[name] for name in early}})
    x, y = (np.ravel(g["hidden_1"]["kernel"]) for g in (before, other))
    expected = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    # float32 sums of 36 products, in another program.
    np.testing.assert_allclose(found.cosine[1], expected, rtol=1e-5)
    change = np.linalg.norm(x - y) / np.linalg.norm(x)
    np.testing.assert_allclose(found.change[1], change, rtol=1e-4)
    # Nothing is before the first layer. The others do shift.
    assert found.change[0] == 0
    assert np.all(found.change[1:] > 0.01)


def test_no_later_layer_shifts_a_gradient(moved):
    loss, params, after = moved
    last = {**params, "head": after["head"]}
    assert np.all(covariate_shift(loss, params, last, None).change == 0)
    early = {**params, "norm_0": after["norm_0"]}
    assert np.all(covariate_shift(loss, params, early, None).change[1:] > 0)


def test_shifts_by_directions_ignore_the_scale_of_filters(moved):
    loss, params, after = moved
    groups = columns(params)
    copies = [rescale(x, True, 3) for x in (params, after)]
    found, other = (
        covariate_shift(loss, *x, groups).cosine
        for x in ((params, after), copies)
    )
    np.testing.assert_array_equal(found, other)
    raw, changed = (
        covariate_shift(loss, *x, None).cosine
        for x in ((params, after), copies)
    )
    assert np.abs(raw - changed).max() > 1e-3


def test_probes_by_directions_ignore_the_scale_of_filters():
    runs = Runs(MEASUREMENT.smoke, DIGITS._replace(**_twice()), True)
    params = jax.tree.map(lambda x: x[0], runs.params)
    batch = runs.batches[0, 0]
    views, _ = jax.jit(runs.look)(params, batch, runs.data, 0.1)
    same, other = views["directions"], views["directions, rescaled"]
    # Powers of two: the same but for the rounding of sums in other programs.
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), same, other
    )
    raw, changed = views["weights"], views["weights, rescaled"]
    assert changed["smoothness"] > 2 * raw["smoothness"]


def _twice():
    """Return as many images as a batch of the smoke run has."""
    images, labels = BATCH
    return {
        "train_images": np.concatenate([images, images[::-1]]),
        "train_labels": np.concatenate([labels, labels[::-1]]),
    }


def test_a_dependence_on_scale_is_a_fault():
    view = {
        name: {"curve": [1.0], "means": [2.0]}
        for name in ("range", "change", "smoothness")
    }
    twice = {**view, "change": {"curve": [1.0], "means": [4.0]}}
    views = {
        "weights": view,
        "weights, rescaled": twice,
        "directions": view,
        "directions, rescaled": view,
    }
    part = {"views": views}
    assert (rescaling(part, "weights"), rescaling(part, "directions")) == (2, 1)
    assert not faults({"parts": {"run": part}})
    views["directions, rescaled"] = twice
    assert len(faults({"parts": {"run": part}})) == 1
