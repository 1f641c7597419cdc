"""Curvatures above which optimizers are unstable."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psi_optax._validation import check_decay, check_flag, check_positive


def stability_threshold(
    learning_rate: ArrayLike,
    *,
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
    ema: bool = False,
) -> jax.Array:
    r"""Return the largest eigenvalue at which an optimizer is stable.

    Near a point where the gradient vanishes, retraction and transport are of
    third order, so the threshold is that on a quadratic loss. With the learning
    rate \(\eta\) and the momentum \(\mu\):

    | momentum | threshold | optimizers |
    |---|---|---|
    | none | \(2/\eta\) | `psi_sgd`, `optax.sgd` |
    | yes | \(2(1+\mu)/\eta\) | the same, `psi_sgdm`, `sgd_g` |
    | Nesterov's | \(2(1+\mu)/(\eta(1+2\mu))\) | `psi_sgd`, `optax.sgd` |
    | an average | \(2(1+\mu)/((1-\mu)\eta)\) | `psi_adam`, `optax.adam` |

    Compare it with the top eigenvalue of `hessian`: with groups for `psi` and
    the optimizers built on it, without groups for `optax.sgd` and
    `weight_rescaling` of it, and for Adam with units, too.

    Adam's units are \(1/(\sqrt{\hat\nu} + \epsilon)^{1/2}\) with the
    bias-corrected second moment from its state. `rotational`, `hyperball`,
    `adamh` and `muonh` have steps of fixed length, hence no threshold. In the
    first \(1/(1-b_1)\) steps bias correction makes Adam's steps longer: growth
    in these steps is not instability.

    For SGD, groups also serve if `units` is the square root of each group's
    `directional_rate`. The threshold is then that of a learning rate of 1.

    Args:
        learning_rate: positive, a number or an array.
        momentum: \(\mu\), in [0, 1), or None for none.
        nesterov: whether the momentum is Nesterov's.
        ema: whether the momentum is an average, \((1-\mu) g\) being added.

    Returns:
        The threshold for the top eigenvalue of `hessian`, in the shape of the
        learning rate.

    Raises:
        TypeError: an argument is not a number or a flag.
        ValueError: the learning rate is not positive; the momentum is not in
            [0, 1); Nesterov's or an average without momentum, or both.

    Examples:
        >>> print(stability_threshold(0.1, momentum=0.9).round(4))
        38.0

    References:
        Cohen et al., [Gradient descent on neural networks typically occurs at
        the edge of stability](https://arxiv.org/abs/2103.00065), ICLR 2021, and
        [Adaptive gradient methods at the edge of
        stability](https://arxiv.org/abs/2207.14484), 2022, for Adam.
    """
    check_positive("learning_rate", learning_rate, arrays=True)
    check_flag(nesterov=nesterov, ema=ema)
    if momentum is not None:
        check_decay("momentum", momentum)
    elif nesterov or ema:
        raise ValueError(
            f"nesterov={nesterov}, ema={ema} has no effect with momentum=None:"
            " pass a momentum, such as 0.9."
        )
    if nesterov and ema:
        raise ValueError("nesterov=True and ema=True exclude each other.")
    rate = jnp.asarray(learning_rate, float)
    mu = jnp.asarray(0 if momentum is None else momentum, float)
    # The largest step of an eigenvalue, in units of the learning rate.
    gain = 1 + 2 * mu if nesterov else 1 - mu if ema else jnp.ones_like(mu)
    return 2 * (1 + mu) / (gain * rate)
