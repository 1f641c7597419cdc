"""Stochastic rounding: steps far below the spacing of weights, on average."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax._validation import check_transformation
from psi_optax.groups.paths import is_placeholder
from psi_optax.transforms.contract import on_floats
from psi_optax.transforms.radius import refuse_lookahead
from psi_optax.wrappers._low_precision import (
    HALF_DTYPES,
    is_half,
    limit_shrinkage,
    upcast_half,
)


class StochasticRoundingState(NamedTuple):
    """How many steps were taken, and the wrapped optimizer's state.

    Attributes:
        count: shape=(), dtype=int32.
        inner: of the inner optimizer, made from weights in float32.
    """

    count: jax.typing.ArrayLike
    inner: optax.OptState


def stochastic_rounding(
    inner: optax.GradientTransformation, key: jax.typing.ArrayLike
) -> optax.GradientTransformationExtraArgs:
    r"""Rounds new bfloat16 and float16 weights up or down, at random.

    A step of less than half the spacing of such weights is lost when they are
    rounded to nearest, and every other one is bent. Here \(w + u\), formed in
    float32, becomes one of its two neighbours in the dtype of the weights, each
    the likelier the nearer it is, so that its mean is \(w + u\). One step may
    point anywhere; the sum of many is what float32 makes of it, and noise.

    The inner optimizer is shown weights and gradients in float32, into which
    they fit exactly, and answers in it: nothing inside rounds a step to
    nearest. Its state is therefore twice as large as that of the same optimizer
    without this. Leaves of other dtypes pass as if this were not there.

    Put it around everything: `stochastic_rounding(psi(...), 0)`. What is added
    to its updates is rounded to nearest again. `optax.MultiSteps` inside of it
    accumulates in float32; `optax.lookahead` does not fit inside, but around it
    is right. A derivative through a drawn weight is zero.

    *What arrives.* `optax.apply_updates` gives exactly the weight that was
    drawn, as long as that lies between half and twice the old one, whose
    difference then has no rounding, or the old one is zero. A weight that moves
    further has its step drawn in the same way: still right on average, and
    exact unless the weight grows; if it more than doubles, or changes its sign
    and grows, the sum of `optax.apply_updates` rounds once more, to nearest.

    *A leaf that falls far.* Where the largest weight of a leaf falls below 1/16
    of the largest before (1/32 in float16), as under a `radius` far below the
    norms, no weight shrinks by more than that in one step, which is not random:
    the leaf keeps its direction, and arrives within the next steps. A group
    that falls that far beside another that does not is drawn like any other.

    *Ends of the range.* A step of zero is a step of zero. Above its largest
    number the next one of a dtype is infinite. A weight that is not finite
    becomes NaN, and a step that is not finite makes its weight so. Subnormal
    float16 weights are rounded like others; bfloat16 weights below 2^-119
    become multiples of 2^-126, as XLA takes smaller numbers for zero.

    *Random bits* depend on the key, the number of steps and the place in the
    tree alone, on one device or on many. A run that goes on from a checkpoint
    goes on with the same bits, if it is given the same key, which is not in the
    state. They are drawn leaf by leaf, which a compiler unrolls: for hundreds
    of leaves `jax.random.key(0, impl="rbg")` compiles in a fraction of the
    time. Inside of `jax.shard_map` every shard draws alike: where shards hold
    different weights, fold the index of the device into the key.

    Args:
        inner: an optimizer, such as `psi(...)`.
        key: a seed or a `jax.random.key`.

    Returns:
        A transform that needs params, with a `StochasticRoundingState`.
        Updates keep their dtype.

    Raises:
        TypeError: `inner` is no gradient transformation; the key is neither a
            whole number nor a `jax.random.key`.
        ValueError: params are missing in `update`; `inner` is a lookahead.

    Examples:
        >>> tx = stochastic_rounding(optax.sgd(1.0), key=0)
        >>> w = jnp.full(8000, 1.0, "bfloat16")  # the next is 1.0078125
        >>> u, _ = tx.update(jnp.full_like(w, -0.001), tx.init(w), w)
        >>> sorted(set(optax.apply_updates(w, u).tolist()))
        [1.0, 1.0078125]
        >>> print(f"{u.mean(dtype='float32'):.4f}")
        0.0010

    References:
        Gupta et al., [Deep learning with limited numerical
        precision](https://arxiv.org/abs/1502.02551), ICML 2015, section 3.1;
        Zamirai et al., [Revisiting bfloat16
        training](https://arxiv.org/abs/2010.06192), 2020.
    """
    check_transformation(inner=inner)
    inner = optax.with_extra_args_support(inner)
    key = _as_key(key)

    def init_fn(params):
        state = inner.init(upcast_half(params))
        refuse_lookahead("stochastic_rounding", state)
        return StochasticRoundingState(jnp.zeros([], jnp.int32), state)

    def update_fn(updates, state, params=None, **extra_args):
        wide = upcast_half(params)
        steps, inner_state = inner.update(
            upcast_half(updates), state.inner, wide, **extra_args
        )
        here = jax.random.fold_in(key, state.count)
        keys = optax.tree.split_key_like(here, wide)
        updates = jax.tree.map(_draw_step, params, updates, steps, keys)
        count = optax.safe_increment(state.count)
        return updates, StochasticRoundingState(count, inner_state)

    return on_floats(
        optax.GradientTransformationExtraArgs(init_fn, update_fn),
        kind=StochasticRoundingState,
    )


def _as_key(key: Any) -> jax.Array:
    dtype = key.dtype if hasattr(key, "dtype") else np.asarray(key).dtype
    typed = jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (typed or np.issubdtype(dtype, np.integer)) or np.ndim(key):
        raise TypeError(
            f"key={key!r}: give a whole number, or jax.random.key(0)."
        )
    if typed:
        return key
    return jax.random.key(key)


def _draw_step(w, u, step, key):
    """The step of a leaf, in the dtype of u."""
    if is_placeholder(u):
        return u
    if not is_half(w):
        return step.astype(u.dtype)
    wide = upcast_half(w)
    sharding = jax.typeof(wide).sharding
    bits = jax.random.bits(key, wide.shape, jnp.uint32, out_sharding=sharding)
    target = limit_shrinkage(w, wide + step.astype(jnp.float32))
    new = _draw(target, w.dtype, bits)
    # Where the difference fits into the dtype, this draws it itself.
    return _draw(new - wide, u.dtype, bits >> 16).astype(u.dtype)


def _draw(x, dtype, bits):
    """A neighbour of x in dtype, in float32, whose mean over the bits is x.

    What float32 has beyond the dtype is added to at random, and cut off. Each
    operation is right by itself: compilers may compute x twice, with different
    roundings, where it is read twice.
    """
    if dtype not in HALF_DTYPES:
        return x
    info = jnp.finfo(dtype)
    beyond = jnp.uint32(2 ** (jnp.finfo(jnp.float32).nmant - info.nmant) - 1)
    # From here on down the numbers of dtype are equally spaced, and x is drawn
    # where they are spaced like that: beside a number as large as this.
    small = float(max(info.tiny, jnp.finfo(jnp.float32).tiny / info.eps))
    shift = jnp.where(jnp.abs(x) < small, jnp.copysign(small, x), 0)
    number = jax.lax.bitcast_convert_type(x + shift, jnp.uint32)
    number = (number + (bits & beyond)) & ~beyond
    drawn = jax.lax.bitcast_convert_type(number, jnp.float32) - shift
    return jnp.where(jnp.isfinite(x), drawn, x)
