"""The published test of AdamP: when a gradient looks orthogonal."""

import numpy as np
import optax
import pytest

from psi_optax.wrappers import project_by_cosine

# 16 weights of one channel: a cosine counts as none below 0.1 over their root.
BOUND = 0.1 / 4


@pytest.mark.parametrize(("share", "projects"), [(0.99, True), (1.01, False)])
def test_the_bound_falls_with_the_root_of_the_number(x64, share, projects):
    w, g = np.zeros((16, 1)), np.zeros((16, 1))
    w[0] = 3
    cosine = share * BOUND
    g[:2, 0] = cosine, np.sqrt(1 - cosine**2)
    tx = project_by_cosine(optax.identity())
    u, _ = tx.update(g, tx.init(w), w)
    assert (abs(u[0, 0]) < 1e-9) == projects
    np.testing.assert_array_equal(u[1:], g[1:])


@pytest.mark.parametrize("channels", ["last", "first"])
@pytest.mark.parametrize(("share", "projects"), [(0.99, True), (1.01, False)])
def test_the_bound_of_the_whole_view(x64, share, projects, channels):
    # A radial channel hides the view by channel. As one vector of 64 weights
    # the cosine is share times 0.1 over the root of 64, half of BOUND.
    w, g = np.zeros((16, 4)), np.zeros((16, 4))
    w[0] = 3
    cosine = share * 0.1 / 8
    g[0, 0] = 2 * cosine
    g[1, 1] = np.sqrt(1 - g[0, 0] ** 2)
    expected = g - w * (w * g).sum() / (w * w).sum() if projects else g
    if channels == "first":
        w, g, expected = w.T, g.T, expected.T
    tx = project_by_cosine(optax.identity(), channels=channels)
    u, _ = tx.update(g, tx.init(w), w)
    # The epsilon of 1e-8 beside a norm of 6 leaves some of the radial part.
    np.testing.assert_allclose(u, expected, atol=1e-9)
    assert (np.abs(expected - g).max() > 1e-3) == projects


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("weights", "gradients"), [(1.0, 1.0), (1e-8, 1.0), (1.0, 1e-8)]
)
@pytest.mark.parametrize(("share", "projects"), [(0.99, True), (1.01, False)])
def test_epsilon_is_added_to_norms(
    x64, share, projects, weights, gradients, channels
):
    # Norms as small as the epsilon of 1e-8 count twice, the others once.
    bound = BOUND * (1 + 1e-8 / weights) * (1 + 1e-8 / gradients)
    cosine = share * bound
    w, g = np.zeros((16, channels)), np.zeros((16, channels))
    w[0] = weights
    g[0], g[1] = gradients * cosine, gradients * np.sqrt(1 - cosine**2)
    tx = project_by_cosine(optax.identity())
    u, _ = tx.update(g, tx.init(w), w)
    assert (np.abs(u - g).max() > 0.1 * g[0, 0]) == projects


def test_vectors_are_never_projected(x64):
    w, g = np.array([3.0, 0, 0]), np.array([1e-3, 1, 0])
    tx = project_by_cosine(optax.identity(), weight_decay=0.5)
    u, _ = tx.update(g, tx.init(w), w)
    np.testing.assert_array_equal(u, g + 0.5 * w)
    # The control: a column of the same numbers is, and decays a tenth.
    w, g = w[:, None], g[:, None]
    u, _ = tx.update(g, tx.init(w), w)
    # The epsilon of 1e-8 beside a norm of 3 leaves some of the radial part.
    np.testing.assert_allclose(u[:, 0], [0.15, 1, 0], atol=1e-10)
