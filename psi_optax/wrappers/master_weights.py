"""Master weights: float32 copies of 16-bit weights, which accumulate steps."""

from typing import Any, NamedTuple

import jax
import optax

from psi_optax._validation import check_transformation
from psi_optax.groups import Tree
from psi_optax.groups.paths import is_placeholder
from psi_optax.transforms.contract import floating_transform
from psi_optax.transforms.floating import is_half, upcast_half
from psi_optax.wrappers._low_precision import limit_shrinkage
from psi_optax.wrappers.nesting import LOOKAHEAD, check_nesting


class MasterWeightsState(NamedTuple):
    """State of `master_weights`.

    Attributes:
        weights: like params, in float32; an `optax.MaskedNode` at leaves that
            are not bfloat16 or float16.
        inner: of the inner optimizer, which sees these weights.
    """

    weights: Any
    inner: optax.OptState


def master_weights(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    r"""Keep bfloat16 and float16 weights in float32, and round copies of them.

    The inner optimizer sees the float32 weights W in the state, and gradients
    cast to float32: it takes the steps that it takes in float32. The parameters
    follow, rounded to nearest: \(u = \mathrm{round}(W) - w\). Leaves of other
    dtypes are treated as by the inner optimizer alone.

    Training acts on W. A change of the parameters by other code (`normalize`, a
    checkpoint without the state) is undone by the next step: make a new state
    after it.

    `optax.apply_updates` gives exactly the rounded copy if it lies between half
    and twice the old parameter, or if the old one is zero. A parameter that
    moves further may be off by the rounding of its step, until the next step,
    which starts from the actual value. W is exact. If the largest parameter of
    a leaf falls below 1/16 of its largest before (1/32 in float16), as under a
    `radius` far below the norms, no parameter shrinks by more than that in one
    step: the leaf keeps its direction, and arrives within the next steps. A
    float16 parameter whose copy exceeds 65504 becomes infinite, and NaN at the
    next step.

    Put it around everything: `master_weights(psi(...))`, with `MultiSteps`,
    `inject_hyperparams` and averages inside. It cannot be combined with
    `optax.lookahead`: before it, W would undo the lookahead.

    *Without a wrapper.* Flax's `nn.Dense(n, dtype="bfloat16",
    param_dtype="float32")` keeps float32 parameters and casts them in the
    forward pass: the same arithmetic in less memory, as the cast copy exists
    during the step alone. Use this transform if the parameters themselves must
    have 16 bits, as they are stored or sent.

    Args:
        optimizer: an optimizer, such as `psi(...)`.

    Returns:
        A transform that needs params, with a `MasterWeightsState`. Updates keep
        their dtype.

    Raises:
        TypeError: `optimizer` is not a gradient transformation.
        ValueError: params are missing in `update`; `optimizer` is a lookahead.

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
    check_transformation(optimizer=optimizer)
    inner = optax.with_extra_args_support(optimizer)

    def init_fn(params: Tree) -> MasterWeightsState:
        weights = jax.tree.map(
            lambda w: upcast_half(w) if is_half(w) else optax.MaskedNode(),
            params,
        )
        state = inner.init(_insert(weights, params))
        check_nesting("master_weights", state, LOOKAHEAD)
        return MasterWeightsState(weights, state)

    def update_fn(
        updates: Tree,
        state: Any,
        params: Tree = None,
        **extra_args: Any,
    ) -> tuple[Tree, MasterWeightsState]:
        steps, inner_state = inner.update(
            upcast_half(updates),
            state.inner,
            _insert(state.weights, params),
            **extra_args,
        )
        weights = jax.tree.map(_move, params, state.weights, steps)
        updates = jax.tree.map(_step, params, updates, steps, weights)
        return updates, MasterWeightsState(weights, inner_state)

    return floating_transform(
        optax.GradientTransformationExtraArgs(init_fn, update_fn),
        kind=MasterWeightsState,
    )


def _insert(weights: Any, params: Tree) -> Tree:
    """Return params with the copies in place of 16-bit leaves."""
    return jax.tree.map(
        lambda w, wide: wide if is_half(w) else w, params, weights
    )


def _move(w: jax.Array, wide: Any, step: Any) -> Any:
    """Return the copy after the step, if there are both."""
    if is_placeholder(step) or not is_half(w):
        return wide
    return wide + step.astype(wide.dtype)


def _step(w: jax.Array, u: Any, step: Any, wide: Any) -> Any:
    """Return the step of a leaf, in the dtype of u."""
    if is_placeholder(u):
        return u
    if is_half(w):
        target = limit_shrinkage(w, wide)
        step = upcast_half(target.astype(w.dtype)) - upcast_half(w)
    return step.astype(u.dtype)
