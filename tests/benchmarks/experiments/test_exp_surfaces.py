"""Surfaces: directions, Li's identity, and paths between solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

pytest.importorskip("sklearn")

from benchmarks import data
from benchmarks.experiments.dense import (
    EXACT,
    DenseNetwork,
    columns,
    rescale,
    training_loss,
)
from benchmarks.experiments.noisy_data import first
from benchmarks.experiments.surfaces.paths import barrier, path
from benchmarks.experiments.surfaces.planes import draw, identity, surface
from benchmarks.experiments.surfaces.report import STARTS, faults
from psi_optax._compat import enable_x64

pytestmark = pytest.mark.usefixtures("optax_promotion")

DIGITS = first(data.load("digits"), 64)
BATCH = DIGITS.train_images, DIGITS.train_labels
STEPS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0], np.float32)
KEY = jax.random.key(3)


def network(normalized, seed=1):
    model = DenseNetwork(
        (6, 6), normalized=normalized, activation=nn.relu, **EXACT
    )
    start = model.init(jax.random.key(seed), BATCH[0][:2], train=False)
    return training_loss(model), start["params"]


def test_directions_have_their_norms():
    _, params = network(True)
    groups = columns(params)
    drawn = draw(params, groups, KEY)
    w = np.asarray(params["hidden_0"]["kernel"])
    filters, angles = (np.asarray(x["hidden_0"]["kernel"]) for x in drawn[1:])
    norms = np.linalg.norm(w, axis=0)
    # float32 sums of 64 squares.
    np.testing.assert_allclose(np.linalg.norm(filters, axis=0), norms, 1e-5)
    np.testing.assert_allclose(np.linalg.norm(angles, axis=0), 1, 1e-5)
    assert np.abs((w * angles).sum(0) / norms).max() < 1e-6
    # The control: a direction of filters has a radial part.
    assert np.abs((w * filters).sum(0) / norms**2).max() > 0.05
    lengths = [
        np.sqrt(sum(np.sum(np.square(layer["kernel"])) for layer in kernels))
        for kernels in (
            [x for x in tree.values() if "kernel" in x]
            for tree in (params, drawn.weights)
        )
    ]
    np.testing.assert_allclose(*lengths, rtol=1e-5)
    assert not np.any(drawn.weights["norm_0"]["scale"])


@pytest.mark.parametrize(("normalized", "same"), [(True, True), (False, False)])
def test_points_of_filters_are_points_of_angles(normalized, same):
    with enable_x64(True):
        loss, params = network(normalized)
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        batch = BATCH[0].astype(np.float64), BATCH[1]
        groups = columns(wide)
        direction = draw(wide, groups, KEY)
        steps = STEPS.astype(np.float64)
        found = identity(loss, wide, batch, direction, steps, groups)
    # Rounding of losses of size 1 to 10. Without a norm radial parts count.
    assert (found < 1e-12) == same
    assert same or found > 1e-2


def test_surfaces_by_filters_and_angles_ignore_scale_and_by_weights_do_not():
    loss, params = network(True)
    groups, other = columns(params), rescale(params, True, 3)
    one, two = (draw(x, groups, KEY) for x in (params, other))
    for index, known in ((1, None), (2, groups)):
        before, after = (
            surface(loss, x, BATCH, [d[index]], STEPS, known)
            for x, d in ((params, one), (other, two))
        )
        np.testing.assert_array_equal(before, after)
    before, after = (
        surface(loss, x, BATCH, [one.weights], STEPS, None)
        for x in (params, other)
    )
    assert np.abs(before - after).max() > 0.01


def test_geodesics_ignore_the_scale_of_one_end_and_lines_do_not():
    loss, start = network(True)
    _, end = network(True, seed=2)
    groups, other = columns(start), rescale(end, True, 3)
    curved, straight = (
        [path(loss, (start, x), BATCH, 5, known) for x in (end, other)]
        for known in (groups, None)
    )
    # float32 losses of size 2, of weights that are off by 1e-7.
    np.testing.assert_allclose(*curved, rtol=1e-5)
    assert np.abs(np.subtract(*straight)).max() > 0.01


def test_a_barrier_is_above_the_line_between_the_ends():
    assert barrier([1.0, 2.0, 3.0]) == 0
    assert barrier([1.0, 0.5, 2.5, 2.5]) == 0.5


def test_a_dependence_on_scale_is_a_fault():
    angles = {"difference": 0.0, "range": 2.0}
    paths = {"geodesic": {"trained": [[1.0, 2.0]], "rescaled": [[1.0, 2.0]]}}
    parts = {"BatchNorm, surfaces": {"surfaces": {"angles": angles}}}
    parts |= {f"BatchNorm, paths, {start}": paths for start in STARTS}
    assert not faults({"parts": parts})
    angles["difference"] = 0.1
    paths["geodesic"]["rescaled"] = [[1.0, 2.1]]
    assert len(faults({"parts": parts})) == 3
