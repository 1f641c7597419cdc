"""Which weights a gradient reaches: facts about batch normalization.

In double precision; tolerances are some tens of roundings of 1e-16 of numbers
of size 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax.diagnostics import input_patches, split_by_input_span
from tests.theory.networks import standardize
from tests.theory.training import scan

pytestmark = pytest.mark.usefixtures("x64")

# 12 inputs of 20 features, so that 9 features or more are out of reach.
SAMPLES, FEATURES, UNITS = 12, 20, 5
RANDOM = np.random.RandomState(0)
INPUTS = RANDOM.normal(size=(SAMPLES, FEATURES)) + 2.0
LABELS = RANDOM.normal(size=(SAMPLES, UNITS))
KERNEL = RANDOM.normal(size=(FEATURES, UNITS))


def loss(params, epsilon=0.0):
    z = INPUTS @ params["kernel"] + params["bias"][None]
    return ((jax.nn.relu(standardize(z, 0, epsilon)) - LABELS) ** 2).mean()


def without_norm(params):
    z = INPUTS @ params["kernel"] + params["bias"][None]
    return ((jax.nn.relu(z) - LABELS) ** 2).mean()


def start():
    return {"kernel": jnp.asarray(KERNEL), "bias": jnp.full(UNITS, 0.3)}


def gradient(loss=loss, params=None):
    return jax.jit(jax.grad(loss))(start() if params is None else params)


def test_bias_has_no_gradient():
    assert np.abs(gradient()["bias"]).max() < 1e-15
    assert np.abs(gradient(without_norm)["bias"]).max() > 1e-2


def outside(kernel, **kwargs):
    return np.asarray(split_by_input_span(kernel, INPUTS, **kwargs)[1])


def test_gradient_lies_in_the_centred_span():
    g = gradient()["kernel"]
    assert np.abs(g).max() > 1e-2
    assert np.abs(outside(g)).max() < 1e-15
    # The controls: weights do not, nor the gradient without normalization,
    # which needs the mean as well, nor its signs.
    plain = gradient(without_norm)["kernel"]
    assert np.abs(outside(KERNEL)).max() > 0.1
    assert np.abs(outside(plain)).max() > 1e-2
    assert np.abs(outside(plain, centered=False)).max() < 3e-14
    assert np.abs(outside(jnp.sign(g))).max() > 0.1


def test_the_parts():
    inside, rest = split_by_input_span(jnp.asarray(KERNEL), INPUTS)
    np.testing.assert_allclose(inside + rest, KERNEL, atol=1e-15)
    np.testing.assert_allclose((inside * rest).sum(0), 0, atol=1e-14)
    again, nothing = split_by_input_span(inside, INPUTS)
    np.testing.assert_allclose(again, inside, atol=1e-14)
    assert np.abs(nothing).max() < 1e-14
    # 12 centred inputs span 11 dimensions.
    unit, _ = split_by_input_span(jnp.eye(FEATURES), INPUTS)
    np.testing.assert_allclose(jnp.trace(unit), SAMPLES - 1, rtol=1e-14)
    unit, _ = split_by_input_span(jnp.eye(FEATURES), INPUTS, centered=False)
    np.testing.assert_allclose(jnp.trace(unit), SAMPLES, rtol=1e-14)


def train(tx, steps=50):
    slope = jax.grad(loss)
    run = jax.jit(lambda w: scan(tx, lambda w, _: slope(w), w, length=steps))
    return run(start())[0]["kernel"]


@pytest.mark.usefixtures("optax_promotion")
def test_what_optimizers_leave_alone():
    before, rate, decay = outside(KERNEL), 0.5, 0.1
    sgd = train(optax.sgd(rate, 0.9))
    assert np.abs(sgd - KERNEL).max() > 0.1
    # 50 steps of a few roundings.
    np.testing.assert_allclose(outside(sgd), before, atol=1e-13)
    decayed = train(
        optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate))
    )
    np.testing.assert_allclose(
        outside(decayed), (1 - rate * decay) ** 50 * before, atol=1e-13
    )
    # The control: Adam divides by elements and leaves the span.
    adam = train(optax.adam(0.01))
    assert np.abs(outside(adam) - before).max() > 1e-2


@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 0.1, 10.0])
def test_radial_gradient_of_the_epsilon(epsilon):
    """<w, g> = eps/(var + eps) * sum_n zhat_n dL/dzhat_n."""
    params = start()
    z = INPUTS @ KERNEL + 0.3
    zhat = np.asarray(standardize(z, 0, epsilon))
    slope = 2 * (np.maximum(zhat, 0) - LABELS) * (zhat > 0) / LABELS.size
    share = epsilon / (z.var(0) + epsilon)
    expected = share * (zhat * slope).sum(0)
    g = gradient(lambda p: loss(p, epsilon), params)["kernel"]
    np.testing.assert_allclose((KERNEL * g).sum(0), expected, atol=1e-15)
    assert (np.abs(expected).min() > 1e-3) == (epsilon == 10)


@pytest.mark.parametrize(
    "padding", ["SAME", "VALID", [(0, 1), (2, 0)]], ids=str
)
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_patches_times_the_kernel_are_the_convolution(strides, padding):
    images = RANDOM.normal(size=(2, 7, 6, 3))
    kernel = RANDOM.normal(size=(3, 2, 3, 4))
    patches = input_patches(images, (3, 2), strides, padding)
    got = patches @ kernel.reshape(-1, 4)
    want = jax.lax.conv_general_dilated(
        images,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ).reshape(-1, 4)
    # Sums of 18 products.
    np.testing.assert_allclose(got, want, atol=1e-13)


def test_gradient_of_a_convolution():
    images = RANDOM.normal(size=(2, 5, 5, 3)) + 1.0
    kernel = jnp.asarray(RANDOM.normal(size=(4, 4, 3, 2)))
    target = RANDOM.normal(size=(2, 5, 5, 2))

    def loss(kernel):
        z = jax.lax.conv_general_dilated(
            images,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return ((standardize(z, (0, 1, 2)) - target) ** 2).mean()

    g = jax.jit(jax.grad(loss))(kernel)
    # 48 weights, 50 positions; one image leaves 24 dimensions out.
    patches = input_patches(images, (4, 4))
    half = patches[:25]
    _, rest = split_by_input_span(g, patches)
    assert np.abs(rest).max() < 1e-13 * np.abs(g).max()
    _, rest = split_by_input_span(g, half)
    assert np.abs(rest).max() > 1e-2 * np.abs(g).max()


def test_what_does_not_fit():
    with pytest.raises(ValueError, match=r"\(12, 19\).*\(n, 20\)"):
        split_by_input_span(jnp.asarray(KERNEL), INPUTS[:, 1:])
    with pytest.raises(ValueError, match=r"\(12, 20, 1\).*\(n, 20\)"):
        split_by_input_span(jnp.asarray(KERNEL), INPUTS[:, :, None])
    with pytest.raises(ValueError, match=r"\(8, 8, 3\).*\(batch, height"):
        input_patches(jnp.ones((8, 8, 3)), (3, 3))


def test_narrow_kernels_and_inputs_with_a_mean():
    kernel = jnp.ones((3, 2), jnp.bfloat16)
    random = np.random.RandomState(0)
    inputs = np.full((50, 3), 12345.678, np.float32)
    inputs[:, :2] = 1e4 + random.normal(size=(50, 2))
    inside, outside = split_by_input_span(kernel, jnp.asarray(inputs))
    assert inside.dtype == outside.dtype == kernel.dtype
    # What is constant is no direction, however its mean is rounded.
    np.testing.assert_allclose(inside[:, 0], [1, 1, 0], atol=0.01)
    np.testing.assert_allclose(outside[:, 0], [0, 0, 1], atol=0.01)


@pytest.mark.parametrize(("share", "inside"), [(0.5, 0.0), (2.0, 1.0)])
@pytest.mark.parametrize("shape", [(2, 1000), (1000, 2)])
def test_which_singular_values_count_as_zero(shape, share, inside):
    # Inputs along two axes, of sizes 1 and a share of 1000 precisions: below
    # the longer side's number of precisions a direction is rounding.
    inputs = np.zeros(shape)
    inputs[0, 0], inputs[1, 1] = 1, share * 1000 * 2.0**-52
    kernel = np.zeros((shape[1], 2))
    kernel[:2] = np.eye(2)
    got, _ = split_by_input_span(
        jnp.asarray(kernel), jnp.asarray(inputs), centered=False
    )
    expected = kernel * [1, inside]
    np.testing.assert_allclose(got, expected, atol=1e-14)
