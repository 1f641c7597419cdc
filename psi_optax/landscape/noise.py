"""Noise of gradients of batches, and the critical batch size."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax.groups import Groups, Tree
from psi_optax.landscape._steps import loss_of_steps
from psi_optax.landscape.curvature import as_args, count_examples, passes_over


class GradientNoise(NamedTuple):
    """Mean and variance of gradients; arrays of shape ().

    Attributes:
        square: the squared norm of the mean gradient, unbiased: it may be
            negative.
        variance: the trace of the covariance of the gradient of one example.
        scale: their ratio, the batch size above which noise is small; infinite
            if the square is not positive.
    """

    square: jax.Array
    variance: jax.Array
    scale: jax.Array


def gradient_noise(
    loss_fn: Callable[..., Any],
    params: Any,
    batches: Iterable[Any],
    *,
    groups: Groups = None,
    units: Tree | None = None,
) -> GradientNoise:
    r"""Estimate the noise of gradients from the gradients of several batches.

    With n batches of b examples, B = n b, the mean \(q_b\) of the squared norms
    of their gradients, and the squared norm \(q_B\) of the mean gradient:

    \[|G|^2 = \frac{B\,q_B - b\,q_b}{B - b}, \qquad
      \mathrm{tr}\,\Sigma = \frac{q_b - q_B}{1/b - 1/B}.\]

    With groups, no result depends on their norms. Without groups a filter is
    weighted by \(1/|w|^2\).

    Args:
        loss_fn: called as loss_fn(params, *batch), or as loss_fn(params, batch)
            if a batch is neither a tuple nor a list; returns the mean over
            examples, a floating scalar.
        params: arrays; or a model, as for `find_groups`.
        batches: two or more independent batches of one size, the length of the
            first axis of their first array. Each is used once.
        groups: scale groups in any form.
        units: see `tangent_space`.

    Returns:
        A `GradientNoise`.

    Raises:
        TypeError: a parameter is complex.
        ValueError: groups or units do not fit params; fewer than two batches,
            or batches of different sizes; the loss is no floating scalar.

    Examples:
        >>> import jax.numpy as jnp
        >>> def loss_fn(w, x):
        ...     return (w * x).mean()
        >>> batches = [jnp.array([1.0, 3.0]), jnp.array([2.0, 6.0])]
        >>> noise = gradient_noise(loss_fn, jnp.array(1.0), batches)
        >>> noise.square.tolist(), noise.variance.tolist()
        (8.0, 4.0)

    References:
        McCandlish et al., [An empirical model of large-batch
        training](https://arxiv.org/abs/1812.06162), 2018, appendix A.
    """
    loss = loss_of_steps(loss_fn, params, (), groups, units)
    total, squares, sizes = loss.zero, [], []
    # An iterator may be used up: once is enough.
    for batch in passes_over(lambda: batches)():
        sizes.append(count_examples(batch))
        _, gradient = loss.gradient(loss.zero, *as_args(batch))
        squares.append(optax.tree.norm(gradient, squared=True))
        total = optax.tree.add(total, gradient)
    if len(sizes) < 2 or len(set(sizes)) > 1:
        raise ValueError(
            f"batches have the sizes {sizes}: pass at least two, of one size."
        )
    count, b = len(sizes), sizes[0]
    small = jnp.mean(jnp.stack(squares))
    large = optax.tree.norm(total, squared=True) / count**2
    square = (count * large - small) / (count - 1)
    variance = (small - large) * (b * count / (count - 1))
    positive = square > 0
    scale = variance / jnp.where(positive, square, 1)
    # NaN stays NaN.
    noiseless = jnp.where(square <= 0, jnp.inf, jnp.nan)
    return GradientNoise(
        square, variance, jnp.where(positive, scale, noiseless)
    )
