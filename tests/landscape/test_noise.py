"""The noise of gradients: Gaussian, in direction space, bad batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax.landscape import gradient_noise
from tests.landscape.network import GROUPS, loss, make_net, rescaled

pytestmark = pytest.mark.usefixtures("x64")


def linear(w, x):
    """Return a loss whose gradient is the mean of the examples."""
    return (x @ w).mean()


def test_gaussian_gradients():
    rng = np.random.RandomState(0)
    mean, deviation = np.array([1.0, -2.0, 0.5]), np.array([3.0, 1.0, 2.0])
    batches = list(mean + deviation * rng.normal(size=(2000, 8, 3)))
    found = gradient_noise(linear, jnp.zeros(3), batches)
    # 16,000 examples: errors of 2 / sqrt(16,000) of each, and a few of them.
    np.testing.assert_allclose(found.square, mean @ mean, rtol=0.05)
    np.testing.assert_allclose(found.variance, deviation @ deviation, rtol=0.05)
    np.testing.assert_allclose(found.scale, found.variance / found.square)
    # The control: the squared norm of batch gradients includes their noise.
    norms = np.mean([np.sum(x.mean(0) ** 2) for x in batches])
    assert norms > 1.2 * found.square


def test_the_formulas(x64):
    rng = np.random.RandomState(1)
    batches = rng.normal(size=(4, 5, 3))
    gradients = batches.mean(1)
    small = (gradients**2).sum(1).mean()
    large = (gradients.mean(0) ** 2).sum()
    found = gradient_noise(linear, jnp.zeros(3), list(batches))
    np.testing.assert_allclose(found.square, (20 * large - 5 * small) / 15)
    np.testing.assert_allclose(
        found.variance, (small - large) / (1 / 5 - 1 / 20)
    )


def test_it_ignores_the_scale_of_groups():
    params, (x, y) = make_net()
    batches = [(x[i::4], y[i::4]) for i in range(4)]
    other = rescaled(params, np.exp(np.arange(-3.0, 3.0))[None], 1e-3)
    found, same = (
        gradient_noise(loss, p, batches, groups=GROUPS) for p in (params, other)
    )
    # Differences of squared norms of 1 to 10 times their size.
    np.testing.assert_allclose(found, same, rtol=1e-12)
    raw, changed = (
        gradient_noise(loss, p, iter(batches)) for p in (params, other)
    )
    assert changed.variance > 10 * raw.variance


def test_a_square_that_is_not_positive_is_returned_with_an_infinite_scale():
    batches = [jnp.array([[1.0]]), jnp.array([[-1.0]])]
    found = gradient_noise(linear, jnp.zeros(1), batches)
    assert found.square == -1
    assert found.variance == 2
    assert found.scale == jnp.inf
    spoiled = gradient_noise(linear, jnp.zeros(1), [jnp.nan * batches[0]] * 2)
    assert jnp.isnan(spoiled.scale)


def test_it_can_be_traced():
    batches = jnp.arange(12.0).reshape(3, 4, 1)

    def noise(w, batches):
        return gradient_noise(linear, w, list(batches))

    arguments = jnp.zeros(1), batches
    np.testing.assert_allclose(jax.jit(noise)(*arguments), noise(*arguments))


@pytest.mark.parametrize("lengths", [[], [3], [3, 2]])
def test_batches_must_be_several_of_one_size(lengths):
    batches = [jnp.ones((n, 2)) for n in lengths]
    with pytest.raises(ValueError, match="batches"):
        gradient_noise(linear, jnp.zeros(2), batches)
