r"""Growth of the norms of unconstrained weights: exact identities.

The gradient of a scale-invariant loss is orthogonal to the weights. By
Pythagoras, a step adds its squared length to the squared norm.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def norm_after_step(
    norm: ArrayLike,
    learning_rate: ArrayLike,
    gradient_norm: ArrayLike,
    *,
    weight_decay: ArrayLike = 0.0,
    degree: int = -1,
) -> jax.Array:
    r"""Return the norm after one step orthogonal to the decayed weights.

    \[r'^2 = (1-\eta\lambda)^2 r^2 + \eta^2 c^2 r^{2k}.\]

    Args:
        norm: r, before the step.
        learning_rate: \(\eta\).
        gradient_norm: c, the norm of the step at r = 1 and \(\eta = 1\). It is
            \(|w|\,|g|\) for SGD and the PSI step, and the norm of the tangent
            update for degree 0.
        weight_decay: \(\lambda\), multiplied by the learning rate.
        degree: k, of the update in the weights: -1 for SGD, 0 for updates of
            controlled length, 1 for the PSI step \(w - \eta r^2 g\).

    Returns:
        r', of the shape of the arguments.

    Raises:
        ValueError: arguments of different dtypes, if promotion is strict.

    Examples:
        >>> print(norm_after_step(1.0, 0.75, 1.0))
        1.25

    References:
        Arora, Li and Lyu, [Theoretical analysis of auto rate-tuning by batch
        normalization](https://arxiv.org/abs/1812.03981), ICLR 2019.
    """
    r, c = 1.0 * jnp.asarray(norm), jnp.asarray(gradient_norm)
    rate = jnp.asarray(learning_rate)
    return jnp.hypot((1 - rate * weight_decay) * r, rate * c * r**degree)


def norms_with_momentum(
    initial_norm: ArrayLike,
    learning_rate: ArrayLike,
    buffer_norms: jax.Array,
    momentum: float,
) -> jax.Array:
    r"""Return the norms along a run of SGD, from those of its momentum buffer.

    With \(m_t = \mu m_{t-1} + g_t\) and \(w_{t+1} = w_t - \eta m_t\),

    \[r_{t+1}^2 = r_t^2 + \eta^2 |m_t|^2
        + 2\eta^2 \sum_{k<t} \mu^{t-k} |m_k|^2.\]

    The sum is due to the radial part of the buffer: a step \(-\eta m\) points
    outward, along the earlier steps in the weights. At a constant \(|m|\) the
    squared norm grows per step by \((1+\mu)/(1-\mu)\) times the squared length
    of the step, 19 times at \(\mu = 0.9\).

    Args:
        initial_norm: \(r_0\), of any shape.
        learning_rate: \(\eta\), constant.
        buffer_norms: \(|m_t|\), of shape (steps, ...).
        momentum: \(\mu\).

    Returns:
        \(r_1, r_2, \ldots\), of the shape of buffer_norms.

    Raises:
        TypeError: shapes or dtypes that do not match.

    Examples:
        >>> print(norms_with_momentum(1.0, 1.0, jnp.ones(2), 0.5).round(3))
        [1.414 2.   ]

    References:
        Heo et al., [AdamP](https://arxiv.org/abs/2006.08217), ICLR 2021.
    """
    steps = jnp.asarray(learning_rate) * buffer_norms

    def body(
        carry: tuple[jax.Array, jax.Array], square: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        total, outward = carry
        total = total + square + 2 * outward
        return (total, momentum * (outward + square)), total

    start = jnp.asarray(initial_norm, steps.dtype)
    start = jnp.broadcast_to(start, steps.shape[1:])
    _, squares = jax.lax.scan(
        body, (start * start, jnp.zeros_like(start)), steps * steps
    )
    return jnp.sqrt(squares)
