"""scale_by_group_norm and clip_by_group_norm."""

import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup
from psi_optax.transforms import clip_by_group_norm, scale_by_group_norm

GROUPS = {"k": ScaleGroup(0, tie="t"), "b": ScaleGroup((), tie="t"), "o": None}
W = {
    "k": jnp.array([[2.0, 0.0], [6.0, 0.0]]),
    "b": jnp.array([3.0, 0.0]),
    "o": jnp.array([5.0]),
}


def run(tx, updates, params=W):
    return tx.update(updates, tx.init(params), params)[0]


def test_scales_by_the_joint_norm_of_tied_leaves():
    ones = {"k": jnp.ones((2, 2)), "b": jnp.ones(2), "o": jnp.ones(1)}
    got = run(scale_by_group_norm(GROUPS), ones)
    assert got["k"].tolist() == [[7, 0], [7, 0]]
    assert got["b"].tolist() == [7, 0]
    assert got["o"].tolist() == [1]


def test_a_group_of_norm_zero_gets_zero_even_from_nan():
    bad = {"k": jnp.full((2, 2), jnp.nan), "b": jnp.ones(2), "o": jnp.ones(1)}
    got = run(scale_by_group_norm(GROUPS), bad)
    assert got["k"][:, 1].tolist() == [0, 0]
    assert jnp.isnan(got["k"][:, 0]).all()


def test_half_precision_neither_overflows_nor_vanishes_in_between():
    w = jnp.full((4, 1), 300.0, jnp.float16)  # |w|² is beyond float16.
    g = jnp.full((4, 1), 1e-4, jnp.float16)
    tx = scale_by_group_norm(ScaleGroup(0))
    got = run(tx, g, w)
    assert got.dtype == jnp.float16
    np.testing.assert_allclose(got, 0.06, rtol=1e-3)  # Half a float16 ulp.


def test_clip_shortens_long_groups_and_touches_no_other():
    u = {
        "k": jnp.array([[0.3, 4.0], [0.1, 0.0]]),
        "b": jnp.array([0.2, 3.0]),
        "o": jnp.array([100.0]),
    }
    got = run(clip_by_group_norm(GROUPS, 1.0), u)
    np.testing.assert_array_equal(got["k"][:, 0], u["k"][:, 0])
    np.testing.assert_allclose(got["k"][:, 1], [0.8, 0], rtol=1e-6)
    np.testing.assert_allclose(got["b"], [0.2, 0.6], rtol=1e-6)
    assert got["o"] == 100


def test_clip_needs_no_params_and_keeps_zero_and_nan():
    u = {
        "k": jnp.array([[0.0, jnp.nan], [0.0, 1.0]]),
        "b": jnp.zeros(2),
        "o": jnp.zeros(1),
    }
    tx = clip_by_group_norm(GROUPS, 1.0)
    got, _ = tx.update(u, tx.init(W))
    assert got["k"][:, 0].tolist() == [0, 0]
    assert jnp.isnan(got["k"][:, 1]).all()


def test_clip_does_not_hide_what_is_infinite():
    u = jnp.array([[jnp.inf, 3.0], [1.0, 4.0]])
    tx = clip_by_group_norm(ScaleGroup(0), 1.0)
    got, _ = tx.update(u, tx.init(u))
    assert jnp.isnan(got[:, 0]).all()
    np.testing.assert_allclose(got[:, 1], [0.6, 0.8], rtol=1e-6)


def test_wrong_groups_show_in_init():
    wrong = ScaleGroup(2)
    for tx in [scale_by_group_norm(wrong), clip_by_group_norm(wrong, 1.0)]:
        with pytest.raises(ValueError, match=r"'b' of shape \(2,\)"):
            tx.init(W)
