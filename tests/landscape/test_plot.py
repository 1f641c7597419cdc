"""Plots show what they are given."""

import sys

import numpy as np
import pytest

from psi_optax.landscape import (
    Spectrum,
    plot_edge,
    plot_spectrum,
    plot_surface,
)

SPECTRUM = Spectrum(
    np.array([[0.0, 1.0, 3.0], [0.0, 1.0, 0.0]]),
    np.array([[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]]),
    size=8,
)


def test_a_density_has_the_mass_and_the_mean_of_the_spectrum():
    [axes] = plot_spectrum(SPECTRUM, width=0.1).axes
    [line] = axes.lines
    x, density = line.get_data()
    step = x[1] - x[0]
    # The grid ends five widths outside, and has 25 points a width.
    np.testing.assert_allclose(density.sum() * step, 1, rtol=1e-5)
    mean = (SPECTRUM.values * SPECTRUM.weights).sum(1).mean()
    np.testing.assert_allclose((x * density).sum() * step, mean, rtol=1e-5)
    narrow = plot_spectrum(SPECTRUM).axes[0].lines[0].get_data()[1]
    assert narrow.max() > 2 * density.max()


def test_a_surface_is_a_line_or_contours():
    steps = np.array([-1.0, 0.0, 1.0])
    [axes] = plot_surface(steps**2, steps).axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1, 0, 1])
    losses = steps[:, None] ** 2 + 0 * steps
    axes, _ = plot_surface(losses, steps).axes
    [contours] = axes.collections
    middle = contours.get_paths()[len(contours.get_paths()) // 2].vertices
    # The loss depends on the first direction alone, which is horizontal.
    assert np.ptp(np.abs(middle[:, 0])) < 1e-12
    assert np.ptp(middle[:, 1]) == 2
    for bad in (losses[:2], losses[0, :2], losses[..., None]):
        with pytest.raises(ValueError, match="shape"):
            plot_surface(bad, steps)


def test_an_edge_is_relative_to_its_threshold():
    figure = plot_edge([10.0, 20.0], [20.0, 10.0], steps=[0, 5])
    line, edge = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_data(), [[0, 5], [0.5, 2.0]])
    assert set(edge.get_ydata()) == {1.0}
    runs = plot_edge([[10.0, 1.0], [20.0, 2.0], [30.0, 3.0]], [10.0, 2.0])
    first, second, _ = runs.axes[0].lines
    np.testing.assert_array_equal(first.get_data(), [[0, 1, 2], [1, 2, 3]])
    np.testing.assert_array_equal(second.get_ydata(), [0.5, 1.0, 1.5])
    for bad in ({"steps": [0]}, {"sharpness": 1.0}, {"sharpness": [[[1.0]]]}):
        with pytest.raises(ValueError, match="shape"):
            plot_edge(**{"sharpness": [1.0, 2.0], "threshold": 1.0, **bad})


def test_a_spectrum_that_is_not_finite():
    with pytest.raises(ValueError, match="non-finite"):
        plot_spectrum(SPECTRUM._replace(values=SPECTRUM.values * np.nan))
    with pytest.raises(ValueError, match="width"):
        plot_spectrum(SPECTRUM, width=0.0)


def test_matplotlib_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="plot_edge needs matplotlib"):
        plot_edge([1.0], 1.0)
