"""`psi_optax.reparametrize` against torch's parametrizations, in float64.

`make oracles` freezes them. Without the file the same formulas are tested in
numpy, by tests/reparametrize.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup
from psi_optax.reparametrize import (
    Reparametrized,
    spectral,
    standardized,
    weight_normalization,
)
from tests.oracles import frozen

pytestmark = pytest.mark.usefixtures("x64")

GROUPS = {"k": ScaleGroup((0, 1, 2))}
# Sums of 27 products of numbers below 10, in another order, and some ten
# operations after them; gradients divide by norms above 3.
CLOSE = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(params=frozen.names("torch_parametrizations"))
def seen(request):
    return frozen.arrays(request.param)


def from_torch(kernel):
    """Return (height, width, in, out) for (out, in, height, width)."""
    return jnp.asarray(np.transpose(kernel, (2, 3, 1, 0)))


def check(ours, theirs):
    np.testing.assert_allclose(ours, from_torch(theirs), **CLOSE)


def test_weight_norm(seen):
    raw = Reparametrized(
        {"k": from_torch(seen["weight"])}, {"k": jnp.asarray(seen["gains"])}
    )
    wn = weight_normalization(GROUPS)
    cotangent = from_torch(seen["cotangent"])
    found = jax.grad(lambda r: jnp.vdot(wn.apply(r)["k"], cotangent))(raw)
    check(wn.apply(raw)["k"], seen["weight_norm"])
    check(found.weights["k"], seen["weight_norm_of_weight"])
    of_gains = seen["weight_norm_of_gains"]
    np.testing.assert_allclose(found.gains["k"], of_gains, **CLOSE)
    assert np.abs(wn.apply(raw)["k"] - raw.weights["k"]).max() > 0.1


def test_four_forms_of_weight_standardization(seen):
    kernel = {"k": from_torch(seen["weight"])}
    cotangent = from_torch(seen["cotangent"])

    def ours(params=kernel, **options):
        return standardized(params, GROUPS, **options)["k"]

    check(ours(ddof=1), seen["standardized"])
    found = jax.grad(lambda p: jnp.vdot(ours(p, ddof=1), cotangent))(kernel)
    check(found["k"], seen["standardized_of_weight"])
    check(ours(epsilon=1e-6), seen["standardized_batch_norm"])
    check(ours(epsilon=1e-6), seen["standardized_layer_norm"])
    check(ours(gain=1.7), seen["standardized_scaled"])
    # The paper's code adds 1e-5 to the deviation, which is seen.
    beside = from_torch(seen["standardized_beside"])
    deviation = kernel["k"].std((0, 1, 2), ddof=1, keepdims=True)
    predicted = ours(ddof=1) * deviation / (deviation + 1e-5)
    np.testing.assert_allclose(predicted, beside, **CLOSE)
    assert 1e-6 < np.abs(beside - ours(ddof=1)).max() < 1e-4


def test_spectral_norm(seen):
    kernel = {"k": from_torch(seen["weight"])}
    check(spectral(kernel, GROUPS, steps=100)["k"], seen["spectral_norm"])
