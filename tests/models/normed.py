"""A convolution before a normalization, with a loss of its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

CHANNELS = 8


def draw(*shape, seed=0):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape))


def images():
    return draw(8, 6, 6, 4) + 0.5


def start():
    return {
        "kernel": draw(3, 3, 4, CHANNELS, seed=1) / 6,
        "head": draw(CHANNELS, 3, seed=2),
    }


def convolved(kernel, x):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def loss_of(norm):
    """Return the loss of params with a normalization of the convolution."""

    def loss(params, x):
        y = jax.nn.relu(norm(convolved(params["kernel"], x)))
        logits = y.mean((1, 2)) @ params["head"]
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.arange(len(x)) % 3
        ).mean()

    return loss


def batch_norm(x):
    """Return channels of mean zero and variance one over the batch."""
    axes = tuple(range(x.ndim - 1))
    x = x - x.mean(axes, keepdims=True)
    return x / jnp.sqrt(jnp.mean(x * x, axes, keepdims=True))


def covariance(x):
    """Return the covariance of channels, without that of their means."""
    rows = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    return np.cov(rows.T, bias=True)
