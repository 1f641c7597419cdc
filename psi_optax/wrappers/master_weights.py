"""Master weights: float32 copies of narrow weights, which the steps add to."""

from typing import Any, NamedTuple

import jax
import optax

from psi_optax._validation import check_transformation
from psi_optax.groups.paths import is_placeholder
from psi_optax.transforms.contract import on_floats
from psi_optax.transforms.radius import refuse_lookahead
from psi_optax.wrappers._low_precision import (
    is_half,
    limit_shrinkage,
    upcast_half,
)


class MasterWeightsState(NamedTuple):
    """The weights in float32, and the wrapped optimizer's state.

    Attributes:
        weights: like params, in float32; an `optax.MaskedNode` at leaves that
            are not bfloat16 or float16.
        inner: of the inner optimizer, made from these.
    """

    weights: Any
    inner: optax.OptState


def master_weights(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps bfloat16 and float16 weights in float32, and rounds copies.

    The inner optimizer works on the float32 weights W in the state, with
    gradients cast to float32: it takes the very steps that it would take in
    float32. The parameters follow, rounded to nearest:
    \(u = \mathrm{round}(W) - w\). Leaves of other dtypes pass as if this were
    not there.

    The W are what is trained. Parameters that somebody else changes (a
    `normalize`, a loaded checkpoint without the state) are set back by the next
    step: make the state anew.

    `optax.apply_updates` gives exactly the rounded copy, as long as that lies
    between half and twice the old parameter, or the old one is zero; a
    parameter that moves further may be off by the rounding of its step, until
    the next step, which starts from what it finds. W is never off. Where the
    largest parameter of a leaf falls below 1/16 of the largest before (1/32 in
    float16), as under a `radius` far below the norms, none shrinks by more than
    that in one step: the leaf keeps its direction, and arrives within the next
    steps. A float16 parameter whose copy exceeds 65504 is infinite, and NaN
    from then on.

    Put it around everything: `master_weights(psi(...))`, with `MultiSteps`,
    `inject_hyperparams` and averages inside. Not with `optax.lookahead`: in
    front of it W would undo what lookahead does, and inside it does not fit.

    *Without a wrapper.* Flax's `nn.Dense(n, dtype="bfloat16",
    param_dtype="float32")` keeps float32 parameters and casts them in the
    forward pass: the same arithmetic, in less memory, since there is no other
    copy than the one that lives during the step. Take this transform where the
    parameters themselves have to be of 16 bits, as they are stored or sent.

    Args:
        inner: an optimizer, such as `psi(...)`.

    Returns:
        A transform that needs params, with a `MasterWeightsState`. Updates keep
        their dtype.

    Raises:
        TypeError: `inner` is no gradient transformation.
        ValueError: params are missing in `update`; `inner` is a lookahead.

    Examples:
        >>> import jax.numpy as jnp
        >>> tx = master_weights(optax.sgd(1.0))
        >>> w = jnp.ones(1, "bfloat16")  # the next is 1.0078125
        >>> state = tx.init(w)
        >>> for _ in range(5):
        ...     u, state = tx.update(jnp.full_like(w, -0.001), state, w)
        ...     w = optax.apply_updates(w, u)
        >>> w.item(), round(state.weights.item(), 4)
        (1.0078125, 1.005)

    References:
        Micikevicius et al., [Mixed precision
        training](https://arxiv.org/abs/1710.03740), ICLR 2018, section 3.1.
    """
    check_transformation(inner=inner)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        weights = jax.tree.map(
            lambda w: upcast_half(w) if is_half(w) else optax.MaskedNode(),
            params,
        )
        state = inner.init(_insert(weights, params))
        refuse_lookahead("master_weights", state)
        return MasterWeightsState(weights, state)

    def update_fn(updates, state, params=None, **extra_args):
        steps, inner_state = inner.update(
            upcast_half(updates),
            state.inner,
            _insert(state.weights, params),
            **extra_args,
        )
        weights = jax.tree.map(_move, params, state.weights, steps)
        updates = jax.tree.map(_step, params, updates, steps, weights)
        return updates, MasterWeightsState(weights, inner_state)

    return on_floats(
        optax.GradientTransformationExtraArgs(init_fn, update_fn),
        kind=MasterWeightsState,
    )


def _insert(weights: Any, params: Any) -> Any:
    """The params, with the copies in the place of those that have one."""
    return jax.tree.map(
        lambda w, wide: wide if is_half(w) else w, params, weights
    )


def _move(w, wide, step):
    """The copy after the step, if there are both."""
    if is_placeholder(step) or not is_half(w):
        return wide
    return wide + step.astype(wide.dtype)


def _step(w, u, step, wide):
    """The step of a leaf, in the dtype of u."""
    if is_placeholder(u):
        return u
    if is_half(w):
        target = limit_shrinkage(w, wide)
        step = upcast_half(target.astype(w.dtype)) - upcast_half(w)
    return step.astype(u.dtype)
