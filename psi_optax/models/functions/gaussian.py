"""Moments of activations of a Gaussian variable."""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["gaussian_moments"]

# The density at 12 is 1e-32, and 100 nodes resolve it to rounding.
_END = 12.0
_NODES = 100


def gaussian_moments(
    function: Callable[[jax.Array], jax.Array],
    kinks: Sequence[float] = (0.0,),
) -> tuple[float, float]:
    r"""Return the mean and variance of f(z) for a standard normal z.

    They are the constants of normalization propagation: with unit weights,
    `reparametrize.unit`, and inputs of mean zero and variance one, the outputs

    \[(f(x \cdot w/|w|) - m)/\sqrt v\]

    have these too, if inputs are Gaussian. Neither batches nor running
    statistics are needed.

    Args:
        function: f, elementwise, smooth but at its kinks.
        kinks: where f or a derivative jumps. A quadrature across a kink is off
            by up to 1e-3.

    Returns:
        The mean m and the variance v. Their error is rounding: of float32
        unless double precision is enabled.

    Raises:
        ValueError: f is not elementwise, or is non-finite.

    Examples:
        >>> mean, variance = gaussian_moments(jax.nn.relu)
        >>> print(f"{mean:.4f} {variance:.4f}")
        0.3989 0.3408

    References:
        Arpit et al., [Normalization
        propagation](https://arxiv.org/abs/1603.01431), ICML 2016.
    """
    inside = sorted(float(k) for k in kinks if abs(k) < _END)
    pieces = itertools.pairwise([-_END, *inside, _END])
    nodes, weights = map(
        np.concatenate, zip(*(_piece(*ends) for ends in pieces), strict=True)
    )
    with jax.ensure_compile_time_eval():
        values = np.asarray(function(jnp.asarray(nodes)), np.float64)
    if values.shape != nodes.shape or not np.isfinite(values).all():
        raise ValueError(
            f"the function maps {nodes.shape} numbers between {-_END} and"
            f" {_END} to shape {values.shape}, or to non-finite ones: pass an"
            " elementwise function such as jax.nn.relu."
        )
    mean = float(weights @ values)
    return mean, float(weights @ (values - mean) ** 2)


def _piece(start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of the normal density on an interval."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = (end - start) / 2
    z = (start + end) / 2 + half * nodes
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return z, weights * half * density
