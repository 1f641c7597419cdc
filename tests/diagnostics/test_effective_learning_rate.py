"""effective_learning_rate, against what a step does to directions."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi_sgd, rotation
from psi_optax.diagnostics import effective_learning_rate

PARAMS = {"k": np.array([[3.0], [0.0]]), "b": np.array([4.0]), "o": np.ones(2)}
GROUPS = {"k": ScaleGroup(0, tie="t"), "b": ScaleGroup((), tie="t"), "o": None}


def test_values():
    # The joint norm is 5.
    for degree, expected in [(-1, 0.5 / 25), (0, 0.1), (1, 0.5)]:
        rates = effective_learning_rate(0.5, PARAMS, GROUPS, degree=degree)
        assert rates["o"] is None
        for path in ["k", "b"]:
            assert rates[path].shape == (1,)
            assert rates[path].dtype == jnp.float32
            # A power and a product, in float32.
            np.testing.assert_allclose(rates[path], expected, rtol=3e-7)


@pytest.mark.usefixtures("x64")
def test_the_same_rate_makes_the_same_step():
    # A gradient of norm 1 in direction space turns by arctan of the rate.
    group = ScaleGroup(0)
    w = jnp.array([3.0, 4.0])
    g = jnp.array([-0.8, 0.6]) / 5
    for tx, degree in [(optax.sgd(0.5), -1), (psi_sgd(0.5, group), 1)]:
        updates, _ = tx.update(g, tx.init(w), w)
        rate = effective_learning_rate(0.5, w, group, degree=degree)
        angle = rotation(w, w + updates, group)
        np.testing.assert_allclose(angle, np.arctan(rate), rtol=1e-14)


def test_no_norm():
    w = jnp.zeros((2, 1))
    for degree, expected in [(-1, np.inf), (0, np.inf), (1, 0.5)]:
        rate = effective_learning_rate(0.5, w, ScaleGroup(0), degree=degree)
        assert rate.tolist() == [expected]


def test_a_schedule_is_not_a_rate():
    schedule = optax.constant_schedule(0.1)
    with pytest.raises(TypeError, match="learning_rate=.*inject_hyperparams"):
        effective_learning_rate(schedule, jnp.ones(2), ScaleGroup(0), degree=-1)
