"""Colours of methods: one each, and the colour-blind tell them apart."""

import itertools

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.colors import to_rgb

from benchmarks.experiments import matched
from benchmarks.experiments.accuracy.experiment import GRIDS
from benchmarks.experiments.averaging.methods import LABELS as AVERAGED
from benchmarks.experiments.batch_size.rules import LOWEST
from benchmarks.experiments.defaults.methods import METHODS as DEFAULTS
from benchmarks.experiments.edge.methods import METHODS as AT_THE_EDGE
from benchmarks.experiments.language.report import LABELS as OF_LANGUAGE
from benchmarks.experiments.transfer.methods import METHODS as TRANSFERRED
from benchmarks.experiments.unbalanced.experiment import COMPARED
from benchmarks.harness.colours import LOOKS, METHODS, in_order, look, ordered

# Red, green and blue light that people without one kind of cone see alike:
# Machado, Oliveira and Fernandes, IEEE TVCG 15(6), 2009, severity 1.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
# CIE XYZ of sRGB's light, relative to its white.
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
TOLD_APART = 15.0
"""A distance in CIELAB; one of about 2 is just noticed between large areas."""


def lab(color, seen):
    """Return the CIELAB coordinates of a colour, as it is seen."""
    x = np.array(to_rgb(color))
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    t = XYZ @ np.clip(SEEN[seen] @ light, 0, 1) / XYZ.sum(1)
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(colors, seen):
    """Return the least distance between two of some colours."""
    pairs = itertools.combinations([lab(x, seen) for x in colors], 2)
    return min(np.linalg.norm(x - y) for x, y in pairs)


def colors(looks):
    return {x["color"] for x in looks}


def test_every_method_has_a_look_of_its_own():
    named = (matched.LABELS, AVERAGED, DEFAULTS, AT_THE_EDGE, OF_LANGUAGE)
    others = GRIDS, LOWEST, TRANSFERRED, COMPARED
    for name in itertools.chain(*named, *others):
        assert look(name) in METHODS.values()
    looks = [tuple(x.values()) for x in METHODS.values()]
    assert len(set(looks)) == len(looks)
    with pytest.raises(KeyError):
        look("no method")


def test_methods_are_listed_in_one_order():
    assert in_order(reversed(METHODS)) == list(METHODS)


@pytest.mark.parametrize("seen", SEEN)
def test_colours_are_told_apart(seen):
    assert nearest(colors(METHODS.values()), seen) > TOLD_APART
    assert nearest(colors(LOOKS), seen) > TOLD_APART


def test_the_simulation_finds_colours_that_look_alike():
    alike = {
        "deuteranopia": ("#882255", "#606060"),
        "protanopia": ("#AA2222", "#444422"),
    }
    for seen, pair in alike.items():
        assert nearest(pair, "all cones") > 2 * TOLD_APART
        assert nearest(pair, seen) < TOLD_APART
    # White stays white.
    for seen in SEEN:
        np.testing.assert_allclose(lab("white", seen), [100, 0, 0], atol=0.01)


def test_looks_differ_in_their_markers_too():
    for looks in (LOOKS, ordered(6)):
        markers = {x["marker"] for x in looks}
        assert len(markers) == len(colors(looks)) == len(looks)


def test_ordered_values_go_from_light_to_dark():
    for seen in SEEN:
        lightness = [lab(x["color"], seen)[0] for x in ordered(6)]
        assert np.all(np.diff(lightness) < 0)
