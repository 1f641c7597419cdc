"""Stochastic rounding: steps far below the spacing of weights, on average."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax._validation import check_transformation
from psi_optax.groups import Tree
from psi_optax.groups.paths import is_placeholder
from psi_optax.transforms.contract import floating_transform
from psi_optax.transforms.floating import HALF_DTYPES, is_half, upcast_half
from psi_optax.wrappers._low_precision import limit_shrinkage
from psi_optax.wrappers._random import as_key
from psi_optax.wrappers.nesting import LOOKAHEAD, check_nesting


class StochasticRoundingState(NamedTuple):
    """State of `stochastic_rounding`.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        inner: of the inner optimizer, which sees float32 in place of 16 bits.
    """

    count: jax.typing.ArrayLike
    inner: optax.OptState


def stochastic_rounding(
    optimizer: optax.GradientTransformation, key: jax.typing.ArrayLike
) -> optax.GradientTransformationExtraArgs:
    r"""Round new bfloat16 and float16 weights up or down at random.

    A step of less than half the spacing of such weights is lost when they are
    rounded to nearest, and any other step changes its direction. Here
    \(w + u\), computed in float32, becomes one of its two neighbours in the
    dtype of the weights. The nearer one is more probable, so that the mean is
    \(w + u\). One step may have any direction; the sum of many is that of
    float32, and noise.

    The inner optimizer sees weights and gradients in float32, which is exact,
    and returns steps in float32. Its state is twice as large as without this
    wrapper. Leaves of other dtypes are treated as by the inner optimizer alone.

    Put it around everything: `stochastic_rounding(psi(...), 0)`. A later
    addition to its updates is rounded to nearest. `optax.MultiSteps` inside of
    it accumulates in float32. `optax.lookahead` fits around it, not inside. The
    derivative through a drawn weight is zero.

    *Exactness.* `optax.apply_updates` gives exactly the drawn weight if it lies
    between half and twice the old one, as their difference then has no
    rounding, or if the old one is zero. For a weight that moves further the
    step is drawn in the same way: it is right on average, and exact unless the
    weight grows. If the weight more than doubles, or changes its sign and
    grows, the sum of `optax.apply_updates` rounds once more, to nearest.

    *A leaf that shrinks far.* If the largest weight of a leaf falls below 1/16
    of its largest before (1/32 in float16), as under a `radius` far below the
    norms, no weight shrinks by more than that in one step, which is not random:
    the leaf keeps its direction, and arrives within the next steps. A group
    that shrinks that far beside another that does not is drawn as usual.

    *Ends of the range.* A zero step is a zero step. The neighbour above the
    largest number of a dtype is infinite. A non-finite weight becomes NaN, and
    a non-finite step makes its weight non-finite. Subnormal float16 weights are
    rounded like others. bfloat16 weights below 2^-119 become multiples of
    2^-126, as XLA treats smaller numbers as zero.

    *Random bits* depend on the key, the number of steps and the position in the
    tree, on one device or on many. The key is not in the state: a run that
    continues from a checkpoint draws the same bits if it gets the same key.
    Bits are drawn leaf by leaf, which a compiler unrolls: for hundreds of
    leaves `jax.random.key(0, impl="rbg")` compiles in a fraction of the time.
    Inside of `jax.shard_map` every shard draws the same bits: if shards hold
    different weights, fold the index of the device into the key.

    Args:
        optimizer: an optimizer, such as `psi(...)`.
        key: a seed or a `jax.random.key`.

    Returns:
        A transform that needs params, with a `StochasticRoundingState`.
        Updates keep their dtype.

    Raises:
        TypeError: `optimizer` is not a gradient transformation; the key is
            neither an integer nor a `jax.random.key`.
        ValueError: params are missing in `update`; `optimizer` is a lookahead.

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
    check_transformation(optimizer=optimizer)
    inner = optax.with_extra_args_support(optimizer)
    key = as_key(key)

    def init_fn(params: Tree) -> StochasticRoundingState:
        state = inner.init(upcast_half(params))
        check_nesting("stochastic_rounding", state, LOOKAHEAD)
        return StochasticRoundingState(jnp.zeros([], jnp.int32), state)

    def update_fn(
        updates: Tree,
        state: Any,
        params: Tree = None,
        **extra_args: Any,
    ) -> tuple[Tree, StochasticRoundingState]:
        wide = upcast_half(params)
        steps, inner_state = inner.update(
            upcast_half(updates), state.inner, wide, **extra_args
        )
        here = jax.random.fold_in(key, state.count)
        keys = optax.tree.split_key_like(here, wide)
        updates = jax.tree.map(_draw_step, params, updates, steps, keys)
        count = optax.safe_increment(state.count)
        return updates, StochasticRoundingState(count, inner_state)

    return floating_transform(
        optax.GradientTransformationExtraArgs(init_fn, update_fn),
        kind=StochasticRoundingState,
    )


def _draw_step(w: jax.Array, u: Any, step: Any, key: jax.Array) -> Any:
    """Return the step of a leaf, in the dtype of u."""
    if is_placeholder(u):
        return u
    if not is_half(w):
        return step.astype(u.dtype)
    wide = upcast_half(w)
    sharding = jax.typeof(wide).sharding
    bits = jax.random.bits(key, wide.shape, jnp.uint32, out_sharding=sharding)
    target = limit_shrinkage(w, wide + step.astype(jnp.float32))
    new = _draw(target, w.dtype, bits)
    # If the difference is representable, this draws exactly it.
    return _draw(new - wide, u.dtype, bits >> 16).astype(u.dtype)


def _draw(x: jax.Array, dtype: jnp.dtype, bits: jax.Array) -> jax.Array:
    """Draw a neighbour of x in dtype, in float32, whose mean over bits is x.

    Random bits are added to the digits beyond the dtype, which are then cut
    off. Each operation is right by itself: compilers may compute x twice, with
    different roundings, if it is read twice.
    """
    if dtype not in HALF_DTYPES:
        return x
    info = jnp.finfo(dtype)
    beyond = jnp.uint32(2 ** (jnp.finfo(jnp.float32).nmant - info.nmant) - 1)
    # Below this magnitude the numbers of dtype are equally spaced. x is drawn
    # beside a number of this magnitude, where they are spaced alike.
    small = float(max(info.tiny, jnp.finfo(jnp.float32).tiny / info.eps))
    shift = jnp.where(jnp.abs(x) < small, jnp.copysign(small, x), 0)
    number = jax.lax.bitcast_convert_type(x + shift, jnp.uint32)
    number = (number + (bits & beyond)) & ~beyond
    drawn = jax.lax.bitcast_convert_type(number, jnp.float32) - shift
    return jnp.where(jnp.isfinite(x), drawn, x)
