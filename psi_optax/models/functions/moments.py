"""Exchange of the moments of features between examples of a batch."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psi_optax._validation import check_nonnegative

__all__ = ["mixed_labels_loss", "moment_exchange"]


def moment_exchange(
    x: jax.Array,
    order: ArrayLike,
    axes: int | Sequence[int] = -1,
    epsilon: float = 1e-5,
) -> jax.Array:
    r"""Give each example the mean and deviation of another one.

    \[y_i = s_{p(i)} \frac{x_i - m_i}{s_i} + m_{p(i)}.\]

    It augments the features of a layer. Train with `mixed_labels_loss`.

    Args:
        x: floating features, of shape `(batch, ...)`.
        order: p, the permutation of the batch, integers of shape `(batch,)`.
        axes: those of the moments: -1 for each position (positional
            normalization), those of positions for each channel (instance
            normalization).
        epsilon: nonnegative, added to variances. With zero, features that do
            not vary give NaN.

    Returns:
        An array like x.

    Raises:
        TypeError: the epsilon is not a number.
        ValueError: `order` is no permutation of the batch, if it is known;
            moments over the batch; a negative epsilon.

    Examples:
        >>> x = jnp.array([[1.0, 3.0], [10.0, 30.0]])
        >>> moment_exchange(x, jnp.array([1, 0]), epsilon=0.0).tolist()
        [[10.0, 30.0], [1.0, 3.0]]

    References:
        Li et al., [On feature normalization and data
        augmentation](https://arxiv.org/abs/2002.11102), CVPR 2021.
    """
    check_nonnegative("epsilon", epsilon)
    order = _checked(order, len(x))
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    if 0 in axes or -x.ndim in axes:
        raise ValueError(
            f"axes={axes} have the batch, axis 0: moments are of one example."
        )
    mean = jnp.mean(x, axis=axes, keepdims=True)
    rest = x - mean
    variance = jnp.mean(rest * rest, axis=axes, keepdims=True) + epsilon
    deviation = jnp.sqrt(variance)
    return rest / deviation * deviation[order] + mean[order]


def mixed_labels_loss(
    loss_fn: Callable[[jax.Array, jax.Array], jax.Array],
    outputs: jax.Array,
    labels: jax.Array,
    order: ArrayLike,
    weight: ArrayLike = 0.9,
) -> jax.Array:
    r"""Return the loss of two labels per example, after `moment_exchange`.

    \[\lambda\, \ell(f, y_i) + (1 - \lambda)\, \ell(f, y_{p(i)}).\]

    Args:
        loss_fn: called as loss_fn(outputs, labels); returns an array.
        outputs: of the network, of shape `(batch, ...)`.
        labels: of shape `(batch, ...)`.
        order: p, see `moment_exchange`.
        weight: \(\lambda\), that of each example's own label.

    Returns:
        An array like those of loss_fn.

    Raises:
        ValueError: `order` is no permutation of the batch, if it is known.

    Examples:
        >>> loss = lambda f, y: (f - y) ** 2
        >>> zeros, labels = jnp.zeros(2), jnp.array([1.0, 2.0])
        >>> mixed_labels_loss(loss, zeros, labels, [1, 0], 0.75).tolist()
        [1.75, 3.25]

    References:
        Li et al., [On feature normalization and data
        augmentation](https://arxiv.org/abs/2002.11102), CVPR 2021.
    """
    order = _checked(order, len(labels))
    own, other = loss_fn(outputs, labels), loss_fn(outputs, labels[order])
    weight = jnp.asarray(weight, own.dtype)
    return weight * own + (1 - weight) * other


def _checked(order: ArrayLike, count: int) -> jax.Array:
    """Return an order that is a permutation, if it is known.

    Raises:
        ValueError: it is another array.
    """
    known = not isinstance(order, jax.core.Tracer)
    fits = np.shape(order) == (count,)
    if fits and known:
        fits = np.array_equal(np.sort(np.asarray(order)), np.arange(count))
    if not fits:
        raise ValueError(
            f"order of shape {np.shape(order)} is no permutation of the"
            f" {count} examples: pass jax.random.permutation(key, {count})."
        )
    return jnp.asarray(order)
