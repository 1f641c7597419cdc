"""Norm and rotation at the equilibrium of weight decay and noise."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psi_optax._validation import check_positive
from psi_optax.dynamics.stationary_processes import (
    DecayedOptimizer,
    Equilibrium,
    make_decayed_optimizer,
    require_gradient_norm,
    solve_equilibrium,
)


def equilibrium_rotation(
    learning_rate: ArrayLike,
    weight_decay: float,
    *,
    optimizer: str = "sgd",
    momentum: float | None = None,
    b2: float | None = None,
    gradient_norm: ArrayLike | None = None,
) -> jax.Array:
    r"""Return the rotation per step at the equilibrium of decay and noise.

    Weight decay does not shrink scale-invariant weights to zero: their norm
    converges to an equilibrium, at which gradient noise increases it as fast as
    decay shrinks it. From then on the direction rotates by this angle per step,
    independent of the size of the gradients. With learning rate \(\eta\), decay
    \(\lambda\), \(a = 1 - \eta\lambda\) and momentum \(\mu\), the cosine of the
    angle is

    | optimizer | step | cosine | small \(\eta\lambda\) |
    |---|---|---|---|
    | "sgd" | \(m = \mu m + g + \lambda w\), \(w - \eta m\) | \(1 - \eta\lambda/(1+\mu)\) | \(\sqrt{2\eta\lambda/(1+\mu)}\) |
    | "sgdw" | \(m = \mu m + g\), \(a w - \eta m\) | \((a+\mu)/(1+a\mu)\) | \(\sqrt{2\eta\lambda(1-\mu)/(1+\mu)}\) |
    | "adamw" | as `optax.adamw`, \(\mu\) is b1 | \((a+\mu)/(1+a\mu)\) | \(\sqrt{2\eta\lambda(1-\mu)/(1+\mu)}\) |
    | "lion" | as `optax.lion`, \(\mu\) is b1 | \(1 - \eta\lambda(1-\eta\lambda P)/(1+2aP)\) | \(\sqrt{2\eta\lambda/(1+2P)}\) |
    | "psi" | \(w - \eta r^2 (g + \lambda w)\) | \(\sqrt{1 - \eta^2 c^2}\) | \(\eta c\), for any \(\lambda\) |

    "sgd" is `optax.add_decayed_weights` before `optax.sgd`, as in torch. For
    Lion, \(P = \sum_{k \ge 1} a^{k-1} \frac{2}{\pi} \arcsin \rho_k\) for
    Gaussian gradients, with \(\rho_k\) the autocorrelation of the argument of
    its sign. Kosson et al. replace the arcsine by its argument, and a by 1. In
    simulations at \(\eta\lambda = 0.005\) the rotation is 16 % larger than
    their formula at b1 = 0.9 and b2 = 0.99, and 20 % smaller at b1 = 0.

    The law assumes that gradients are mostly noise, isotropic and stationary,
    and that \(\eta\lambda\) is well below 1. While gradients shrink, Adam's
    second moment lags, and AdamW rotates less. The angle is the arccos of the
    mean cosine over steps: for angles well below a radian, their RMS. The
    equilibrium is reached after about \(1/(4\eta\lambda)\) steps, for "sgd"
    after \(1-\mu\) times as many, for "adamw" and "lion" after twice as many:
    see `equilibrium_transient`.

    Args:
        learning_rate: a number or an array; may be traced.
        weight_decay: positive, multiplied by the learning rate.
        optimizer: "sgd", "sgdw", "adamw", "lion" or "psi".
        momentum: decay of the momentum, b1 for AdamW and Lion, in [0, 1). None
            for 0.9 there, and for no momentum elsewhere.
        b2: Lion's second decay, None for 0.99.
        gradient_norm: the c of "psi"; see `equilibrium_norm`.

    Returns:
        An angle in radians per step, of the shape and dtype of learning_rate;
        NaN for "psi" without an equilibrium, \(\eta c > 1\).

    Raises:
        TypeError: an argument is not a number.
        ValueError: an unknown optimizer; an argument that is out of range, is
            missing, or has no effect on the optimizer.

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
    decayed = make_decayed_optimizer(
        learning_rate, weight_decay, optimizer, momentum, b2
    )
    gap = solve_equilibrium(decayed, gradient_norm).cosine_gap
    # An arccos would lose angles below the root of the precision.
    return jnp.arctan2(jnp.sqrt(gap * (2 - gap)), 1 - gap)


def equilibrium_norm(
    learning_rate: ArrayLike,
    weight_decay: float,
    *,
    optimizer: str = "sgd",
    momentum: float | None = None,
    b2: float | None = None,
    gradient_norm: ArrayLike | None = None,
    size: int | None = None,
) -> jax.Array:
    r"""Return the norm at the equilibrium of weight decay and noise.

    Notation as in `equilibrium_rotation`. To leading order the norm is

    | optimizer | norm |
    |---|---|
    | "sgd" | \(r^4 = \eta c^2 / (2\lambda(1-\mu))\) |
    | "sgdw" | \(r^4 = \eta c^2 / (2\lambda(1-\mu)^2)\) |
    | "adamw" | \(r^2 = \eta d / (2\lambda)\) |
    | "lion" | \(r^2 = \eta d (1 + 2P) / (2\lambda)\) |
    | "psi" | \(r^2 = \eta c^2 / (2\lambda)\) |

    The result is exact in \(\eta\lambda\), under noise.

    Args:
        learning_rate: positive; a number or an array; may be traced.
        weight_decay: positive, multiplied by the learning rate.
        optimizer: "sgd", "sgdw", "adamw", "lion" or "psi".
        momentum: see `equilibrium_rotation`.
        b2: see `equilibrium_rotation`.
        gradient_norm: \(c = |w|\,|g|\), the norm of a group's gradient in
            direction space, as RMS over steps: for example of
            `group_norms(params, groups)` times `group_norms(gradients,
            groups)`. For "sgd", "sgdw" and "psi". A number, or an array that
            matches learning_rate in shape.
        size: d, the number of weights in a group; for "adamw" and "lion".

    Returns:
        The norm of a group, of the dtype of learning_rate.

    Raises:
        TypeError: see `equilibrium_rotation`.
        ValueError: see `equilibrium_rotation`.

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
    decayed = make_decayed_optimizer(
        learning_rate, weight_decay, optimizer, momentum, b2
    )
    equilibrium = solve_equilibrium(decayed, gradient_norm)
    return _norm(decayed, equilibrium, gradient_norm, size)


def equilibrium_transient(
    step: ArrayLike,
    initial_norm: ArrayLike,
    learning_rate: ArrayLike,
    weight_decay: float,
    *,
    optimizer: str = "sgd",
    momentum: float | None = None,
    b2: float | None = None,
    gradient_norm: ArrayLike | None = None,
    size: int | None = None,
) -> jax.Array:
    r"""Return the norm at a step before the equilibrium.

    A power of the norm relaxes exponentially,
    \(r_t^p = r_\infty^p + (r_0^p - r_\infty^p)\,e^{-kt}\), with

    | optimizer | p | k |
    |---|---|---|
    | "sgd" | 4 | \(4\eta\lambda/(1-\mu)\) |
    | "sgdw" | 4 | \(4\eta\lambda\) |
    | "adamw", "lion" | 2 | \(2\eta\lambda\) |
    | "psi" | -2 | \(\eta^2 c^2\) |

    to leading order in \(\eta\lambda\). The formula needs
    \(\eta\lambda \ll (1-\mu)^2\). For Lion and AdamW it also needs
    \(\eta\lambda \ll 1-b_2\): Adam's second moment must follow the gradients.
    Before the equilibrium the rotation differs from its own equilibrium by a
    factor of \((r_\infty/r)^2\) for SGD, and of \(r_\infty/r\) for AdamW and
    Lion.

    Args:
        step: number of steps at a constant learning rate; a number or an array.
        initial_norm: the norm at step 0, positive.
        learning_rate: see `equilibrium_norm`.
        weight_decay: see `equilibrium_norm`.
        optimizer: see `equilibrium_norm`.
        momentum: see `equilibrium_norm`.
        b2: see `equilibrium_norm`.
        gradient_norm: see `equilibrium_norm`.
        size: see `equilibrium_norm`.

    Returns:
        The norm of a group after this number of steps.

    Raises:
        TypeError: see `equilibrium_norm`.
        ValueError: see `equilibrium_norm`.

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
    decayed = make_decayed_optimizer(
        learning_rate, weight_decay, optimizer, momentum, b2
    )
    equilibrium = solve_equilibrium(decayed, gradient_norm)
    end = _norm(decayed, equilibrium, gradient_norm, size)
    power, rate = _relaxation(decayed, equilibrium)
    exponent = -rate * jnp.asarray(step).astype(rate.dtype)
    start = jnp.asarray(initial_norm, end.dtype)
    # Relative to the larger term: no power overflows, and nothing cancels.
    unit = (jnp.maximum if power > 0 else jnp.minimum)(start, end)
    left = (start / unit) ** power * jnp.exp(exponent)
    reached = (end / unit) ** power * -jnp.expm1(exponent)
    return unit * (left + reached) ** (1 / power)


def _norm(
    decayed: DecayedOptimizer,
    equilibrium: Equilibrium,
    gradient_norm: ArrayLike | None,
    size: int | None,
) -> jax.Array:
    """Return the norm of a group at the equilibrium.

    Raises:
        ValueError: the optimizer needs a gradient norm or a size.
    """
    rate = decayed.learning_rate
    if decayed.name == "psi":
        return jnp.sqrt(equilibrium.cosine_gap / decayed.product)
    if decayed.name in ("sgd", "sgdw"):
        # The noise of a step is this, divided by the norm.
        noise = rate * require_gradient_norm(decayed, gradient_norm)
        return jnp.sqrt(noise * jnp.sqrt(equilibrium.noise_gain))
    if size is None:
        raise ValueError(
            f"optimizer={decayed.name!r} needs size: pass the number of weights"
            " in a group."
        )
    fresh = 1 - decayed.momentum if decayed.name == "adamw" else 1.0
    return fresh * rate * jnp.sqrt(size * equilibrium.noise_gain)


def _relaxation(
    decayed: DecayedOptimizer, equilibrium: Equilibrium
) -> tuple[int, jax.Array]:
    """Return the power that relaxes exponentially, and its rate per step."""
    if decayed.name == "psi":
        return -2, 1 / equilibrium.noise_gain
    shrinkage = -jnp.log1p(-decayed.product)
    if decayed.name == "sgd":
        return 4, 4 * shrinkage / (1 - decayed.momentum)
    power = 4 if decayed.name == "sgdw" else 2
    return power, power * shrinkage
