"""Batch normalization as regularization that tunes itself: closed forms.

A linear neuron behind batch normalization without epsilon, of gain gamma,
fitted to y: with S the covariance of its centred inputs, p their covariance
with y and kappa^2 = p' S^-1 p, descent ends at the effective weights

    u = gamma w / sqrt(w'Sw) = (gamma / kappa) S^-1 p,

the minimum of a ridge regression with the penalty lam/2 u'Su of strength
lam = kappa/gamma - 1, which nobody chose. Noise in the inputs adds to S and
leaves p. Found here by descent on data with `psi_sgd`, to 1e-8.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup, psi_sgd
from tests.theory.training import scan, to_numpy

pytestmark = pytest.mark.usefixtures("x64")

SAMPLES, FEATURES, GAIN = 64, 5, 0.4
RANDOM = np.random.RandomState(0)


def centred(x):
    return x - x.mean(0)


X = centred(RANDOM.normal(size=(SAMPLES, FEATURES)) * np.linspace(0.7, 1.4, 5))
Y = centred(X @ RANDOM.normal(size=FEATURES) + RANDOM.normal(size=SAMPLES))
P = X.T @ Y / SAMPLES


def covariance(noise=0.0):
    """Of the inputs with noise of that deviation, uncorrelated with all."""
    return X.T @ X / SAMPLES + noise**2 * np.eye(FEATURES)


def whitened():
    """Inputs of covariance 1, for the isotropic case."""
    return X @ np.linalg.inv(np.linalg.cholesky(covariance())).T


def descend(x, noise=0.0, *, learned=False, steps=3000):
    """Runs psi_sgd; returns the effective weights and the gain."""
    groups = {"w": ScaleGroup(0), "gain": None}
    tx = psi_sgd(0.3, groups)

    def loss(params):
        z = x @ params["w"]
        # The noise is averaged over: it adds to the variance.
        variance = (z**2).mean() + noise**2 * (params["w"] ** 2).sum()
        gain = params["gain"] if learned else GAIN
        fit = (z * jnp.asarray(Y)).mean() * gain / jnp.sqrt(variance)
        return (Y**2).mean() / 2 - fit + gain**2 / 2

    params = {"w": jnp.full(FEATURES, 3.0), "gain": jnp.asarray(GAIN)}
    slope = jax.grad(loss)
    run = jax.jit(lambda w: scan(tx, lambda w, _: slope(w), w, length=steps)[0])
    params = to_numpy(run(params))
    gain = float(params["gain"])
    spread = x.T @ x / SAMPLES + noise**2 * np.eye(FEATURES)
    w = params["w"]
    return gain * w / np.sqrt(w @ spread @ w), gain


@functools.cache
def fitted(noise=0.0):
    return descend(X, noise)[0]


def strength(noise=0.0, gain=GAIN):
    kappa = np.sqrt(P @ np.linalg.solve(covariance(noise), P))
    return kappa / gain - 1


def test_the_penalty_that_nobody_chose():
    u = fitted()
    s, lam = covariance(), strength()
    expected = np.linalg.solve((1 + lam) * s, P)
    np.testing.assert_allclose(u, expected, atol=1e-8)
    # The constraint of batch normalization.
    np.testing.assert_allclose(u @ s @ u, GAIN**2, rtol=1e-12)
    # The controls: it is a real penalty, and no other one.
    assert lam > 0.5
    for wrong in 0.0, 0.9 * lam:
        other = np.linalg.solve((1 + wrong) * s, P)
        assert np.abs(u - other).max() > 1e-2


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_noise_in_the_inputs(noise):
    u, lam = fitted(noise), strength(noise)
    # (1 + lam) S_signal u + (1 + lam) noise^2 u = p: a ridge of strength
    # (1 + lam) noise^2.
    ridge = (1 + lam) * noise**2 * np.eye(FEATURES)
    expected = np.linalg.solve((1 + lam) * covariance() + ridge, P)
    np.testing.assert_allclose(u, expected, atol=1e-8)
    # The control: without batch normalization the ridge is noise^2.
    other = np.linalg.solve(covariance(noise), P)
    assert np.abs(u - other).max() > 1e-2


def test_more_noise():
    levels = [0.0, 0.5, 1.0, 2.0]
    lam = [strength(noise) for noise in levels]
    signal = [fitted(n) @ covariance() @ fitted(n) for n in levels]
    assert np.all(np.diff(lam) < 0)
    assert np.all(np.diff(signal) < 0)
    # What the gain leaves to signal and noise is always the same.
    for noise, part in zip(levels, signal, strict=True):
        rest = noise**2 * (fitted(noise) ** 2).sum()
        np.testing.assert_allclose(part + rest, GAIN**2, rtol=1e-12)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_strength_is_a_gradient_of_the_gain(noise):
    s = covariance(noise)
    # The direction that descent finds, at any length.
    w = 3 * np.linalg.solve(s, P)

    def loss(gain):
        return gain**2 / 2 - gain * (w @ P) / jnp.sqrt(w @ s @ w)

    found = -jax.grad(loss)(GAIN) / GAIN
    np.testing.assert_allclose(found, strength(noise), rtol=1e-12)
    # The control: at a learned gain there is none.
    learned = np.sqrt(P @ np.linalg.solve(s, P))
    np.testing.assert_allclose(jax.grad(loss)(learned), 0, atol=1e-12)


def test_isotropic_inputs():
    x, noise = whitened(), 0.7
    u, _ = descend(x, noise)
    p = x.T @ Y / SAMPLES
    lam = np.linalg.norm(p) / (GAIN * np.sqrt(1 + noise**2)) - 1
    expected = p / ((1 + lam) * (1 + noise**2))
    np.testing.assert_allclose(u, expected, atol=1e-8)


def test_a_learned_gain_ends_the_penalty():
    u, gain = descend(X, learned=True)
    kappa = np.sqrt(P @ np.linalg.solve(covariance(), P))
    # -w and -gamma make the same neuron.
    np.testing.assert_allclose(abs(gain), kappa, rtol=1e-8)
    np.testing.assert_allclose(u, np.linalg.solve(covariance(), P), atol=1e-8)
    assert kappa > GAIN + 0.1
