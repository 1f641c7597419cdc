"""Plots of spectra, surfaces and edges of stability."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from psi_optax._validation import check_positive
from psi_optax.landscape.spectrum import Spectrum


def plot_spectrum(spectrum: Spectrum, *, width: float | None = None) -> Any:
    """Plot the density of eigenvalues, on a logarithmic axis.

    Each Ritz value is a Gaussian of its weight. Needs matplotlib.

    Args:
        spectrum: the result of `spectral_density`.
        width: standard deviation of the Gaussians; None for 1 % of the range of
            the values.

    Returns:
        A `matplotlib.figure.Figure` without a window, see `plot_monitor`.

    Raises:
        ImportError: matplotlib is missing.
        TypeError: the width is not a number.
        ValueError: the spectrum is non-finite; the width is not positive.

    Examples:
        >>> import numpy as np
        >>> values, weights = np.array([[0.0, 2.0]]), np.array([[0.9, 0.1]])
        >>> figure = plot_spectrum(Spectrum(values, weights, size=10))
        >>> figure.axes[0].get_xlabel()
        'eigenvalue'
    """
    values, weights = np.asarray(spectrum.values), np.asarray(spectrum.weights)
    if not np.all(np.isfinite(values)):
        raise ValueError(
            "the spectrum is non-finite: the loss or its Hessian is."
        )
    held = values[weights > 0]
    low, high = held.min(), held.max()
    if width is None:
        width = 0.01 * (high - low) or 1.0
    check_positive("width", width)
    grid = np.linspace(low - 5 * width, high + 5 * width, 1000)
    figure, axes = _make_figure("plot_spectrum")
    axes.semilogy(grid, _density(values, weights, grid, width))
    axes.set(xlabel="eigenvalue", ylabel="density", ylim=(1e-6, None))
    return figure


def _density(
    values: np.ndarray, weights: np.ndarray, grid: np.ndarray, width: float
) -> np.ndarray:
    """Return the mean over probes of the sum of Gaussians at a grid."""
    z = (grid[:, None] - values.reshape(1, -1)) / width
    bells = np.exp(-z * z / 2) / (width * np.sqrt(2 * np.pi))
    return bells @ weights.ravel() / len(values)


def plot_surface(losses: ArrayLike, steps: ArrayLike) -> Any:
    """Plot the losses along one direction, or contours along two.

    Needs matplotlib.

    Args:
        losses: the result of `loss_surface`, shape (n,) or (n, n).
        steps: the steps passed to it, shape (n,).

    Returns:
        A `matplotlib.figure.Figure` without a window, see `plot_monitor`.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: losses have another shape.

    Examples:
        >>> figure = plot_surface([[0.0, 1.0], [1.0, 2.0]], [0.0, 1.0])
        >>> len(figure.axes)
        2
    """
    z, t = np.asarray(losses), np.asarray(steps)
    if z.ndim not in (1, 2) or set(z.shape) != {t.size}:
        raise ValueError(
            f"losses have shape {z.shape}, steps {t.shape}: pass the steps of"
            " loss_surface, and losses along one or two directions."
        )
    figure, axes = _make_figure("plot_surface")
    if z.ndim == 1:
        axes.plot(t, z)
        axes.set(xlabel="step", ylabel="loss")
        return figure
    contours = axes.contour(t, t, z.T, levels=20)
    figure.colorbar(contours, label="loss")
    axes.set(xlabel="step along the first", ylabel="step along the second")
    axes.set_aspect("equal")
    return figure


def plot_edge(
    sharpness: Sequence[ArrayLike] | ArrayLike,
    threshold: ArrayLike,
    *,
    steps: ArrayLike | None = None,
) -> Any:
    """Plot top eigenvalues over training, divided by their threshold.

    At the edge of stability the ratio is 1. Needs matplotlib.

    Args:
        sharpness: top eigenvalues of a run, shape (n,), or of several runs,
            shape (n, runs).
        threshold: the result of `stability_threshold`; broadcasts to the
            eigenvalues.
        steps: training steps of the eigenvalues, shape (n,); None for their
            index.

    Returns:
        A `matplotlib.figure.Figure` without a window, see `plot_monitor`.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the shapes differ.

    Examples:
        >>> figure = plot_edge([10.0, 18.0, 20.5], 20.0, steps=[0, 100, 200])
        >>> figure.axes[0].get_ylabel()
        'top eigenvalue / threshold'
    """
    ratio = np.asarray(sharpness) / np.asarray(threshold)
    count = len(np.atleast_1d(ratio))
    at = np.arange(count) if steps is None else np.asarray(steps)
    if ratio.ndim not in (1, 2) or at.shape != ratio.shape[:1]:
        raise ValueError(
            f"sharpness / threshold has shape {ratio.shape}, steps {at.shape}:"
            " pass shapes (n,) or (n, runs), and (n,)."
        )
    figure, axes = _make_figure("plot_edge")
    axes.plot(at, ratio)
    axes.axhline(1.0, color="gray", linestyle="dotted")
    axes.set(xlabel="step", ylabel="top eigenvalue / threshold")
    return figure


def _make_figure(name: str) -> tuple[Any, Any]:
    """Return a figure with one panel."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            f"{name} needs matplotlib: pip install matplotlib"
        ) from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    return figure, figure.subplots()
