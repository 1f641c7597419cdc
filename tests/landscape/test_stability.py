"""Thresholds are those at which the package's and optax's optimizers fail."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from psi_optax.dynamics import directional_rate
from psi_optax.landscape import eigenpairs, hessian, stability_threshold
from tests.landscape.thresholds import NORM, SHARPNESS, loss, measured

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")

GROUPS = ScaleGroup(0)
NESTEROV = {"momentum": 0.9, "nesterov": True}
AVERAGE = {"momentum": 0.9, "ema": True}
HEAVY = {"momentum": 0.9}
ADAM = {"b1": 0.9, "eps": 0.25}


def averaged(rate):
    return optax.chain(
        optax.ema(0.9, debias=False), optax.scale_by_learning_rate(rate)
    )


# Each optimizer, the arguments of its threshold, and of its Hessian: whether it
# has groups, and its units.
OPTIMIZERS = {
    "psi_sgd": (lambda c: psi_optax.psi_sgd(c, GROUPS), {}, True, None),
    "psi_sgd, momentum": (
        lambda c: psi_optax.psi_sgd(c, GROUPS, momentum=0.9), HEAVY, True, None,
    ),
    "psi_sgd, Nesterov": (
        lambda c: psi_optax.psi_sgd(c, GROUPS, **NESTEROV),
        NESTEROV, True, None,
    ),
    "psi_sgdm": (lambda c: psi_optax.psi_sgdm(c, GROUPS), HEAVY, True, None),
    "sgd_g": (lambda c: psi_optax.sgd_g(c, GROUPS), HEAVY, True, None),
    "psi of ema": (
        lambda c: psi_optax.psi(averaged(c), GROUPS), AVERAGE, True, None,
    ),
    # Where the gradient vanishes, so does the second moment.
    "psi_adam": (
        lambda c: psi_optax.psi_adam(c, GROUPS, **ADAM), AVERAGE, True, 0.25,
    ),
    "adam_g": (
        lambda c: psi_optax.adam_g(c, GROUPS, b1=0.9, eps_root=0.25),
        AVERAGE, True, 0.5,
    ),
    "sgd": (optax.sgd, {}, False, None),
    "sgd, momentum": (lambda c: optax.sgd(c, 0.9), HEAVY, False, None),
    "sgdp": (lambda c: psi_optax.sgdp(c, GROUPS), HEAVY, False, None),
    "adam": (lambda c: optax.adam(c, **ADAM), AVERAGE, False, 0.25),
    "adamp": (
        lambda c: psi_optax.adamp(c, GROUPS, **ADAM), AVERAGE, False, 0.25,
    ),
}  # fmt: skip


def sharpness(has_groups, root):
    units = None if root is None else jnp.full(4, root**-0.5)
    return top_of(GROUPS if has_groups else None, units)


def top_of(groups, units):
    """Return the top eigenvalue at the minimum."""
    minimum = jnp.array([NORM, 0.0, 0.0, 0.0])
    curvature = hessian(loss, minimum, groups=groups, units=units)
    size = curvature.space.size
    pairs = eigenpairs(curvature, jax.random.key(0), num_matvecs=size)
    return pairs.values[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_threshold_is_where_the_optimizer_loses_stability(name):
    make, options, has_groups, root = OPTIMIZERS[name]
    # The threshold is inverse in the rate: so this is the predicted rate.
    top = sharpness(has_groups, root)
    predicted = stability_threshold(1.0, **options) / top
    # Corrections of Adam's bias multiply what has not grown yet.
    start = 1e-60 if "ema" in options else 1e-11
    found = measured(make, 0.3 * predicted, 2.5 * predicted, start)
    # An interval of 2.2 is halved twelve times, and 400 steps see no slower
    # growth than by a thousandth.
    np.testing.assert_allclose(found, predicted, rtol=2e-3)
    # The control: the other Hessian is off by the squared norm.
    other = stability_threshold(1.0, **options) / sharpness(
        not has_groups, root
    )
    np.testing.assert_allclose(
        np.sort([found / other, other / found])[1], NORM**2, rtol=2e-3
    )


def test_the_sharpness_of_the_sphere_and_the_plain_one():
    np.testing.assert_allclose(sharpness(True, None), SHARPNESS, rtol=1e-13)
    plain = SHARPNESS / NORM**2
    np.testing.assert_allclose(sharpness(False, None), plain, rtol=1e-13)


def test_groups_with_units_of_the_directional_rate_are_the_alternative():
    rate = directional_rate(0.1, NORM)
    found = top_of(GROUPS, jnp.full(4, rate**0.5))
    ratio = sharpness(False, None) / stability_threshold(0.1)
    np.testing.assert_allclose(found / stability_threshold(1.0), ratio, 1e-13)


def test_arrays_and_traced_arguments():
    rates = jnp.array([0.1, 0.2])
    found = jax.jit(lambda r, m: stability_threshold(r, momentum=m))(rates, 0.9)
    np.testing.assert_allclose(found, [38.0, 19.0], rtol=1e-14)
    assert stability_threshold(1, momentum=0) == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"nesterov": True}, "momentum=None"),
        ({"ema": True}, "momentum=None"),
        ({**NESTEROV, "ema": True}, "exclude"),
    ],
)
def test_bad_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        stability_threshold(**{"learning_rate": 0.1, **options})
