"""Derivatives through the optimizers: of a training run by its numbers.

A square root at zero and a quotient by zero have derivatives that are not
numbers, and `where` alone does not hide them. So there is a group of norm zero,
one whose gradient is zero, and both kinds of parameters.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.compilation import quick_jit
from tests.theory.training import lenient, scan

pytestmark = pytest.mark.usefixtures("x64")

GROUPS = {"w": ScaleGroup(axes=0), "b": None}
STEPS = 5

OPTIMIZERS = {
    "psi_sgd": lambda rate: psi_optax.psi_sgd(rate, GROUPS),
    "exponential": lambda rate: psi_optax.psi_sgd(
        rate, GROUPS, momentum=0.9, retraction="exponential"
    ),
    "additive": lambda rate: psi_optax.psi_sgd(
        rate, GROUPS, momentum=0.9, retraction=None
    ),
    "memoryless": lambda rate: psi_optax.psi_sgd(rate, GROUPS, radius=None),
    "number": lambda rate: psi_optax.psi_sgd(rate, GROUPS, radius=2.0),
    "ordinary": lambda rate: psi_optax.psi_sgd(
        rate, GROUPS, ordinary=optax.sgd(0.1)
    ),
    "psi_sgdm": lambda rate: psi_optax.psi_sgdm(rate, GROUPS),
    # Adam's own root is kept off zero by eps_root, as optax documents.
    "adam": lambda rate: psi_optax.psi(
        lenient(optax.adam(rate, eps_root=1e-12)), GROUPS
    ),
    "parts": lambda rate: optax.chain(
        psi_optax.transforms.scale_by_group_norm(GROUPS),
        psi_optax.transforms.clip_by_group_norm(GROUPS, 0.3),
        optax.sgd(rate),
        psi_optax.transforms.scale_by_group_norm(GROUPS),
        psi_optax.transforms.project_to_tangent(GROUPS),
        psi_optax.transforms.retract(GROUPS),
    ),
    "sgd_g": lambda rate: psi_optax.sgd_g(rate, GROUPS),
    "adam_g": lambda rate: lenient(psi_optax.adam_g(rate, GROUPS)),
    "rotational": lambda rate: psi_optax.rotational(
        rate, optax.trace(0.9), GROUPS, ordinary=optax.sgd(rate, 0.9)
    ),
    "hyperball": lambda rate: psi_optax.hyperball(
        rate,
        optax.trace(0.9),
        GROUPS,
        per_tensor=False,
        ordinary=optax.sgd(rate, 0.9),
    ),
    "sgdp": lambda rate: psi_optax.sgdp(rate, GROUPS),
    "rescale": lambda rate: optax.chain(
        optax.sgd(rate), psi_optax.transforms.rescale_weights(GROUPS)
    ),
}

OTHERS = {
    "momentum": (0.8, lambda x: psi_optax.psi_sgd(0.02, GROUPS, momentum=x)),
    "radius": (2.0, lambda x: psi_optax.psi_sgd(0.02, GROUPS, radius=x)),
}
CASES = {name: (0.02, make) for name, make in OPTIMIZERS.items()} | OTHERS

RANDOM = np.random.RandomState(0)
START = {"w": RANDOM.normal(size=(5, 4)), "b": np.ones(2)}
START["w"][:, 1] = 0  # No direction.
TARGET = RANDOM.normal(size=(5, 4))
TARGET[:, 2] = 0  # No gradient.


def loss(params):
    """Smooth everywhere, and not even scale-invariant: any gradient will do."""
    w, b = params["w"], params["b"]
    return (jnp.sin(w) * TARGET).sum() * (1 + (b**2).sum())


def outcome(make, number):
    """The loss after some steps."""
    params = jax.tree.map(jnp.asarray, START)
    slope = jax.grad(loss)
    last, _ = scan(make(number), lambda w, _: slope(w), params, length=STEPS)
    return loss(last)


@pytest.mark.parametrize("name", CASES)
def test_derivative_by_a_number(name):
    # Central differences: off by h^2/6 times the third derivative, and by
    # rounding, 1e-16/h times the loss. Losses are up to 1e2, and 1e5 without a
    # retraction, with derivatives as large.
    (at, make), h = CASES[name], 1e-6
    run = quick_jit(jax.value_and_grad(functools.partial(outcome, make)))
    _, slope = run(at)
    expected = (run(at + h)[0] - run(at - h)[0]) / (2 * h)
    np.testing.assert_allclose(slope, expected, rtol=1e-5)
    assert np.abs(slope) > 1e-2


def test_derivative_by_the_weights():
    # Through one step of all groups: none of norm zero spoils the others.
    tx = OPTIMIZERS["psi_sgd"](0.1)

    def after(w):
        params = {"w": w, "b": jnp.ones(2)}
        updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params)
        return optax.apply_updates(params, updates)["w"]

    jacobian = quick_jit(jax.jacobian(after))(START["w"])
    assert np.isfinite(jacobian).all()
    run = quick_jit(after)
    w, h = START["w"], 1e-6
    ahead, behind = w.copy(), w.copy()
    ahead[0, 0] += h
    behind[0, 0] -= h
    np.testing.assert_allclose(
        jacobian[:, :, 0, 0],
        (np.asarray(run(ahead)) - run(behind)) / (2 * h),
        atol=1e-8,
    )


def test_careless_norm_has_no_derivative_at_zero():
    # The control: the same step, written as one would at first.
    def careless(rate):
        w = jnp.asarray(START["w"])
        norm = jnp.sqrt((w**2).sum(0, keepdims=True))
        g = jax.grad(lambda w: loss({"w": w, "b": jnp.ones(2)}))(w)
        moved = w - rate * norm**2 * g
        length = jnp.sqrt((moved**2).sum(0, keepdims=True))
        moved = jnp.where(length == 0, w, moved * norm / length)
        return loss({"w": moved, "b": jnp.ones(2)})

    value, slope = quick_jit(jax.value_and_grad(careless))(0.02)
    assert np.isfinite(value)
    assert np.isnan(slope)
