"""Identities of norms, on noisy Rayleigh quotients in double precision."""

import numpy as np
import pytest

from psi_optax.dynamics import norm_after_step, norms_with_momentum
from tests.theory.networks import rayleigh, rayleigh_gradient

pytestmark = pytest.mark.usefixtures("x64")

STEPS, RATE, DECAY = 200, 0.2, 0.3


@pytest.mark.parametrize("degree", [-1, 0, 1])
def test_one_step(degree):
    # The step of degree k is r^k gbar, orthogonal to the weights.
    problem = rayleigh(STEPS)
    w = problem.params
    for matrix in problem.batches[:20]:
        r = np.linalg.norm(w, axis=0)
        gbar = rayleigh_gradient(w / r, matrix)
        w = (1 - RATE * DECAY) * w - RATE * r**degree * gbar
        c = np.linalg.norm(gbar, axis=0)
        after = norm_after_step(r, RATE, c, weight_decay=DECAY, degree=degree)
        # Sums of nine squares.
        np.testing.assert_allclose(after, np.linalg.norm(w, axis=0), rtol=1e-14)
        # The control: the decay counts.
        plain = norm_after_step(r, RATE, c, degree=degree)
        assert np.all(plain > 1.001 * after)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum(momentum):
    problem = rayleigh(STEPS)
    w, m = problem.params, 0.0
    path, buffers = [w], []
    for matrix in problem.batches:
        r = np.linalg.norm(w, axis=0)
        m = momentum * m + rayleigh_gradient(w / r, matrix) / r
        w = w - RATE * m
        path.append(w)
        buffers.append(np.linalg.norm(m, axis=0))
    norms = np.linalg.norm(path, axis=1)
    predicted = norms_with_momentum(norms[0], RATE, np.array(buffers), momentum)
    # 200 sums of positive terms: 200 roundings of 1.1e-16 at most.
    np.testing.assert_allclose(predicted, norms[1:], rtol=1e-13)
    # The control: what the lengths of the steps alone add up to.
    alone = norms_with_momentum(norms[0], RATE, np.array(buffers), 0.0)
    assert np.all((alone[-1] < 0.9 * norms[-1]) == (momentum > 0))
