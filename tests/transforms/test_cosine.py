"""The published test of AdamP: when a gradient looks orthogonal."""

import numpy as np
import optax
import pytest

from psi_optax import project_by_cosine

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
