"""Divisive normalization, exchange of moments, moments of activations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from psi_optax import ScaleGroup, find_groups
from psi_optax.models.functions import (
    divisive_normalization,
    gaussian_moments,
    mixed_labels_loss,
    moment_exchange,
)
from psi_optax.reparametrize import unit
from tests.models.normed import batch_norm, draw, images, loss_of, start

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")

WHOLE = ScaleGroup((0, 1, 2, 3))
# Means over 144 numbers of about one, and some roundings more.
CLOSE = {"rtol": 0, "atol": 5e-15}


def group_of_kernel(norm, x=None):
    found = find_groups(
        loss_of(norm), start(), images() if x is None else x, method="analysis"
    )
    return found["kernel"].kind, found["kernel"].group


# Divisive normalization.


def test_whole_windows_are_layer_normalization():
    x = images()
    layer = nn.LayerNorm(
        epsilon=0.49,
        use_bias=False,
        use_scale=False,
        reduction_axes=(1, 2, 3),
        use_fast_variance=False,
        param_dtype=x.dtype,
    )
    found = divisive_normalization(x, sigma=0.7)
    np.testing.assert_allclose(found, layer.apply({}, x), **CLOSE)
    # Windows of 13 around any of 6 positions have all of them.
    large = divisive_normalization(x, 13, 13, 0.7)
    np.testing.assert_allclose(large, found, **CLOSE)
    small = divisive_normalization(x, 3, 5, 0.7)
    assert np.abs(small - found).max() > 0.1


def test_the_mean_of_a_window_is_of_its_positions():
    ones = jnp.ones((1, 6, 6, 3))
    np.testing.assert_allclose(
        divisive_normalization(ones, 3, 3), 0, rtol=0, atol=1e-15
    )
    x = np.asarray(images())
    v = x[0, :2, :2] - x[0, :2, :2].mean()
    found = divisive_normalization(images(), 3, 1, 0.5)[0, 0, 0]
    expected = v[0, 0] / np.sqrt(0.25 + (v[0, 0] ** 2).mean())
    np.testing.assert_allclose(found, expected, **CLOSE)
    # Divided by 9 in the corner, the mean would be 4/9 of it.
    wrong = x[0, 0, 0] - x[0, :2, :2].sum(axis=(0, 1)).mean() / 9
    assert np.abs(wrong - v[0, 0]).max() > 0.1


def test_a_large_sigma_is_linear_and_features_need_no_positions():
    x = images()
    linear = divisive_normalization(x, 3, 5, 1e6) * 1e6
    rest = divisive_normalization(x, 3, 5, 1e3) * 1e3
    # Up to the mean square over twice that of sigma.
    np.testing.assert_allclose(linear, rest, rtol=1e-5)
    rows = draw(5, 7)
    found = divisive_normalization(rows, sigma=0.0)
    np.testing.assert_allclose(jnp.std(found, axis=1), 1, **CLOSE)


def test_the_kernel_before_it_is_a_group_without_sigma():
    def norm(sigma):
        return lambda h: divisive_normalization(h, 3, 5, sigma)

    assert group_of_kernel(norm(0.0)) == ("proved", WHOLE)
    assert group_of_kernel(norm(1.0)) == ("ordinary", None)
    assert group_of_kernel(norm(jnp.ones(()))) == ("ordinary", None)


def test_errors_of_divisive_normalization():
    x = images()
    for window in (2, 0, -1):
        with pytest.raises(ValueError, match=f"sum_window={window}: pass an"):
            divisive_normalization(x, window)
        with pytest.raises(ValueError, match="suppression_window"):
            divisive_normalization(x, None, window)
    with pytest.raises(ValueError, match="sigma=-1"):
        divisive_normalization(x, sigma=-1)
    with pytest.raises(ValueError, match="shape"):
        divisive_normalization(x[0, 0, 0])


# Exchange of moments.

ORDER = jnp.array([3, 1, 0, 2, 5, 4, 7, 6])


@pytest.mark.parametrize("axes", [-1, (1, 2), (1, 2, 3)])
def test_moments_are_those_of_the_partner(axes):
    x = images()
    same = moment_exchange(x, jnp.arange(8), axes)
    np.testing.assert_allclose(same, x, **CLOSE)
    found = moment_exchange(x, ORDER, axes, epsilon=0.0)
    mean, deviation = x.mean(axes)[ORDER], x.std(axes)[ORDER]
    np.testing.assert_allclose(found.mean(axes), mean, **CLOSE)
    np.testing.assert_allclose(found.std(axes), deviation, **CLOSE)
    assert np.abs(found - x).max() > 0.1
    np.testing.assert_allclose(found[1], x[1], **CLOSE)


def test_features_that_do_not_vary():
    def total(x, epsilon=1e-5):
        return jnp.sum(moment_exchange(x, jnp.array([1, 0]), epsilon=epsilon))

    x = jnp.array([[2.0, 2.0], [1.0, 5.0]])
    found = moment_exchange(x, jnp.array([1, 0]))
    np.testing.assert_allclose(found[0], [3.0, 3.0], **CLOSE)
    # The deviation of the partner is the root of the epsilon: 2 * 0.0032 / 2.
    np.testing.assert_allclose(found[1], [2.0, 2.0], rtol=0, atol=4e-3)
    for features in (x, jnp.zeros((2, 3))):
        assert jnp.isfinite(jax.grad(total)(features)).all()
        assert jnp.isnan(total(features, 0.0))


def test_the_loss_of_mixed_labels():
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    logits, labels = draw(8, 3), jnp.arange(8) % 3
    own = cross_entropy(logits, labels)
    other = cross_entropy(logits, labels[ORDER])

    def mixed(weight):
        return mixed_labels_loss(cross_entropy, logits, labels, ORDER, weight)

    np.testing.assert_allclose(mixed(0.7), 0.7 * own + 0.3 * other, **CLOSE)
    np.testing.assert_array_equal(mixed(1.0), own)
    np.testing.assert_array_equal(mixed(0.0), other)
    assert np.abs(own - other).max() > 0.1
    # Cross entropy is linear in labels: the loss is that of mixed ones.
    one_hot = jax.nn.one_hot(labels, 3, dtype=logits.dtype)
    soft = 0.7 * one_hot + 0.3 * one_hot[ORDER]
    expected = optax.softmax_cross_entropy(logits, soft)
    np.testing.assert_allclose(mixed(0.7), expected, **CLOSE)


def test_a_kernel_before_an_exchange_and_batch_normalization():
    """Moments of positions mix channels, so that the kernel is one group."""

    def exchange(h, epsilon=0.0):
        return moment_exchange(h, ORDER, epsilon=epsilon)

    found = group_of_kernel(lambda h: batch_norm(exchange(h)))
    assert found == ("proved", WHOLE)
    found = group_of_kernel(lambda h: batch_norm(exchange(h, 1e-5)))
    assert found == ("proved up to epsilon", WHOLE)
    # Without the second normalization the moments have the scale of the kernel.
    assert group_of_kernel(exchange)[1] is None


def test_orders_that_are_no_permutations():
    x = draw(3, 2)
    for order in ([0, 1], [0, 1, 1], [1, 2, 3]):
        with pytest.raises(ValueError, match="permutation of the 3 examples"):
            moment_exchange(x, jnp.array(order))
        with pytest.raises(ValueError, match="permutation"):
            mixed_labels_loss(jnp.add, x, x, jnp.array(order))
    with pytest.raises(ValueError, match="batch"):
        moment_exchange(x, jnp.arange(3), axes=(0, 1))
    jax.jit(moment_exchange)(x, jnp.arange(3))


# Moments of activations.


def test_moments_of_a_gaussian_are_known():
    mean, variance = gaussian_moments(jax.nn.relu)
    exact = 1 / np.sqrt(2 * np.pi), (1 - 1 / np.pi) / 2
    np.testing.assert_allclose((mean, variance), exact, rtol=0, atol=5e-15)
    # Across the kink the quadrature is off, as Gauss-Hermite is.
    smooth = gaussian_moments(jax.nn.relu, kinks=(0.3,))
    assert np.abs(np.subtract(smooth, exact)).max() > 1e-5
    assert gaussian_moments(jnp.exp)[0] == pytest.approx(np.exp(0.5), abs=1e-14)
    steps = gaussian_moments(
        lambda z: jnp.floor(jnp.clip(z, -1, 1)), (-1, 0, 1)
    )
    # Minus one below zero, zero above: the point at 1 has no weight.
    tail = (1 - np.sqrt(0.4660649426)) / 2
    assert abs(steps[0] - (-0.5 + tail)) < 1e-6


def test_moments_under_jit_and_of_other_functions():
    outside = gaussian_moments(jnp.tanh)
    inside = jax.jit(lambda: jnp.array(gaussian_moments(jnp.tanh)))()
    np.testing.assert_array_equal(inside, outside)
    assert abs(outside[0]) < 1e-16
    for function in (jnp.sum, jnp.log, lambda z: 1 / (z * 0)):
        with pytest.raises(ValueError, match="elementwise"):
            gaussian_moments(function)


def test_normalization_propagation_keeps_the_variance():
    mean, variance = gaussian_moments(jax.nn.relu)
    columns = ScaleGroup(0)

    def deviations(mean, variance):
        x = draw(4000, 40)
        for seed in range(1, 7):
            w = unit(draw(40, 40, seed=seed), columns)
            x = (jax.nn.relu(x @ w) - mean) / np.sqrt(variance)
        return float(x.var(axis=0).mean())

    # The coherence of the weights, which the formula omits, is 1/sqrt(40).
    assert 0.8 < deviations(mean, variance) < 1.3
    assert deviations(0.0, 1.0) < 0.01


def test_weights_of_normalization_propagation_are_groups():
    def loss(params, x):
        y = jax.nn.relu(x @ unit(params, ScaleGroup(0)))
        return jnp.mean((y - 0.4) ** 2)

    found = find_groups(loss, draw(6, 5), draw(9, 6), method="analysis")
    assert (found[""].kind, found[""].group) == ("proved", ScaleGroup(0))
