"""Training on digits at the edge of stability, and below it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi_sgd
from psi_optax.landscape import eigenpairs, hessian, stability_threshold

datasets = pytest.importorskip("sklearn.datasets")

GROUPS = {"a": ScaleGroup(0), "b": ScaleGroup(0), "head": None}
EVERY = 100


def digits():
    images, labels = datasets.load_digits(return_X_y=True)
    x = jnp.asarray(images[:200] / 16 - 0.5, jnp.float32)
    return x, jax.nn.one_hot(labels[:200], 10)


def loss(params, x, target):
    def normalized(z):
        z = z - z.mean(0, keepdims=True)
        return z * jax.lax.rsqrt((z * z).mean(0, keepdims=True) + 1e-7)

    z = jnp.tanh(normalized(x @ params["a"]))
    z = jnp.tanh(normalized(z @ params["b"]))
    return 0.5 * jnp.square(z @ params["head"] - target).sum(1).mean()


def train(rate, steps):
    """Return ratios to the threshold, warm and cold, and how often losses rise.

    Warm: four products from the vector of 100 steps before.
    """
    data = digits()
    keys = jax.random.split(jax.random.key(0), 2)
    params = {
        "a": jax.random.normal(keys[0], (64, 24)) / 8,
        "b": jax.random.normal(keys[1], (24, 24)) / 5,
        "head": jnp.zeros((24, 10)),
    }
    tx = psi_sgd(rate, GROUPS)

    def step(carry, _):
        params, state = carry
        found, gradient = jax.value_and_grad(loss)(params, *data)
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), found

    def top(params, start, num_matvecs):
        curvature = hessian(loss, params, *data, groups=GROUPS)
        return eigenpairs(curvature, start, num_matvecs=num_matvecs)

    walk = jax.jit(lambda carry: jax.lax.scan(step, carry, length=EVERY))
    top = jax.jit(top, static_argnums=2)
    carry, pairs, ratios, losses = (params, tx.init(params)), None, [], []
    for _ in range(steps // EVERY):
        carry, found = walk(carry)
        cold = top(carry[0], jax.random.key(1), 32)
        pairs = cold if pairs is None else top(carry[0], pairs, 4)
        ratios.append([pairs.values[0], cold.values[0]])
        losses.append(found)
    ratios = np.array(ratios) / stability_threshold(rate)
    return ratios, np.mean(np.diff(np.concatenate(losses)) > 0)


@pytest.mark.usefixtures("optax_promotion")
def test_the_sharpness_rises_to_the_threshold_and_stays_there():
    ratios, rises = train(0.3, 1500)
    warm, cold = ratios.T
    assert cold[0] < 0.8
    # The loss falls in bursts, which leave the curvature some percent off.
    np.testing.assert_allclose(cold[4:], 1, atol=0.07)
    assert rises > 0.2
    # Four products follow the top eigenvalue.
    error = np.abs(warm / cold - 1)[1:]
    assert np.median(error) < 1e-3
    assert error.max() < 0.05


@pytest.mark.usefixtures("optax_promotion")
def test_far_below_it_no_step_raises_the_loss():
    ratios, rises = train(0.05, 600)
    assert ratios.max() < 0.5
    assert rises == 0
