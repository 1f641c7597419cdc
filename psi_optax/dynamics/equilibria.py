"""The norm and the rotation at which weight decay and noise balance."""

import jax
import jax.numpy as jnp

from psi_optax._validation import check_positive
from psi_optax.dynamics.laws import (
    Balance,
    Decay,
    Number,
    balance,
    make_decay,
    need,
)


def equilibrium_rotation(
    learning_rate: Number,
    weight_decay: float,
    *,
    optimizer: str = "sgd",
    momentum: float | None = None,
    b2: float | None = None,
    gradient_norm: Number | None = None,
) -> jax.Array:
    r"""The angle a step by which scale-invariant weights end up turning.

    Weight decay does not make the weights of a normalized network small: it
    shrinks them until noise lengthens them as fast, and from then on their
    direction turns by this angle at every step, whatever the gradients are.
    With rate \(\eta\), decay \(\lambda\), \(a = 1 - \eta\lambda\) and momentum
    \(\mu\), the cosine of the angle is

    | optimizer | the step | cosine | small \(\eta\lambda\) |
    |---|---|---|---|
    | "sgd" | \(m = \mu m + g + \lambda w\), \(w - \eta m\) | \(1 - \eta\lambda/(1+\mu)\) | \(\sqrt{2\eta\lambda/(1+\mu)}\) |
    | "sgdw" | \(m = \mu m + g\), \(a w - \eta m\) | \((a+\mu)/(1+a\mu)\) | \(\sqrt{2\eta\lambda(1-\mu)/(1+\mu)}\) |
    | "adamw" | as `optax.adamw`, \(\mu\) is b1 | \((a+\mu)/(1+a\mu)\) | \(\sqrt{2\eta\lambda(1-\mu)/(1+\mu)}\) |
    | "lion" | as `optax.lion`, \(\mu\) is b1 | \(1 - \eta\lambda(1-\eta\lambda P)/(1+2aP)\) | \(\sqrt{2\eta\lambda/(1+2P)}\) |
    | "psi" | \(w - \eta r^2 (g + \lambda w)\) | \(\sqrt{1 - \eta^2 c^2}\) | \(\eta c\), whatever \(\lambda\) |

    "sgd" is `add_decayed_weights` in front of `trace`, as in torch. For Lion,
    \(P = \sum_{k \ge 1} a^{k-1} \frac{2}{\pi} \arcsin \rho_k\) with \(\rho_k\)
    the autocorrelation of what its signs are taken of, for Gaussian gradients.
    With the arcsine replaced by its argument and a by 1 this is the formula of
    Kosson et al.; simulations at \(\eta\lambda = 0.005\) turn by 16 % more
    than that at b1 = 0.9, b2 = 0.99, and by 20 % less at b1 = 0.

    This holds for gradients that are mostly noise, the same in all directions
    and at all times: while they shrink, Adam's second moment lags, and AdamW
    turns less than this;
    the angle is the arccos of the mean cosine over steps, which for angles
    well below a radian is their RMS. It needs
    \(\eta\lambda\) well below 1. It is reached after some \(1/(4\eta\lambda)\)
    steps, for "sgd" \(1-\mu\) times that: see `equilibrium_transient`.

    Args:
        learning_rate: a number or an array; may be traced.
        weight_decay: multiplied by the learning rate.
        optimizer: "sgd", "sgdw", "adamw", "lion" or "psi".
        momentum: the decay of the momentum, b1 for AdamW and Lion; None for
            0.9 there and for none elsewhere.
        b2: Lion's second decay, None for 0.99.
        gradient_norm: the c of psi, as in `equilibrium_norm`.

    Returns:
        An angle in radians per step, of the shape and dtype of learning_rate;
        NaN for psi where no equilibrium exists, \(\eta c > 1\).

    Raises:
        ValueError: an unknown optimizer, an argument that it does not have or
            out of range, or one that it needs.

    Examples:
        >>> print(equilibrium_rotation(0.1, 5e-4, momentum=0.9).round(5))
        0.00725
        >>> print(equilibrium_rotation(1e-3, 0.1, optimizer="adamw").round(5))
        0.00324

    References:
        Kosson, Messmer and Jaggi, [Rotational
        equilibrium](https://arxiv.org/abs/2305.17212), ICML 2024; Wan et al.,
        [Spherical motion dynamics](https://arxiv.org/abs/2006.08419), NeurIPS
        2021.
    """  # noqa: E501
    decay = make_decay(learning_rate, weight_decay, optimizer, momentum, b2)
    gap = balance(decay, gradient_norm).gap
    # No arccos, which loses angles below the root of the precision.
    return jnp.arctan2(jnp.sqrt(gap * (2 - gap)), 1 - gap)


def equilibrium_norm(
    learning_rate: Number,
    weight_decay: float,
    *,
    optimizer: str = "sgd",
    momentum: float | None = None,
    b2: float | None = None,
    gradient_norm: Number | None = None,
    size: int | None = None,
) -> jax.Array:
    r"""The norm at which scale-invariant weights end up.

    Notation as in `equilibrium_rotation`. To leading order

    | optimizer | norm |
    |---|---|
    | "sgd" | \(r^4 = \eta c^2 / (2\lambda(1-\mu))\) |
    | "sgdw" | \(r^4 = \eta c^2 / (2\lambda(1-\mu)^2)\) |
    | "adamw" | \(r^2 = \eta d / (2\lambda)\) |
    | "lion" | \(r^2 = \eta d (1 + 2P) / (2\lambda)\) |
    | "psi" | \(r^2 = \eta c^2 / (2\lambda)\) |

    and what is returned is exact in \(\eta\lambda\), under noise.

    Args:
        learning_rate: a number or an array; may be traced.
        weight_decay: multiplied by the learning rate.
        optimizer: "sgd", "sgdw", "adamw", "lion" or "psi".
        momentum: as in `equilibrium_rotation`.
        b2: as in `equilibrium_rotation`.
        gradient_norm: \(c = |w|\,|g|\), the norm of the gradient with respect
            to the direction of a group, its RMS over steps: of
            `group_norms(params, groups)` times `group_norms(gradients,
            groups)`, say. For "sgd", "sgdw" and "psi". A number, or an array
            that goes with learning_rate.
        size: d, how many weights a group has; for "adamw" and "lion".

    Returns:
        The norm of a group, of the dtype of learning_rate.

    Raises:
        ValueError: an unknown optimizer, an argument that it does not have or
            out of range, or one that it needs.

    Examples:
        >>> print(f"{equilibrium_norm(0.1, 5e-3, gradient_norm=1.0):.3f}")
        1.778
        >>> norm = equilibrium_norm(1e-3, 0.1, optimizer="adamw", size=800)
        >>> print(f"{norm:.2f}")
        2.00

    References:
        Kosson, Messmer and Jaggi, [Rotational
        equilibrium](https://arxiv.org/abs/2305.17212), ICML 2024.
    """
    check_positive("learning_rate", learning_rate, arrays=True)
    decay = make_decay(learning_rate, weight_decay, optimizer, momentum, b2)
    return _norm(decay, balance(decay, gradient_norm), gradient_norm, size)


def equilibrium_transient(
    step: Number,
    initial_norm: Number,
    learning_rate: Number,
    weight_decay: float,
    *,
    optimizer: str = "sgd",
    momentum: float | None = None,
    b2: float | None = None,
    gradient_norm: Number | None = None,
    size: int | None = None,
) -> jax.Array:
    r"""The norm on its way to the equilibrium.

    A power of it relaxes exponentially,
    \(r_t^p = r_\infty^p + (r_0^p - r_\infty^p)\,e^{-kt}\), with

    | optimizer | p | k |
    |---|---|---|
    | "sgd" | 4 | \(4\eta\lambda/(1-\mu)\) |
    | "sgdw" | 4 | \(4\eta\lambda\) |
    | "adamw", "lion" | 2 | \(2\eta\lambda\) |
    | "psi" | -2 | \(\eta^2 c^2\) |

    to leading order in \(\eta\lambda\), which has to be small against
    \((1-\mu)^2\) and, for Lion and as Adam's second moment has to follow, also
    \(1-b_2\). While the norm is away from its equilibrium so is the rotation,
    by \((r_\infty/r)^2\) for SGD and \(r_\infty/r\) for AdamW and Lion.

    Args:
        step: how many steps, at a constant rate; a number or an array.
        initial_norm: the norm at step 0, positive.
        learning_rate: as in `equilibrium_norm`.
        weight_decay: as in `equilibrium_norm`.
        optimizer: as in `equilibrium_norm`.
        momentum: as in `equilibrium_norm`.
        b2: as in `equilibrium_norm`.
        gradient_norm: as in `equilibrium_norm`.
        size: as in `equilibrium_norm`.

    Returns:
        The norm of a group after this many steps.

    Raises:
        ValueError: as in `equilibrium_norm`.

    Examples:
        >>> for step in [0, 500, 5000]:
        ...     norm = equilibrium_transient(
        ...         step, 3.0, 0.1, 5e-3, gradient_norm=1.0
        ...     )
        ...     print(f"{norm:.2f}")
        3.00
        2.45
        1.78

    References:
        Wan et al., [Spherical motion
        dynamics](https://arxiv.org/abs/2006.08419), NeurIPS 2021, for SGD.
    """
    check_positive("learning_rate", learning_rate, arrays=True)
    decay = make_decay(learning_rate, weight_decay, optimizer, momentum, b2)
    settled = balance(decay, gradient_norm)
    end = _norm(decay, settled, gradient_norm, size)
    power, rate = _relaxation(decay, settled)
    passed = -rate * jnp.asarray(step).astype(rate.dtype)
    start = jnp.asarray(initial_norm, end.dtype)
    # By the larger term: neither power overflows, and nothing cancels.
    unit = (jnp.maximum if power > 0 else jnp.minimum)(start, end)
    left = (start / unit) ** power * jnp.exp(passed)
    reached = (end / unit) ** power * -jnp.expm1(passed)
    return unit * (left + reached) ** (1 / power)


def _norm(
    decay: Decay,
    settled: Balance,
    gradient_norm: Number | None,
    size: int | None,
) -> jax.Array:
    rate = decay.learning_rate
    if decay.optimizer == "psi":
        return jnp.sqrt(settled.gap / decay.product)
    if decay.optimizer in ("sgd", "sgdw"):
        noise = rate * need(decay, gradient_norm)  # times 1/r, every step
        return jnp.sqrt(noise * jnp.sqrt(settled.gain))
    if size is None:
        raise ValueError(
            f"optimizer={decay.optimizer!r} moves every weight: give size, the"
            " number of weights in a group."
        )
    fresh = 1 - decay.momentum if decay.optimizer == "adamw" else 1.0
    return fresh * rate * jnp.sqrt(size * settled.gain)


def _relaxation(decay: Decay, settled: Balance) -> tuple[int, jax.Array]:
    """The power that relaxes exponentially, and its rate per step."""
    if decay.optimizer == "psi":
        return -2, 1 / settled.gain
    shrinkage = -jnp.log1p(-decay.product)
    if decay.optimizer == "sgd":
        return 4, 4 * shrinkage / (1 - decay.momentum)
    power = 4 if decay.optimizer == "sgdw" else 2
    return power, power * shrinkage
