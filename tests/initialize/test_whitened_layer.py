"""whitened_layer: the same function, with whitened inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax.initialize import whitened_layer
from tests.initialize.networks import draw

pytestmark = pytest.mark.usefixtures("x64")


def inputs():
    return draw(500, 7) @ draw(7, 7, seed=1) + 1


def layer():
    return draw(7, 4, seed=2), draw(4, seed=3)


def sums(x, kernel, bias):
    return x @ kernel + bias.reshape(1, -1)


def white(x, found):
    return (x - found.mean.reshape(1, -1)) @ found.whitening


def covariance(x):
    return np.cov(np.asarray(x).T, bias=True)


@pytest.mark.parametrize("kind", ["zca", "pca"])
def test_the_function_is_kept_and_inputs_are_white(kind):
    x, (kernel, bias) = inputs(), layer()
    found = whitened_layer(kernel, bias, x, kind=kind)
    y = white(x, found)
    # The condition of the covariance, below 1e4, times eps.
    np.testing.assert_allclose(
        sums(y, found.kernel, found.bias),
        sums(x, kernel, bias),
        rtol=0,
        atol=1e-12,
    )
    np.testing.assert_allclose(covariance(y), np.eye(7), rtol=0, atol=1e-12)
    assert np.linalg.cond(covariance(x)) > 100
    is_symmetric = np.abs(found.whitening - found.whitening.T).max() < 1e-12
    assert is_symmetric == (kind == "zca")
    # Back to the layer without whitening.
    back = found.whitening @ found.kernel
    np.testing.assert_allclose(back, kernel, rtol=0, atol=1e-12)
    shift = found.bias - found.mean @ back
    np.testing.assert_allclose(shift, bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.5])
def test_a_step_on_it_is_a_natural_step(epsilon):
    x, (kernel, bias) = inputs(), layer()
    found = whitened_layer(kernel, bias, x, epsilon=epsilon)

    def loss(y, kernel, bias):
        return jnp.sum(jnp.sin(sums(y, kernel, bias)))

    g = jax.grad(loss, argnums=1)(white(x, found), found.kernel, found.bias)
    moved = found.whitening @ (found.kernel - 1e-3 * g)
    # The gradient by W with the inputs centred, as the layer has them.
    shifted = bias + found.mean @ kernel
    g = jax.grad(loss, argnums=1)(
        x - found.mean.reshape(1, -1), kernel, shifted
    )
    damped = covariance(x) + epsilon * np.eye(7)
    expected = kernel - 1e-3 * jnp.linalg.solve(damped, g)
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-11)
    assert np.abs(moved - (kernel - 1e-3 * g)).max() > 1e-3


def test_images_of_features_and_a_layer_without_a_bias():
    x, (kernel, _) = inputs(), layer()
    found = whitened_layer(kernel, None, x)
    folded = whitened_layer(kernel, jnp.zeros(4), x.reshape(5, 10, 10, 7))
    jax.tree.map(np.testing.assert_array_equal, found, folded)
    kernel, x = kernel.astype(jnp.float32), x.astype(jnp.float32)
    assert whitened_layer(kernel, None, x).kernel.dtype == jnp.float32
    compiled = jax.jit(lambda k, x: whitened_layer(k, None, x))(kernel, x)
    np.testing.assert_allclose(compiled.mean, found.mean, rtol=1e-5)


def test_errors():
    x, (kernel, bias) = inputs(), layer()
    with pytest.raises(ValueError, match="7 inputs of 7 features"):
        whitened_layer(kernel, bias, x[:7])
    whitened_layer(kernel, bias, x[:7], epsilon=1e-3)
    whitened_layer(kernel, bias, x[:8])
    flat = x.at[:, 2].set(x[:, 1])
    with pytest.raises(ValueError, match="1 of 7 directions"):
        whitened_layer(kernel, bias, flat)
    whitened_layer(kernel, bias, flat, epsilon=1e-3)
    for given in ((kernel, bias, x[:, :6]), (kernel, bias[:3], x)):
        with pytest.raises(ValueError, match=r"kernel of shape \(7, 4\)"):
            whitened_layer(*given)
    with pytest.raises(ValueError, match="kernel of shape"):
        whitened_layer(kernel[0], bias, x)
    with pytest.raises(ValueError, match="kind"):
        whitened_layer(kernel, bias, x, kind="cholesky")
    with pytest.raises(ValueError, match="epsilon"):
        whitened_layer(kernel, bias, x, epsilon=-1.0)
