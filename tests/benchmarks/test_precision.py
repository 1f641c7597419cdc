"""The numbers of docs/precision.md: how they are taken, and what they say."""

import json

import numpy as np
import pytest

from benchmarks import pages, precision
from benchmarks.precision import MODES, Long


def test_float32_turns_as_it_is_asked_to():
    (found,) = precision.follow(MODES["float32"], 1e-2, 20).values()
    # A step of 0.01 rad is rounded to 2^-24 of the weights, one in 1e5 of it.
    assert found["first_length"] == pytest.approx(1, abs=1e-5)
    assert found["first_cosine"] == pytest.approx(1, abs=1e-5)
    assert found["progress"] == pytest.approx(1, abs=1e-5)
    assert found["aside"] < 20 * 1e-7


def test_more_than_a_whole_turn_is_counted():
    (found,) = precision.follow(MODES["float32"], 0.5, 20).values()
    assert found["progress"] == pytest.approx(1, abs=1e-5)


def test_bfloat16_does_not_move_by_less_than_its_spacing():
    (found,) = precision.follow(MODES["bfloat16"], 1e-6, 3).values()
    # Of 576 normal weights hardly one is so small that it moves.
    assert found["first_length"] < 0.1
    assert found["progress"] < 0.1


def test_master_weights_are_shown_with_their_copies():
    found = precision.follow(MODES["bfloat16, master weights"], 1e-4, 20)
    assert set(found) == {"weights", "copies"}
    assert found["copies"]["first_cosine"] == pytest.approx(1, abs=1e-3)
    assert found["weights"]["first_cosine"] < 0.5


def test_norms_that_are_followed():
    kept = precision.norms(Long("float32"), 300)
    assert kept["early"] <= kept["largest"] < 3 * 2.0**-23
    assert kept["last"] <= kept["largest"]
    # Momentum 0.9 at 0.05: 0.05 / sqrt(1 - 0.81) = 0.11, and less in the
    # beginning.
    assert 0.05 < kept["angle"] < 0.13
    # The control.
    coarse = precision.norms(Long("bfloat16"), 300)
    assert coarse["largest"] > 100 * kept["largest"]


def test_the_script_writes_numbers_and_page(tmp_path, monkeypatch):
    numbers = kept()
    monkeypatch.setattr(precision, "run", lambda n: {**numbers, "long": n})
    page = tmp_path / "precision.md"
    text = (pages.DOCS / "precision.md").read_text(encoding="utf-8")
    page.write_text(text, encoding="utf-8")
    monkeypatch.setattr(precision, "_PAGE", page)
    out = tmp_path / "out"
    precision.main(["--steps", "1234", "--out", str(out), "--docs"])
    assert json.loads((out / "precision.json").read_text())["long"] == 1234
    assert (tmp_path / "numbers" / "precision.json").exists()
    assert "1,234 noisy steps" in page.read_text(encoding="utf-8")


# What the page says in words.


def kept():
    path = pages.DOCS / "numbers" / "precision.json"
    return json.loads(path.read_text(encoding="utf-8"))


def turns(mode, name="weights"):
    """By angle."""
    return {
        float(angle): found[name]
        for angle, found in kept()["turns"][mode].items()
    }


def test_which_mode_turns_at_which_angle():
    brain, half = turns("bfloat16"), turns("float16")
    assert 0.98 < brain[1e-2]["first_cosine"] < 0.995
    assert abs(brain[1e-2]["progress"] - 1) < 0.01
    assert 0.6 < brain[3e-3]["progress"] < 0.7
    assert 0.15 < brain[1e-3]["progress"] < 0.25
    assert 0.01 < brain[1e-4]["progress"] < 0.03
    assert abs(half[1e-3]["progress"] - 1) < 0.01
    assert 0.3 < half[1e-4]["progress"] < 0.4
    drawn = turns("bfloat16, stochastic rounding")
    assert all(abs(x["progress"] - 1) < 0.01 for x in drawn.values())
    assert 0.06 < drawn[1e-2]["aside"] < 0.08
    assert 0.008 < drawn[1e-5]["aside"] < 0.01
    for mode, name in (
        ("float32", "weights"),
        ("bfloat16, master weights", "copies"),
    ):
        for found in turns(mode, name).values():
            assert abs(found["progress"] - 1) < 1e-3
            assert found["aside"] < 1e-3
    seen = turns("bfloat16, master weights")
    assert all(0.0015 < x["aside"] < 0.0018 for x in seen.values())


def test_the_cosines_are_those_of_others():
    # As simulated elsewhere, for weights of another kind: 0.986 at 0.01 rad,
    # 0.89 at 0.003, 0.62 at 0.001, 0.18 at 0.0001.
    found = turns("bfloat16")
    cosines = [x["first_cosine"] for x in found.values()][:4]
    np.testing.assert_allclose(cosines, [0.986, 0.89, 0.62, 0.18], atol=0.03)


def test_how_far_norms_go():
    found = {
        (x["mode"], x["optimizer"], x["radius"]): x for x in kept()["norms"]
    }
    assert kept()["long"] == 1_000_000
    for (mode, _, radius), x in found.items():
        if mode == "float32" and radius:
            assert x["largest"] < 2 * 2.0**-23
        if radius:  # Nothing adds up after the first tenth.
            assert x["largest"] < 1.5 * x["early"]
    assert 1e-6 < found["float32", "psi_sgd", None]["largest"] < 1e-4
    assert -0.92 < found["bfloat16", "psi_sgd", None]["last"] < -0.9
    drawn = found["bfloat16, stochastic rounding", "psi_sgd", None]
    assert 27 < drawn["largest"] < 31
