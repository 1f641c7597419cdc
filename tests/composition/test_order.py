"""In front of psi, inside of it, and behind it: three places in a chain.

Inside, gradients are those of directions and a retraction comes after. In front
they are raw, 1/r of that, so that only what is linear in each group is the same
there. Behind, whatever is changed is no longer the way back to the sphere.
"""

import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi
from tests.composition.runs import COLUMNS, lengths, run, scales_exactly

GROUP = ScaleGroup(axes=0)
TRANSFORMS = {
    # Gradients in direction space are about 0.3 long here, and 4 at the end.
    "clip_by_global_norm": lambda: optax.clip_by_global_norm(0.2),
    "clip": lambda: optax.clip(0.05),
    "ema": lambda: optax.ema(0.5, debias=False),
}
PLACES = {
    "front": lambda tx: optax.chain(tx, psi(optax.sgd(0.2), GROUP)),
    "inside": lambda tx: psi(optax.chain(tx, optax.sgd(0.2)), GROUP),
    "behind": lambda tx: optax.chain(psi(optax.sgd(0.2), GROUP), tx),
}
# Which places see no scale: of clips one; of what is linear, all.
SCALELESS = {"clip_by_global_norm": {"inside"}, "clip": {"inside"}}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_where_no_scale_is_seen(name, place):
    expected = place in SCALELESS.get(name, PLACES)
    assert scales_exactly(PLACES[place](TRANSFORMS[name]())) == expected


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_where_norms_are_kept(name):
    path = {
        place: [w for w, _ in run(make(TRANSFORMS[name]()))]
        for place, make in PLACES.items()
    }
    for place in ("front", "inside"):
        # Corrected at every step: some roundings of a norm of 9 weights.
        np.testing.assert_allclose(lengths(path[place][-1]), 1, rtol=2e-15)
    off = np.abs(np.array([lengths(w) for w in path["behind"]]) - 1)
    assert off.max() > 1e-4
    # And what it is about does something.
    plain = run(psi(optax.sgd(0.2), GROUP))[-1][0]
    assert np.abs(path["inside"][-1] - plain).max() > 1e-3


@pytest.mark.usefixtures("x64")
def test_a_clip_in_front_is_a_rate_that_depends_on_the_norms():
    """The loss falls the less, the shorter the weights; inside, the same."""
    clip = optax.clip_by_global_norm(0.2)
    mean = np.mean(COLUMNS.batches, axis=0)
    small = COLUMNS.params * 1e-3
    for place, least in (("front", 0.3), ("inside", None)):
        tx = PLACES[place](clip)
        found, shrunk = (
            COLUMNS.loss(run(tx, start=start)[-1][0], mean)
            for start in (COLUMNS.params, small)
        )
        if least is None:
            np.testing.assert_allclose(shrunk, found, rtol=1e-12)
        else:
            assert shrunk > found + least
