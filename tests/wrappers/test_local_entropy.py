"""Entropy-SGD: the gradient of the local entropy, and its scale."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi, psi_sgd
from psi_optax.wrappers import local_entropy
from tests.compilation import quick_jit
from tests.composition.runs import COLUMNS, scales_exactly
from tests.conformance.checks import assert_equal
from tests.theory.perturbed import (
    FACTORS,
    GROUPS,
    distance,
    grad_fn,
    make_params,
    times,
    train,
)

OPTIONS = {"gamma": 0.5, "steps": 10, "rate": 0.05}
NOISY = {**OPTIONS, "noise": 0.01, "key": 0}
HESSIAN = np.diag([0.1, 1.0, 10.0])
X = np.array([1.0, -2.0, 0.5])


def first(tx, params, slope=grad_fn):
    """The first gradient of the local entropy."""

    @quick_jit
    def update(params):
        state = tx.init(params)
        gradient = slope(params, 0)
        return tx.update(gradient, state, params, grad_fn=slope)[0]

    return update(params)


def quadratic(x, i):
    del i
    return jnp.asarray(HESSIAN) @ x


# Quadratics.


@pytest.mark.usefixtures("x64")
def test_it_is_exact_on_quadratics():
    gamma, x = 0.7, jnp.asarray(X)
    tx = local_entropy(None, gamma=gamma, steps=4000, rate=0.05)
    expected = gamma * np.linalg.solve(HESSIAN + gamma * np.eye(3), HESSIAN @ X)
    # Of numbers up to 2, some roundings at the fixed point.
    found = first(tx, x, quadratic)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    assert np.abs(expected - HESSIAN @ X).max() > 1


@pytest.mark.usefixtures("x64")
def test_it_is_the_recursion():
    """With a group of norm 3, and other batches at other inner steps."""
    gamma, rate, a, r = 0.7, 0.005, 0.6, 3.0
    x = np.array([[2.0], [-1.0], [2.0]])

    def slope(x, i):
        return (1.0 + i) * jnp.asarray(HESSIAN) @ x

    tx = local_entropy(
        ScaleGroup(0), gamma=gamma, steps=4, rate=rate, average=a
    )
    near = mean = x
    for i in range(4):
        g = (1 + i) * HESSIAN @ near
        near = near - rate * (r**2 * g + gamma * (near - x))
        mean = a * mean + (1 - a) * near
    found = first(tx, jnp.asarray(x), slope)
    expected = gamma * (x - mean) / r**2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    one = first(
        local_entropy(
            ScaleGroup(0), gamma=gamma, steps=1, rate=rate, average=a
        ),
        jnp.asarray(x),
        slope,
    )
    # One step is a multiple of the gradient.
    expected = gamma * (1 - a) * rate * HESSIAN @ x
    np.testing.assert_allclose(one, expected, rtol=0, atol=1e-14)


@pytest.mark.usefixtures("x64")
def test_inner_steps_below_the_rounding_of_weights_count():
    x = 1 + np.arange(12.0).reshape(4, 3) / 8

    def slope(x, i):
        return jnp.asarray(1e-8, x.dtype) * x[::-1]

    tx = local_entropy(ScaleGroup(0), **OPTIONS)
    found, expected = (
        first(tx, jnp.asarray(x, dtype), slope)
        for dtype in ("float32", "float64")
    )
    # Some roundings of ten steps.
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The control: a sum with the weights loses a step.
    r = np.linalg.norm(x, axis=0)
    step = OPTIONS["rate"] * r**2 * 1e-8 * x[::-1]
    single = np.float32
    np.testing.assert_array_equal(single(x) - single(step), single(x))


@pytest.mark.usefixtures("x64")
def test_noise_has_the_variance_of_langevin():
    """Without a loss, x' - x of many weights is noise."""
    size, rate, noise = 20_000, 0.3, 0.2
    x = jax.random.normal(jax.random.key(1), (size,))
    r = float(jnp.linalg.norm(x))
    tx = local_entropy(
        ScaleGroup(0),
        gamma=1.0,
        steps=2,
        rate=rate,
        average=0.0,
        noise=noise,
        key=0,
    )
    found = first(tx, x, lambda x, i: jnp.zeros_like(x))
    # The first is pulled back by gamma times the rate. A deviation of the
    # measured root is 1 / sqrt(40,000), 0.5 %.
    expected = np.sqrt(rate * (1 + (1 - rate) ** 2)) * noise / r
    np.testing.assert_allclose(np.std(found), expected, rtol=0.02)
    assert abs(np.mean(found)) < 0.03 * expected


# Scale.


@pytest.mark.usefixtures("x64")
def test_a_relative_gamma_gives_a_gradient_of_degree_minus_one():
    params = make_params()
    tx = local_entropy(GROUPS, **NOISY)
    found = first(tx, params)
    for factor in 8.0, FACTORS:
        other = first(tx, times(factor, params))
        np.testing.assert_array_equal(
            found["kernel"], times(factor, other)["kernel"]
        )
        np.testing.assert_array_equal(found["head"], other["head"])


@pytest.mark.usefixtures("x64")
def test_an_absolute_gamma_does_not():
    params = make_params()
    tx = local_entropy({"kernel": None, "head": None}, **NOISY)
    found, other = (first(tx, p)["kernel"] for p in (params, times(8, params)))
    # 2.1 here; 0.92 on another network.
    gap = np.abs(8 * other - found).max() / np.abs(found).max()
    assert gap > 0.9


@pytest.mark.usefixtures("x64")
def test_a_run_with_psi_does_not_depend_on_norms():
    def run(groups, factor):
        tx = optax.chain(
            local_entropy(groups, **NOISY), psi_sgd(0.1, GROUPS, momentum=0.9)
        )
        return train(tx, times(factor, make_params()), steps=10)[1]

    absolute = {"kernel": None, "head": None}
    assert distance(times(8.0, run(GROUPS, 1.0)), run(GROUPS, 8.0)) == 0
    assert distance(times(8.0, run(absolute, 1.0)), run(absolute, 8.0)) > 1e-2


def test_a_float32_run_is_rescaled_to_the_bit():
    group = ScaleGroup(0)

    def slopes(batch):
        return lambda w, _: jax.grad(COLUMNS.loss)(w, batch)

    entropy = local_entropy(group, **NOISY)
    good = optax.chain(entropy, psi_sgd(0.05, group, momentum=0.9))
    assert scales_exactly(good, grad_fn=slopes)
    assert not scales_exactly(
        optax.chain(entropy, optax.sgd(0.05)), grad_fn=slopes
    )


@pytest.mark.usefixtures("x64")
def test_inside_psi_it_is_in_front_of_psi():
    entropy = local_entropy(GROUPS, **OPTIONS)
    around = optax.chain(entropy, psi(optax.sgd(0.1), GROUPS))
    inside = psi(optax.chain(entropy, optax.sgd(0.1)), GROUPS)
    found, expected = (
        train(tx, make_params(), steps=10)[1] for tx in (inside, around)
    )
    # Ten steps of some roundings of weights up to 4.
    assert distance(found, expected) < 1e-13
    plain = train(psi(optax.sgd(0.1), GROUPS), make_params(), steps=10)[1]
    assert distance(plain, expected) > 1e-2


# What it asks for.


def test_it_costs_as_many_gradients_as_steps():
    calls = []

    def slope(x, i):
        jax.debug.callback(lambda i: calls.append(int(i)), i)
        return 2.0 * x

    x = jnp.ones(3)
    tx = local_entropy(None, gamma=1.0, steps=5, rate=0.1)
    jax.block_until_ready(
        jax.jit(lambda g, x: tx.update(g, tx.init(x), x, grad_fn=slope)[0])(
            2.0 * x, x
        )
    )
    jax.effects_barrier()
    assert sorted(calls) == [1, 2, 3, 4]


def test_each_step_draws_other_noise():
    tx, x = local_entropy(None, **NOISY), jnp.ones(3)
    slope = lambda x, i: 0 * x  # noqa: E731
    one, state = tx.update(0 * x, tx.init(x), x, grad_fn=slope)
    two, _ = tx.update(0 * x, state, x, grad_fn=slope)
    assert np.all(one != two)
    again, _ = tx.update(0 * x, tx.init(x), x, grad_fn=slope)
    assert_equal(one, again)


def test_zero_groups_have_no_gradient_whatever_it_is():
    w = jnp.array([[0.0, 3.0], [0.0, 4.0]])

    def slope(w, i):
        return jnp.where(w == 0, jnp.nan, 0.1 * w[::-1])

    found = first(local_entropy(ScaleGroup(0), **NOISY), w, slope)
    np.testing.assert_array_equal(found[:, 0], 0)
    assert np.isfinite(found).all()
    assert found.any()


def test_frozen_and_integer_parameters_reach_the_loss():
    params = {"w": jnp.ones(3), "frozen": jnp.full(3, 2.0), "steps": 7}

    def slope(params, i):
        del i
        assert params["steps"] == 7
        return {"w": params["frozen"] * params["w"], "frozen": None, "steps": 0}

    tx = local_entropy(None, **NOISY)
    found, _ = tx.update(
        slope(params, 0), tx.init(params), params, grad_fn=slope
    )
    assert found["frozen"] is None
    assert found["steps"] == 0
    # It is not perturbed either: the same as with a constant.
    alone, _ = tx.update(
        {"w": 2 * params["w"]},
        tx.init({"w": params["w"]}),
        {"w": params["w"]},
        grad_fn=lambda p, i: {"w": 2 * p["w"]},
    )
    assert_equal(found["w"], alone["w"])


# Errors.


def test_traced_noise_needs_a_key():
    x = jnp.ones(3)

    def update(**options):
        make = optax.inject_hyperparams(local_entropy, **options)
        tx = make(None, **OPTIONS)
        state = tx.init(x)
        step = jax.jit(lambda x, s: tx.update(x, s, x, grad_fn=quadratic)[0])
        return step(x, state)

    with pytest.raises(ValueError, match='key=None.*static_args="noise"'):
        update()
    assert np.isfinite(update(static_args="noise")).all()


def notes(error):
    return " ".join(getattr(error.value, "__notes__", []))


def test_a_gradient_that_needs_masked_parameters():
    params = {"seen": jnp.ones(3), "masked": jnp.ones(3)}

    def slope(params, i):
        del i
        return jax.grad(lambda p: jnp.sum(p["seen"] * p["masked"]))(params)

    tx = local_entropy(None, **OPTIONS)
    masked = optax.masked(tx, {"seen": True, "masked": False})
    gradient = slope(params, 0)
    with pytest.raises(TypeError) as error:
        masked.update(gradient, masked.init(params), params, grad_fn=slope)
    assert "in front" in notes(error)

    def broken(params, i):
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine") as error:
        tx.update(gradient, tx.init(params), params, grad_fn=broken)
    assert "in front" not in notes(error)


def test_errors():
    x = jnp.ones(3)
    tx = local_entropy(None, **OPTIONS)
    with pytest.raises(ValueError, match="grad_fn=lambda"):
        tx.update(x, tx.init(x), x)
    with pytest.raises(TypeError, match="grad_fn is of type"):
        tx.update(x, tx.init(x), x, grad_fn=x)
    with pytest.raises(ValueError, match=r"^gradients of grad_fn.*\(3,\)"):
        tx.update(x, tx.init(x), x, grad_fn=lambda x, i: x[:2])
    with pytest.raises(ValueError, match="gamma"):
        local_entropy(None, **{**OPTIONS, "gamma": 0.0})
    with pytest.raises(ValueError, match="steps"):
        local_entropy(None, **{**OPTIONS, "steps": 0})
    with pytest.raises(ValueError, match="key=None.*noise"):
        local_entropy(None, **OPTIONS, noise=0.1)
