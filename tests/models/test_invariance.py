"""Scale invariance of MLP and CNN, measured."""

import jax
import numpy as np
import pytest

from psi_optax import ScaleGroup, find_groups

from .twins import (
    CASES,
    apply,
    found,
    linen_loss,
    nnx_loss,
    variables_of,
)

NAMES = ("MLP", "CNN")
# Both frameworks compute the same: see test_agreement.
LOSSES = {"MLP": linen_loss, "CNN": nnx_loss}


def rescale(params, prefix, factors):
    """Multiply the kernels of some layers, channel by channel."""
    return {
        layer: {
            leaf: np.asarray(value) * factors(value.shape[-1])
            if layer.startswith(prefix) and leaf == "kernel"
            else value
            for leaf, value in leaves.items()
        }
        for layer, leaves in params.items()
    }


def powers_of_two(size):
    exponents = np.random.RandomState(2).randint(-10, 11, size)
    return np.ldexp(1.0, exponents).astype(np.float32)


def arbitrary(size):
    return np.linspace(0.1, 30.0, size, dtype=np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_the_training_loss_is_scale_invariant(name):
    params = variables_of(name)["params"]
    loss = jax.jit(LOSSES[name](name, epsilon=0.0))
    before = loss(params)
    assert loss(rescale(params, "hidden", powers_of_two)) == before
    scaled = loss(rescale(params, "hidden", arbitrary))
    np.testing.assert_allclose(scaled, before, rtol=1e-5)
    # The head's scale matters.
    assert abs(loss(rescale(params, "head", powers_of_two)) - before) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_in_evaluation_mode_is_not(name):
    params = variables_of(name)["params"]
    loss = jax.jit(LOSSES[name](name, train=False, epsilon=0.0))
    scaled = rescale(params, "hidden", lambda _: np.float32(2))
    assert abs(loss(scaled) - loss(params)) > 1e-3
    report = find_groups(loss, params, method="analysis")
    assert set(report.groups_for(params).values()) == {None}


def test_the_finder_without_a_method_says_the_same():
    params = variables_of("MLP")["params"]
    report = find_groups(linen_loss("MLP"), params)
    assert report.groups == found("MLP").groups


def test_momentum_is_the_decay_rate_of_the_running_statistics():
    variables = variables_of("MLP")

    @jax.jit
    def variances(variables):
        models = [CASES["MLP"].linen(momentum=m) for m in (0.0, 0.25, 1.0)]
        return [apply(m, variables)[1]["norm_1"]["var"] for m in models]

    batch, decayed, before = variances(variables)
    np.testing.assert_allclose(decayed, 0.25 * before + 0.75 * batch, rtol=1e-6)
    assert np.abs(batch - before).max() > 1e-2


def radial_cosine(w, g, axes):
    """Return the largest |cosine| between weights and gradient in a group."""
    w, g = np.asarray(w, np.float64), np.asarray(g, np.float64)
    dots = np.abs((w * g).sum(axes))
    norms = np.sqrt((w**2).sum(axes) * (g**2).sum(axes))
    # A channel that is dead after the ReLU has no gradient at all.
    return np.max(dots[norms > 0] / norms[norms > 0])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_tangent_to_the_groups_without_epsilon(name):
    params = variables_of(name)["params"]
    losses = [linen_loss(name, epsilon=epsilon) for epsilon in (0.0, 1.0)]
    exact, blurred = jax.jit(
        lambda params: [jax.grad(loss)(params) for loss in losses]
    )(params)
    axes = ScaleGroup(0 if name == "MLP" else (0, 1, 2)).axes

    def cosine(gradients, layer, axes=axes):
        w, g = params[layer]["kernel"], gradients[layer]["kernel"]
        return radial_cosine(w, g, axes)

    for layer in ("hidden_0", "hidden_1"):
        assert cosine(exact, layer) < 1e-4
        assert cosine(blurred, layer) > 1e-2
    assert cosine(exact, "head", axes=0) > 1e-2
