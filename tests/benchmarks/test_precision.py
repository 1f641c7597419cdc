"""The numbers of docs/precision.md: how they are taken, and what they say."""

import numpy as np
import pytest

from benchmarks.experiments.precision.norms import Long, norms
from benchmarks.experiments.precision.turns import follow
from benchmarks.harness.pages import DOCS
from benchmarks.harness.results import read

CONTENT = read(DOCS / "numbers" / "precision.json")
ROUNDED, DRAWN = "bfloat16", "bfloat16, stochastic rounding"
MASTER = "bfloat16, master weights"


# A step of 0.01 rad is rounded to 2^-24 of the weights, one in 1e5 of it; 20
# steps of 0.5 rad are more than a whole turn.
@pytest.mark.parametrize("angle", [1e-2, 0.5])
def test_float32_turns_as_it_is_asked_to(angle):
    (found,) = follow("float32", angle, 20).values()
    aside = found.pop("aside")
    assert aside < 20 * 1e-7
    assert found == pytest.approx(dict.fromkeys(found, 1), abs=1e-5)


def test_bfloat16_does_not_move_by_less_than_its_spacing_and_copies_do():
    (found,) = follow(ROUNDED, 1e-6, 3).values()
    # Of 576 normal weights hardly one is so small that it moves.
    assert max(found["first_length"], found["progress"]) < 0.1
    found = follow(MASTER, 1e-4, 20)
    assert set(found) == {"weights", "copies"}
    assert found["copies"]["first_cosine"] == pytest.approx(1, abs=1e-3)
    assert found["weights"]["first_cosine"] < 0.5


def test_norms_that_are_followed():
    kept = norms(Long("float32"), 300)
    assert kept["early"] <= kept["largest"] < 3 * 2.0**-23
    assert kept["last"] <= kept["largest"]
    # Momentum 0.9 at 0.05: 0.05 / sqrt(1 - 0.81) = 0.11, and less at first.
    assert 0.05 < kept["angle"] < 0.13
    assert norms(Long(ROUNDED), 300)["largest"] > 100 * kept["largest"]


def kept_turns(mode, what, name="weights"):
    """Return the recorded numbers by angle, the largest first."""
    return [x[name][what] for x in CONTENT["parts"]["turns"][mode].values()]


def test_which_mode_turns_at_which_angle():
    assert CONTENT["settings"]["angles"] == [1e-2, 3e-3, 1e-3, 1e-4, 1e-5]
    brain, half = (kept_turns(x, "progress") for x in (ROUNDED, "float16"))
    np.testing.assert_allclose(brain[:4], [1, 0.65, 0.2, 0.02], rtol=0.25)
    np.testing.assert_allclose(half[2:4], [1, 0.35], rtol=0.1)
    np.testing.assert_allclose(brain[0], 1, atol=0.01)
    np.testing.assert_allclose(kept_turns(DRAWN, "progress"), 1, atol=0.01)
    aside = kept_turns(DRAWN, "aside")
    assert 0.06 < aside[0] < 0.08
    assert 0.008 < aside[-1] < 0.01
    for mode, name in ("float32", "weights"), (MASTER, "copies"):
        assert max(kept_turns(mode, "aside", name)) < 1e-3
        progress = kept_turns(mode, "progress", name)
        np.testing.assert_allclose(progress, 1, atol=1e-3)
    seen = kept_turns(MASTER, "aside")
    assert 0.0015 < min(seen) <= max(seen) < 0.0018
    # As simulated elsewhere, for weights of another kind: 0.986 at 0.01 rad,
    # 0.89 at 0.003, 0.62 at 0.001, 0.18 at 0.0001.
    cosines = kept_turns(ROUNDED, "first_cosine")[:4]
    np.testing.assert_allclose(cosines, [0.986, 0.89, 0.62, 0.18], atol=0.03)


def test_how_far_norms_go():
    found = {Long(*list(x.values())[:3]): x for x in CONTENT["parts"]["norms"]}
    assert CONTENT["settings"]["steps"] == 1_000_000
    for run, x in found.items():
        if run.radius == "init":  # Nothing adds up after the first tenth.
            assert x["largest"] < 1.5 * x["early"]
            assert run.mode != "float32" or x["largest"] < 2 * 2.0**-23
    assert 1e-6 < found[Long("float32", radius="none")]["largest"] < 1e-4
    assert -0.92 < found[Long(ROUNDED, radius="none")]["last"] < -0.9
    assert 27 < found[Long(DRAWN, radius="none")]["largest"] < 31
