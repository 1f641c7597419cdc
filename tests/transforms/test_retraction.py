"""retract, project_to_tangent and rescale_weights, as transforms."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi_sgd, psi_sgdm
from psi_optax.transforms import project_to_tangent, rescale_weights, retract
from tests.theory.training import step, walk

GROUPS = {"w": ScaleGroup(0), "o": None}


def draw(seed, dtype="float32"):
    random = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(random.normal(size=(9, 5)), dtype),
        "o": jnp.asarray(random.normal(size=3), dtype),
    }


def norms(params):
    return np.linalg.norm(np.asarray(params["w"], np.float64), axis=0)


def walked(tx, params, steps):
    """The params after each of some random updates."""
    return walk(tx, params, map(draw, range(1, 1 + steps)), move=step)[0]


@pytest.mark.parametrize("retraction", ["projection", "exponential"])
@pytest.mark.parametrize("radius", ["init", None])
def test_norms_stay(retraction, radius):
    params = draw(0)
    tx = retract(GROUPS, radius=radius, retraction=retraction)
    end = walked(tx, params, 20)[-1]
    # Roundings of 6e-8: two or so a step for None; for "init" four, of a norm
    # that is kept to 2 ulp, and one or two of the norm that is stored.
    tolerance = 3.6e-7 if radius else 20 * 2.4e-7
    np.testing.assert_allclose(norms(end), norms(params), rtol=tolerance)
    free = walked(optax.identity(), params, 20)[-1]
    assert np.min(norms(free) / norms(params)) > 1.2


def test_a_number_moves_groups_onto_its_sphere():
    end = walked(retract(GROUPS, radius=3.0), draw(0), 2)[-1]
    np.testing.assert_allclose(norms(end), 3, rtol=2.4e-7)


def test_ordinary_parameters_pass_to_the_last_bit():
    tx = retract(GROUPS, radius=3.0)
    u, w = draw(1), draw(0)
    got, _ = tx.update(u, tx.init(w), w)
    np.testing.assert_array_equal(got["o"], u["o"])
    assert np.any(got["w"] != u["w"])


def test_exponential_follows_the_tangent_part_of_the_update():
    tx = retract(ScaleGroup(0), retraction="exponential")
    w = jnp.array([2.0, 0.0])
    u, _ = tx.update(jnp.array([5.0, np.pi]), tx.init(w), w)  # pi/2 radians
    # Twice the radius times the rounding of an angle of pi/2.
    np.testing.assert_allclose(w + u, [0, 2], atol=2 * 2 * 1.2e-7)


def test_projection_takes_the_radial_part_into_account():
    tx = retract(ScaleGroup(0))
    w = jnp.array([5.0, 0.0])
    u, _ = tx.update(jnp.array([-2.0, 4.0]), tx.init(w), w)
    np.testing.assert_allclose(w + u, [3, 4], rtol=1e-6)


@pytest.mark.parametrize("radius", ["init", None, 1.0])
@pytest.mark.parametrize("retraction", ["projection", "exponential"])
def test_a_zero_update_of_a_group_moves_none_of_its_bits(radius, retraction):
    w = draw(0)
    w["w"] = w["w"] / jnp.linalg.norm(w["w"], axis=0, keepdims=True)
    u = draw(1)
    u["w"] = u["w"].at[:, 2].set(0)
    tx = retract(GROUPS, radius=radius, retraction=retraction)
    got, _ = tx.update(u, tx.init(w), w)
    assert not got["w"][:, 2].any()
    assert got["w"][:, [0, 1, 3, 4]].all()


def test_a_state_of_other_groups_is_refused():
    tx, w = retract(GROUPS), draw(0)
    state = retract({"w": None, "o": ScaleGroup(0)}).init(w)
    with pytest.raises(ValueError, match="radii.*'o'.*'w'.*init"):
        tx.update(draw(1), state, w)


@pytest.mark.parametrize("axes", [(0, 1), ()])
def test_a_state_of_groups_of_another_shape_is_refused(axes):
    tx, w = retract(GROUPS), draw(0)
    state = retract({"w": ScaleGroup(axes), "o": None}).init(w)
    with pytest.raises(ValueError, match="radii.*'w'.*init"):
        tx.update(draw(1), state, w)


@pytest.mark.parametrize("bad", [np.inf, np.nan, 1e20])
@pytest.mark.parametrize(
    "make", [retract, rescale_weights, lambda g: retract(g, radius=None)]
)
def test_an_update_beyond_float32_spoils_its_group_and_no_other(make, bad):
    tx, w, u = make(GROUPS), draw(0), draw(1)
    clean, _ = tx.update(u, tx.init(w), w)
    u["w"] = u["w"].at[3, 2].set(bad)
    got, _ = tx.update(u, tx.init(w), w)
    assert np.isnan(got["w"][:, 2]).all()
    others = np.array([0, 1, 3, 4])
    np.testing.assert_array_equal(got["w"][:, others], clean["w"][:, others])


@pytest.mark.parametrize(
    "make",
    [
        retract,
        rescale_weights,
        lambda g: retract(g, retraction="exponential"),
        lambda g: psi_sgdm(0.5, g),
        lambda g: psi_sgdm(0.5, g, retraction=None),
        lambda g: psi_sgd(0.5, g),
        lambda g: psi_sgd(0.5, g, retraction=None),
    ],
)
def test_a_group_of_one_element_never_turns(make):
    w = jnp.array([[1.0, -1.0]])
    tx = make(ScaleGroup(0))
    got, _ = tx.update(jnp.array([[-10.0, 4.0]]), tx.init(w), w)
    assert not got.any()


def test_tangent_part_of_updates():
    w, u = draw(0), draw(1)
    tx = project_to_tangent(GROUPS)
    got, _ = tx.update(u, tx.init(w), w)
    radial = np.sum(np.asarray(got["w"] * w["w"], np.float64), axis=0)
    # Nine products of size one, each rounded to 6e-8.
    np.testing.assert_allclose(radial, 0, atol=1e-6)
    np.testing.assert_array_equal(got["o"], u["o"])
    assert np.max(np.abs(np.sum(u["w"] * w["w"], axis=0))) > 1


def test_rescaling_every_third_step():
    steps = walked(rescale_weights(GROUPS, radius=2.0, every=3), draw(0), 7)
    on_sphere = [np.allclose(norms(p), 2, rtol=2.4e-7) for p in steps]
    assert on_sphere == [False, False, True, False, False, True, False]
    free = walked(optax.identity(), draw(0), 2)
    np.testing.assert_array_equal(steps[1]["w"], free[1]["w"])


def test_rescaling_leaves_zero_groups_and_ordinary_parameters():
    w, u = draw(0), draw(1)
    w["w"] = w["w"].at[:, 1].set(0)
    tx = rescale_weights(GROUPS)
    got, state = tx.update(u, tx.init(w), w)
    assert not got["w"][:, 1].any()
    np.testing.assert_array_equal(got["o"], u["o"])
    assert state.count == 1
