"""A perceptron of badly scaled layers, with and without normalization."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

WIDTHS = (12, 16, 16, 16, 5)
SCALES = (0.2, 4.0, 0.3, 3.0)
COUNT = 256


def draw(*shape, seed=0):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape))


def start():
    """Return kernels k0 to k3 and biases b0 to b3."""
    params = {}
    for i, scale in enumerate(SCALES):
        kernel = draw(WIDTHS[i], WIDTHS[i + 1], seed=i)
        params[f"k{i}"] = scale * kernel * np.sqrt(2 / WIDTHS[i])
        params[f"b{i}"] = 0.3 * draw(WIDTHS[i + 1], seed=20 + i)
    return params


def data():
    x = draw(COUNT, WIDTHS[0], seed=10)
    return x, jnp.argmax(x @ draw(WIDTHS[0], 5, seed=11), axis=1)


def preactivations(params, x, norm=lambda x: x):
    """Return the outputs of all layers by the path of their kernel."""
    found = {}
    for i in range(len(SCALES)):
        bias = params[f"b{i}"].reshape(1, -1)
        found[f"k{i}"] = x @ params[f"k{i}"] + bias
        x = jax.nn.relu(norm(found[f"k{i}"]))
    return found


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(
        logits, labels
    ).mean()


def loss(params, x, labels):
    return cross_entropy(preactivations(params, x)["k3"], labels)


def batch_norm(x):
    x = x - x.mean(axis=0, keepdims=True)
    return x / jnp.sqrt(jnp.mean(x * x, axis=0, keepdims=True))


def normalized_loss(params, x, labels):
    outputs = preactivations(params, x, batch_norm)
    return cross_entropy(outputs["k3"], labels)
