"""Sharpness: its trainings, their eigenvalues, and the numbers kept."""

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matfree")

from benchmarks.experiments.full_batch import Lengths, make_problem
from benchmarks.experiments.noisy_data import split
from benchmarks.experiments.sharpness.decay import flow, make_decay_run
from benchmarks.experiments.sharpness.grid import Sizes, make_training
from benchmarks.experiments.sharpness.report import DESCENTS
from benchmarks.harness import pages, results

pytestmark = pytest.mark.usefixtures("optax_promotion")

SIZES = Sizes(widths=(8,), steps=10, seeds=2, radius=0.5, dropout=0.5)


@pytest.fixture(scope="module")
def digits():
    return split("digits", 100, 0, 2, 0.0)[1]


def test_decay_shortens_grouped_kernels_alone(digits):
    with jax.numpy_dtype_promotion("standard"):
        problem = make_problem(digits, (4,), seed=0)
    lengths = Lengths(total=20, record=10, check=20)
    run = make_decay_run(problem, lengths)
    with_decay, without = run(0.1, 0.5), run(0.1, 0.0)
    norms = [x["norms"]["hidden_0"] for x in (with_decay, without)]
    # A factor of 1 - 0.05 each step; gradients lengthen weights a little.
    start = np.linalg.norm(problem.params["hidden_0"]["kernel"])
    np.testing.assert_allclose(norms[0][1], start * 0.95**20, rtol=0.15)
    assert norms[1][1] > start
    # Shorter weights have a larger plain eigenvalue.
    assert with_decay["plain"][1] > without["plain"][1]


def test_additions_change_the_training(digits):
    names = ("none", "sam", "dropout", "batch_norm")
    found = {x: make_training(digits, x, SIZES)(0.1, 20) for x in names}
    for name, run in found.items():
        assert set(run) == {"error", "plain", "spherical", "residual", "loss"}
        assert all(len(x) == SIZES.seeds for x in run.values()), name
    values = [run["plain"][0] for run in found.values()]
    assert len(set(values)) == len(names)


def test_sam_of_radius_zero_is_sgd(digits):
    tiny = SIZES._replace(radius=1e-8)
    sgd, sam, far = (
        make_training(digits, name, sizes)(0.1, 20)["loss"]
        for name, sizes in (("none", tiny), ("sam", tiny), ("sam", SIZES))
    )
    np.testing.assert_allclose(sgd, sam, rtol=1e-4)
    assert np.abs(np.subtract(sgd, far)).min() > 1e-3


def test_the_flow_is_reached_to_first_order():
    coarse = flow(1e-2, times=4, last=0.8)
    # The oracle of tests/landscape/test_flow.py.
    assert coarse["error"] < 0.05
    assert coarse["time"] == [0.2, 0.4, 0.6, 0.8]
    assert coarse["predicted"][-1] < 0.8 * coarse["predicted"][0]


def test_decay_reduces_the_spherical_sharpness_of_the_numbers_kept():
    parts = results.read(pages.DOCS / "numbers" / "sharpness.json")["parts"]
    first, last = (
        [np.median(parts[name]["spherical"][part]) for name in DESCENTS]
        for part in (slice(40), slice(-40, None))
    )
    assert last[0] < 0.7 * first[0]
    # The control: without decay it grows.
    assert last[1] > 1.5 * first[1]
    assert parts["decay"]["plain"][-1] > parts["decay"]["plain"][0]
    errors = [parts[f"flow, {x:g}"]["error"] for x in (1e-2, 1e-3)]
    assert 8 < errors[0] / errors[1] < 12
