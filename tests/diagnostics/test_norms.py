"""group_norms, normalize and rotation on trees."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, group_norms, normalize, rotation

PARAMS = {
    "k": jnp.array([[3.0, 0.0], [4.0, 0.0]]),
    "b": jnp.array([12.0, 0.0]),
    "o": jnp.ones(3),
}
GROUPS = {"k": ScaleGroup(0, tie="t"), "b": ScaleGroup((), tie="t"), "o": None}


def test_tied_leaves_show_their_joint_norm():
    norms = group_norms(PARAMS, GROUPS)
    assert norms["k"].tolist() == norms["b"].tolist() == [13, 0]
    assert norms["o"] is None


def test_normalize():
    got = normalize(PARAMS, GROUPS, 26.0)
    assert got["k"].tolist() == [[6, 0], [8, 0]]
    assert got["b"].tolist() == [24, 0]
    np.testing.assert_array_equal(got["o"], PARAMS["o"])


def test_normalize_keeps_the_dtype():
    for dtype in ["bfloat16", "float16"]:
        w = jnp.full((64, 2), 0.1, dtype)
        got = normalize(w, ScaleGroup(0))
        assert got.dtype == dtype
        assert np.all(np.asarray(got) == 0.125)


@pytest.mark.parametrize("radius", [0, -1.0, float("nan")])
def test_normalize_to_no_radius(radius):
    with pytest.raises(ValueError, match="radius="):
        normalize(PARAMS, GROUPS, radius)


def test_rotation_is_of_the_joint_group():
    new = {**PARAMS, "b": jnp.array([0.0, 0.0])}
    turned = rotation(PARAMS, new, GROUPS)
    assert turned["o"] is None
    # cos = 5 / 13; a float32 arctangent is right to a few 6e-8.
    np.testing.assert_allclose(turned["b"][0], np.arccos(5 / 13), rtol=3e-7)
    assert turned["k"].tolist() == turned["b"].tolist()
    assert turned["k"][1] == 0


def test_trees_must_agree():
    with pytest.raises(ValueError, match=r"'k' of shape \(2, 2\).*new"):
        rotation(PARAMS, {"b": PARAMS["b"], "o": PARAMS["o"]}, GROUPS)


def test_masks_stay_masks():
    masked = {**PARAMS, "o": optax.MaskedNode()}
    assert group_norms(masked, GROUPS)["o"] == optax.MaskedNode()
    assert normalize(masked, GROUPS)["o"] == optax.MaskedNode()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_weights_are_those_that_differ_by_rounding(dtype, x64):
    """Up to 64 precisions of the norm; every number here is exact."""
    eps = float(jnp.finfo(dtype).eps)
    signs = np.array([[1], [-1], [1], [-1]])
    w = jnp.asarray(1 + eps * signs * [0, 1, 2, 64, 65, 200], dtype)
    got = np.asarray(normalize(w, ScaleGroup(0), 2.0, centered=True))
    assert got.dtype == w.dtype
    np.testing.assert_array_equal(got[:, :4], w[:, :4])
    # Beyond it a group has a direction: its signs, at the radius.
    np.testing.assert_array_equal(got[:, 4:], np.broadcast_to(signs, (4, 2)))
