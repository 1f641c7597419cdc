"""The ascent of SAM: its angles, ASAM, and runs from weights of any norm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi, psi_sgd, rotation
from psi_optax.transforms import relative_ascent, scale_by_group_norm
from tests.registry import ENTRIES, draw
from tests.theory.perturbed import (
    FACTORS,
    GROUPS,
    distance,
    grad_fn,
    make_params,
    times,
    train,
)
from tests.theory.training import first_update

pytestmark = pytest.mark.usefixtures("x64")
RHO = 0.2


def raw(rho):
    return optax.chain(optax.contrib.normalize(), optax.sgd(rho))


def asam(rho, eta=0.0, by_filter=False):
    """ASAM's ascent: T is |w| + eta of each weight, or the norm of a filter."""

    def factors(params):
        kernel = params["kernel"]
        if not by_filter:
            return jax.tree.map(lambda w: jnp.abs(w) + eta, params)
        norms = jnp.linalg.norm(kernel, axis=0, keepdims=True)
        return {
            "kernel": jnp.broadcast_to(norms, kernel.shape),
            "head": jnp.ones_like(params["head"]),
        }

    def update(updates, state, params=None):
        t = factors(params)
        relative = jax.tree.map(jnp.multiply, t, updates)
        norm = optax.tree.norm(relative)
        return jax.tree.map(
            lambda a, b: -rho * a * b / norm, t, relative
        ), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def sam(inner, ascent):
    return optax.contrib.sam(inner, ascent, opaque_mode=True)


def descent():
    return psi_sgd(0.1, GROUPS, momentum=0.9)


# The perturbation.


def test_it_is_asam_by_filter_and_the_chain_of_parts():
    params = make_params()
    found = first_update(relative_ascent(RHO, GROUPS), grad_fn(params), params)
    parts = optax.chain(
        scale_by_group_norm(GROUPS),
        optax.contrib.normalize(),
        scale_by_group_norm(GROUPS),
        optax.sgd(RHO),
    )
    # Of perturbations below 0.2 times weights of norm 4, some roundings.
    for same in asam(RHO, by_filter=True), parts:
        expected = first_update(same, grad_fn(params), params)
        assert distance(found, expected) < 1e-15
    for other in asam(RHO), raw(RHO):
        expected = first_update(other, grad_fn(params), params)
        assert distance(found, expected) > 0.05


def test_rho_is_the_root_of_the_sum_of_squared_tangents():
    params = make_params()
    ascent = relative_ascent(RHO, GROUPS)
    updates = first_update(ascent, grad_fn(params), params)
    perturbed = jax.tree.map(jnp.subtract, params, updates)
    angles = rotation(params, perturbed, GROUPS)["kernel"]
    lengths = np.linalg.norm(updates["kernel"], axis=0)
    tangents = lengths / np.linalg.norm(params["kernel"], axis=0)
    # A gradient is tangent, up to rounding.
    np.testing.assert_allclose(np.tan(angles), tangents, rtol=1e-14)
    assert 0.1 < angles.max() < 0.13
    total = np.sum(tangents**2) + np.sum(updates["head"] ** 2)
    np.testing.assert_allclose(np.sqrt(total), RHO, rtol=1e-14)


def test_the_gradient_at_perturbed_weights_is_that_of_their_directions():
    """It is shorter by cos(angle), and has a radial part at the weights."""
    params = make_params()
    ascent = relative_ascent(RHO, GROUPS)
    updates = first_update(ascent, grad_fn(params), params)
    w = np.asarray(params["kernel"])
    away = w - updates["kernel"]
    radii = np.linalg.norm(w, axis=0)
    back = away * radii / np.linalg.norm(away, axis=0)
    head = params["head"] - updates["head"]
    lengths = [
        np.linalg.norm(grad_fn({"kernel": x, "head": head})["kernel"], axis=0)
        for x in (away, back)
    ]
    cosines = radii / np.linalg.norm(away, axis=0)
    np.testing.assert_allclose(lengths[0], lengths[1] * cosines, rtol=1e-13)


# Runs.

EQUIVARIANT = {
    "around": lambda: sam(descent(), relative_ascent(RHO, GROUPS)),
    "inside": lambda: psi(sam(optax.sgd(0.1), raw(RHO)), GROUPS),
    "by weight": lambda: sam(descent(), asam(RHO)),
}
# Losses that differ by less than half of what was measured for a factor of 8
# are no control: 6e-3, 7e-5 and 5e-2.
CONTROLS = {
    "absolute rho": (lambda: sam(descent(), raw(RHO)), 3e-3),
    "asam, eta 0.01": (lambda: sam(descent(), asam(RHO, 0.01)), 3e-5),
    "sgd inside": (
        lambda: sam(optax.sgd(0.1, 0.9), relative_ascent(RHO, GROUPS)),
        2e-2,
    ),
}


@pytest.mark.parametrize("name", EQUIVARIANT)
def test_a_run_does_not_depend_on_powers_of_two(name):
    params = make_params()
    losses, end, _ = train(EQUIVARIANT[name](), params)
    for factor in 8.0, FACTORS:
        others, other, _ = train(EQUIVARIANT[name](), times(factor, params))
        np.testing.assert_array_equal(losses, others)
        assert distance(times(factor, end), other) == 0


@pytest.mark.parametrize("name", CONTROLS)
def test_a_run_that_depends_on_them(name):
    make, least = CONTROLS[name]
    losses, *_ = train(make(), make_params())
    for factor in 8.0, FACTORS:
        others, *_ = train(make(), times(factor, make_params()))
        assert np.abs(losses - others).max() > least


def test_inside_psi_norms_are_one():
    params = make_params()
    found, expected = (
        train(psi(sam(optax.sgd(0.1), ascent), GROUPS), params)[1]
        for ascent in (relative_ascent(RHO, GROUPS), raw(RHO))
    )
    # 30 steps of a few roundings of weights up to 4.
    assert distance(found, expected) < 1e-13


# Limits.


def test_a_gradient_of_zero_gives_zero():
    params = make_params()
    zeros = jax.tree.map(jnp.zeros_like, params)
    ascent = relative_ascent(RHO, GROUPS)
    found = first_update(ascent, zeros, params)
    assert distance(found, zeros) == 0
    opaque = sam(optax.sgd(0.1), ascent)
    updates, _ = opaque.update(
        zeros, opaque.init(params), params, grad_fn=lambda *_: zeros
    )
    assert distance(updates, zeros) == 0
    assert np.isnan(first_update(raw(RHO), zeros, params)["head"]).all()


@pytest.mark.usefixtures("optax_promotion")
def test_faults_of_the_transparent_mode():
    """Why the opaque one is recommended: these are optax's."""
    params = make_params()
    zeros = jax.tree.map(jnp.zeros_like, params)
    for ascent, is_nan in (
        (raw(RHO), True),
        (relative_ascent(RHO, GROUPS), False),
    ):
        tx = optax.contrib.sam(optax.sgd(0.1), ascent)
        updates, _ = tx.update(zeros, tx.init(params), params)
        assert np.isnan(updates["head"]).all() == is_nan
    with pytest.raises(TypeError, match="value"):
        tx.update(zeros, tx.init(params), params, value=1.0)


def test_zero_groups_stay_whatever_their_gradients_are():
    w, g = jnp.array([[0.0, 3.0], [0.0, 4.0]]), jnp.array([[1.0, 0.8]] * 2)
    for bad in 1.0, jnp.nan:
        tx = relative_ascent(RHO, ScaleGroup(0))
        found = first_update(tx, g.at[:, 0].set(bad), w)
        assert not found[:, 0].any()
        assert np.isfinite(found).all()
        assert found[:, 1].all()


def test_one_norm_makes_a_non_finite_gradient_everybodys():
    tx = ENTRIES["relative_ascent"].build()
    bad = {**draw(1), "vector": jnp.full(5, jnp.nan, "float32")}
    found = first_update(tx, bad, draw(0))
    assert all(np.isnan(x).all() for x in jax.tree.leaves(found))


def test_precision_is_that_of_each_leaf():
    params = jax.tree.map(lambda x: x.astype("float16"), make_params())
    params["head"] = params["head"].astype("float64")
    gradient = jax.tree.map(lambda x: (1e-4 * x).astype(x.dtype), params)
    gradient["kernel"] = gradient["kernel"][::-1]
    found = first_update(relative_ascent(RHO, GROUPS), gradient, params)
    assert found["kernel"].dtype == np.float16
    wide = jax.tree.map(lambda x: x.astype("float64"), (gradient, params))
    expected = first_update(relative_ascent(RHO, GROUPS), *wide)
    # Squares of 1e-4 are below float16's: it was summed in float32, and each
    # result, below 1, is rounded to 2^-11 of itself.
    assert distance(found, expected) < 5e-4
    assert np.abs(expected["kernel"]).max() > 1e-2


def test_errors():
    with pytest.raises(ValueError, match="rho"):
        relative_ascent(0.0, GROUPS)
    tx = relative_ascent(RHO, {"kernel": ScaleGroup(5), "head": None})
    with pytest.raises(ValueError, match=r"'kernel' of shape \(8, 6\)"):
        tx.init(make_params())
