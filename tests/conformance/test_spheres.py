"""Targets that live on spheres: everything with groups finds their minimum.

Rayleigh quotients, whose least value is the least eigenvalue, and angles to a
given direction, for groups of every kind, and an ordinary parabola beside them.
Each way of running the package is to arrive from weights of any scale, at the
same rate; SGD and Adam, which optax itself would use, do not.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import (
    ScaleGroup,
    group_norms,
    groups_from_paths,
    psi,
    psi_adam,
    psi_direction,
    psi_sgd,
    psi_sgdm,
)
from psi_optax.transforms import (
    project_to_tangent,
    rescale_weights,
    retract,
    scale_by_group_norm,
)
from tests.compilation import quick_jit
from tests.conformance.checks import assert_equal
from tests.registry import normal
from tests.theory.training import scan

STEPS = 300
RATE = 0.1
# From 0.1 to nothing, as a rate has to if it is to find a minimum exactly.
SCHEDULE = optax.cosine_decay_schedule(RATE, STEPS)

GROUPS = {
    "vector": ScaleGroup(axes=0),
    "columns": ScaleGroup(axes=0),
    "tied/kernel": ScaleGroup(axes=0, tie="column"),
    "tied/bias": ScaleGroup(axes=(), tie="column"),
    "blocks": ScaleGroup(axes=(0, 1), blocks={1: 2}),
    "ordinary": None,
}

random = np.random.RandomState(0)
ROTATION = np.linalg.qr(random.normal(size=(6, 6)))[0]
EIGENVALUES = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
MATRIX = (ROTATION * EIGENVALUES) @ ROTATION.T
TARGET = random.normal(size=(3, 2, 4))
CENTER = random.normal(size=3)


def start(scale, dtype="float32"):
    """Weights of norm about `scale` times 2; the parabola does not scale."""
    shapes = {
        "vector": (6,),
        "columns": (6, 4),
        "tied": {"kernel": (5, 4), "bias": (4,)},
        "blocks": (3, 8),
    }
    weights = jax.tree.map(lambda x: scale * x, normal(1, shapes))
    tree = {**weights, "ordinary": np.zeros(3)}
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def losses(params):
    """What is above the least value, group by group."""
    params = jax.tree.map(lambda x: x.astype("float32"), params)
    bias = params["tied"]["bias"][None]
    return {
        "vector": rayleigh(params["vector"][:, None]),
        "columns": rayleigh(params["columns"]),
        "tied": rayleigh(jnp.concatenate([params["tied"]["kernel"], bias])),
        "blocks": angle(params["blocks"].reshape(3, 2, 4)),
        "ordinary": jnp.sum((params["ordinary"] - jnp.float32(CENTER)) ** 2),
    }


def leaves(params):
    return jax.tree.leaves(losses(params))


def rayleigh(w):
    """The quotient w'Aw / w'w of every column, above the least eigenvalue."""
    above = jnp.float32(MATRIX - EIGENVALUES[0] * np.eye(6))
    return jnp.sum(w * (above @ w), axis=0) / jnp.sum(w * w, axis=0)


def angle(w):
    """1 - <b, w> / |w| of every block."""
    b = TARGET / np.linalg.norm(TARGET, axis=(0, 2), keepdims=True)
    along = jnp.sum(jnp.float32(b) * w, axis=(0, 2))
    return 1 - along / jnp.sqrt(jnp.sum(w * w, axis=(0, 2)))


def total(params):
    return sum(jnp.sum(x) for x in leaves(params))


def minimizer(tx):
    """From first weights to last weights and state, compiled once."""
    slope = jax.grad(total)
    return quick_jit(
        lambda params: scan(tx, lambda w, _: slope(w), params, length=STEPS)
    )


@jax.jit
def worst(params):
    """The largest of the losses, NaN before all."""
    return jnp.max(jnp.concatenate(jax.tree.map(jnp.ravel, leaves(params))))


def parts(groups):
    return optax.chain(
        scale_by_group_norm(groups),
        optax.sgd(RATE, momentum=0.5),
        scale_by_group_norm(groups),
        project_to_tangent(groups),
        retract(groups),
    )


def bare_function(params):
    return GROUPS if "ordinary" in params else None


RULE = groups_from_paths(
    {
        "(tied)/kernel": ScaleGroup(axes=0, tie=r"\1"),
        "(tied)/bias": ScaleGroup(axes=(), tie=r"\1"),
        "blocks": ScaleGroup(axes=(0, 1), blocks={1: 2}),
        "ordinary": None,
        ".*": ScaleGroup(axes=0),
    }
)

WAYS = {
    "psi": psi(optax.sgd(RATE, momentum=0.5), GROUPS),
    "psi with a rate and no radius": psi_direction(
        SCHEDULE, optax.trace(0.5), GROUPS, radius=None
    ),
    "psi, exponential": psi(optax.sgd(RATE), GROUPS, retraction="exponential"),
    "psi with ordinary": psi(
        optax.sgd(RATE), GROUPS, ordinary=optax.adam(SCHEDULE)
    ),
    "psi_sgd with a schedule": psi_sgd(
        SCHEDULE, GROUPS, momentum=0.5, nesterov=True
    ),
    "psi_adam": psi_adam(optax.cosine_decay_schedule(0.08, STEPS), GROUPS),
    "psi_sgdm": psi_sgdm(RATE, GROUPS, momentum=0.5),
    "parts": parts(GROUPS),
    "injected": optax.inject_hyperparams(psi_sgdm)(RATE, GROUPS, momentum=0.5),
    "injected rule": optax.inject_hyperparams(psi_sgd)(SCHEDULE, RULE),
    "injected function": optax.inject_hyperparams(
        psi_sgd, static_args=("groups",)
    )(RATE, bare_function),
    "accumulated": optax.MultiSteps(psi_sgd(RATE, GROUPS, momentum=0.5), 2),
    "if finite": optax.apply_if_finite(psi_sgd(RATE, GROUPS), 3),
}

OTHERS = {
    "sgd": optax.sgd(RATE),
    "momentum": optax.sgd(RATE, momentum=0.5),
    "adam": optax.adam(SCHEDULE),
}

# Losses are formed in float32, from numbers of about 1: rounded to 1e-7, while
# the rates let 300 steps come closer than that.
CLOSE = 1e-5


SCALES = (1e-3, 1.0, 1e3)


def assert_norms(params, norms, ulps):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=ulps * 1.2e-7),
        group_norms(params, GROUPS),
        norms,
    )


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("way", WAYS)
def test_the_minimum_is_found_from_every_scale(way):
    minimize = minimizer(WAYS[way])
    for scale in SCALES:
        first = start(scale)
        last, state = minimize(first)
        assert worst(first) > 0.1
        assert worst(last) < CLOSE, scale
        assert_equal(optax.tree.map_params(WAYS[way], same, state), state)
        # A radius that is kept, to 2 ulp; one that is not drifts by half an
        # ulp a step, if it has the worst of luck.
        ulps = STEPS / 2 if "no radius" in way else 2
        assert_norms(last, group_norms(first, GROUPS), ulps)


def same(x):
    return x


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("other", OTHERS)
def test_others_do_not_find_it_from_every_scale(other):
    minimize = minimizer(OTHERS[other])
    found = [worst(minimize(start(scale))[0]) < CLOSE for scale in SCALES]
    assert not found[0]
    assert not found[2]


def test_rescaling_finds_it_on_its_own_sphere():
    tx = optax.chain(optax.sgd(RATE), rescale_weights(GROUPS, radius=1.0))
    last, _ = minimizer(tx)(start(1.0))
    assert worst(last) < CLOSE
    ones = jax.tree.map(jnp.ones_like, group_norms(last, GROUPS))
    assert_norms(last, ones, 2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_come_as_close_as_they_can(dtype):
    first = start(1.0, dtype)
    last, _ = minimizer(psi_sgd(RATE, GROUPS))(first)
    assert all(x.dtype == dtype for x in jax.tree.leaves(last))
    # A coordinate moves while its step, 0.1 times a gradient of 2 c d, is half
    # the spacing, eps times itself, or more. So a direction stops at a distance
    # d of 2.5 eps / c from the minimum, where the loss c d^2 is 6.25 eps^2 / c.
    # The least curvature c is 0.5, for angles and for the second eigenvalue.
    # Twice that, as the gradient is rounded too.
    eps = float(jnp.finfo(dtype).eps)
    assert worst(last) < 25 * eps**2
    assert worst(first) > 1


@pytest.mark.usefixtures("optax_promotion")
def test_a_bare_function_is_called_as_a_schedule_unless_static():
    tx = optax.inject_hyperparams(psi_sgd)(RATE, bare_function)
    with pytest.raises(TypeError):
        tx.init(start(1.0))
