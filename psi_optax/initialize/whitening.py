"""A dense layer of whitened inputs that computes the same."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from psi_optax._validation import check_choice, check_nonnegative
from psi_optax.groups.reductions import to_accumulator

KINDS = ("zca", "pca")
# Eigenvalues below so many roundings of the largest are rounding errors.
_ROUNDINGS = 64
_EXACT = jax.lax.Precision.HIGHEST


class WhitenedLayer(NamedTuple):
    r"""A dense layer of whitened inputs, \(((x - c) U) V + d\).

    \(U V\) is the kernel without whitening, and \(d - c\,U V\) its bias.

    Attributes:
        kernel: V, of shape (inputs, outputs), trained.
        bias: d, of shape (outputs,), trained.
        whitening: U, of shape (inputs, inputs), constant.
        mean: c, of shape (inputs,), constant.

    Raises:
        AttributeError: an attribute is set.
    """

    kernel: jax.Array
    bias: jax.Array
    whitening: jax.Array
    mean: jax.Array


def whitened_layer(
    kernel: jax.Array,
    bias: jax.Array | None,
    inputs: jax.Array,
    *,
    kind: str = "zca",
    epsilon: float = 0.0,
) -> WhitenedLayer:
    r"""Whiten the inputs of a dense layer, without a change of its outputs.

    With the mean c and the covariance \(\Sigma\) of inputs, and
    \(U^\top (\Sigma + \epsilon) U = 1\), the layer \(x W + b\) becomes
    \(((x - c) U) V + d\), with \(V = U^{-1} W\) and \(d = b + c W\). A step of
    SGD on V is the step \(-\eta\,(\Sigma + \epsilon)^{-1} \nabla_W L\) on W, an
    approximate natural gradient. Whiten anew every some hundred steps.

    Args:
        kernel: W, floating, of shape (inputs, outputs).
        bias: b, of shape (outputs,); None for zeros.
        inputs: of the layer, of shape (..., inputs).
        kind: "zca" for the symmetric \((\Sigma + \epsilon)^{-1/2}\), "pca" for
            principal components of variance one, the smallest first.
        epsilon: a nonnegative Python number, added to the variances.

    Returns:
        The four arrays, in float32 (float64 for a float64 kernel).

    Raises:
        TypeError: the epsilon is not a number.
        ValueError: shapes do not fit; inputs do not vary in each direction, or
            are fewer than directions, and the epsilon is zero; an unknown kind.

    Examples:
        >>> x = jax.random.normal(jax.random.key(0), (50, 3)) + 2
        >>> layer = whitened_layer(jnp.ones((3, 2)), jnp.zeros(2), x)
        >>> white = (x - layer.mean) @ layer.whitening
        >>> bool(jnp.allclose(white.T @ white / 50, jnp.eye(3), atol=1e-4))
        True
        >>> y = white @ layer.kernel + layer.bias
        >>> bool(jnp.allclose(y, x @ jnp.ones((3, 2)), atol=1e-4))
        True

    References:
        Desjardins et al., [Natural neural
        networks](https://arxiv.org/abs/1507.00210), NeurIPS 2015.
    """
    check_choice("kind", kind, KINDS)
    check_nonnegative("epsilon", epsilon)
    kernel = to_accumulator(kernel)
    _check_shapes(kernel, bias, inputs)
    width_in, width = kernel.shape
    x = jnp.asarray(inputs, kernel.dtype).reshape(-1, width_in)
    _check_count(len(x), width_in, epsilon)
    mean = jnp.mean(x, 0)
    x = x - mean.reshape(1, -1)
    variances, axes = jnp.linalg.eigh(_dot(x.T, x) / len(x))
    variances = variances + epsilon
    _check_variances(variances)
    deviations = jnp.sqrt(variances).reshape(1, -1)
    whitening, inverse = axes / deviations, (axes * deviations).T
    if kind == "zca":
        whitening, inverse = _dot(whitening, axes.T), _dot(axes, inverse)
    shift = _dot(mean, kernel)
    b = jnp.zeros(width, kernel.dtype) if bias is None else bias
    return WhitenedLayer(
        _dot(inverse, kernel), b.astype(kernel.dtype) + shift, whitening, mean
    )


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.dot(x, y, precision=_EXACT)


def _check_shapes(
    kernel: jax.Array, bias: jax.Array | None, inputs: jax.Array
) -> None:
    """Require the shapes of a dense layer.

    Raises:
        ValueError: they are others.
    """
    fits = kernel.ndim == 2 and inputs.shape[-1:] == kernel.shape[:1]
    if not fits or (bias is not None and bias.shape != kernel.shape[1:]):
        given = None if bias is None else bias.shape
        raise ValueError(
            f"kernel of shape {kernel.shape}, bias {given} and inputs"
            f" {inputs.shape} are not of a dense layer: pass shapes (inputs,"
            " outputs), (outputs,) and (..., inputs)."
        )


def _check_count(count: int, width: int, epsilon: float) -> None:
    """Require more inputs than directions, or an epsilon.

    Raises:
        ValueError: neither is given.
    """
    if count <= width and epsilon == 0:
        raise ValueError(
            f"{count} inputs of {width} features vary in fewer directions than"
            " there are: pass more inputs, or a positive epsilon."
        )


def _check_variances(variances: jax.Array) -> None:
    """Require variances above rounding errors, if they are known.

    Raises:
        ValueError: one is a rounding error.
    """
    if isinstance(variances, jax.core.Tracer):
        return
    smallest = _ROUNDINGS * float(jnp.finfo(variances.dtype).eps)
    constant = int((~(variances > smallest * variances[-1])).sum())
    if constant:
        raise ValueError(
            f"inputs do not vary in {constant} of {len(variances)} directions,"
            " up to rounding: pass a positive epsilon."
        )
