"""Decentralized averaging: weights mix with those of two neighbours."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax._text import short_repr
from psi_optax._validation import check_nonnegative
from psi_optax.groups import Tree
from psi_optax.groups.paths import is_placeholder
from psi_optax.transforms.contract import floating_transform
from psi_optax.transforms.floating import upcast_half


def mix_with_neighbors(
    axis_name: str,
    weights: Sequence[jax.typing.ArrayLike] = (1 / 3, 1 / 3, 1 / 3),
) -> optax.GradientTransformationExtraArgs:
    r"""Average the weights of learners on a ring, and then add the update.

    \[w_j \leftarrow a\, w_{j-1} + b\, w_j + c\, w_{j+1} + u_j\]

    for the learners j along an axis: of `jax.vmap(..., axis_name=...)`, or of
    the mesh of a `jax.shard_map`. Each learner has its own gradient and its own
    optimizer state. Learners of equal weights take the step u to the bit.

    An average of weights on a sphere lies inside of it. Put it last in the
    chain, but for `retract`, which brings scale groups back:

        optax.chain(
            psi_sgd(0.1, groups),
            mix_with_neighbors("learners"),
            retract(groups),
        )

    A step sends the weights twice, so all learners have to take it: put
    `optax.apply_if_finite` inside, around the optimizer alone. Around the chain
    the other devices would wait for a learner that skips its step. Running
    statistics of BatchNorm stay those of each learner.

    Args:
        axis_name: the axis of the learners, at least 3 of them.
        weights: (a, b, c) of the left neighbour, the learner itself and the
            right neighbour; nonnegative, their sum is 1.

    Returns:
        A stateless transform that needs params.

    Raises:
        TypeError: the name is not a string; the weights are not numbers.
        ValueError: the weights are not three, one is negative, or their sum is
            not 1; the axis is not bound where `update` is called, or has fewer
            than 3 learners; params are missing in `update`.

    Examples:
        >>> tx = mix_with_neighbors("learners", (0.25, 0.5, 0.25))
        >>> def update(u, w):
        ...     return tx.update(u, tx.init(w), w)[0]
        >>> w, u = jnp.array([0.0, 4.0, 8.0]), jnp.zeros(3)
        >>> (w + jax.vmap(update, axis_name="learners")(u, w)).tolist()
        [3.0, 4.0, 5.0]

    References:
        Lian et al., [Can decentralized algorithms outperform centralized
        algorithms?](https://arxiv.org/abs/1705.09056), NeurIPS 2017, algorithm
        1; Zhang et al., [Loss landscape dependent self-adjusting learning rates
        in decentralized SGD](https://arxiv.org/abs/2112.01433), 2021.
    """
    if not isinstance(axis_name, str):
        raise TypeError(
            f"axis_name={short_repr(axis_name)}: pass the name of one axis."
        )
    left, right = _check_weights(weights)

    def init_fn(params: Tree) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update_fn(
        updates: Tree, state: Any, params: Tree = None, **extra_args: Any
    ) -> tuple[Tree, Any]:
        del extra_args
        size = _ring_size(axis_name)
        upwards = [(i, (i + 1) % size) for i in range(size)]
        downwards = [(j, i) for i, j in upwards]

        def leaf(w: jax.Array, u: Any) -> Any:
            if is_placeholder(u):
                return u
            here, before, after = upcast_half(
                (
                    w,
                    jax.lax.ppermute(w, axis_name, upwards),
                    jax.lax.ppermute(w, axis_name, downwards),
                )
            )
            # Differences are zero among equal weights; a sum would be rounded.
            mixed = jnp.asarray(left, here.dtype) * (before - here)
            mixed += jnp.asarray(right, here.dtype) * (after - here)
            return (u.astype(here.dtype) + mixed).astype(u.dtype)

        return jax.tree.map(leaf, params, updates), state

    return floating_transform(
        optax.GradientTransformationExtraArgs(init_fn, update_fn)
    )


def _check_weights(weights: Any) -> tuple[Any, Any]:
    """Return the weights of the neighbours."""
    is_sequence = isinstance(weights, (tuple, list)) or np.ndim(weights) == 1
    if not is_sequence or len(weights) != 3:
        raise ValueError(
            f"weights={short_repr(weights)}: pass three numbers, of the left"
            " neighbour, of the learner itself and of the right neighbour."
        )
    for weight in weights:
        check_nonnegative("weights", weight)
    total = sum(weights)
    # A traced weight of the learner itself is 1 minus the others.
    known = not isinstance(total, jax.core.Tracer)
    if known and abs(float(total) - 1) > 1e-6:
        raise ValueError(
            f"weights={short_repr(weights)} have the sum {total}: divide each"
            " by it, as the weights of an average have a sum of 1."
        )
    return weights[0], weights[2]


def _ring_size(axis_name: str) -> int:
    """Return the number of learners.

    Raises:
        ValueError: there is no such axis here, or it is too short for a ring.
    """
    try:
        size = jax.lax.axis_size(axis_name)
    except NameError:
        raise ValueError(
            f"there is no axis {axis_name!r} here: call `update` inside"
            f" jax.vmap(..., axis_name={axis_name!r}) with an axis of learners,"
            " or inside jax.shard_map over a mesh with this axis."
        ) from None
    if size < 3:
        raise ValueError(
            f"the axis {axis_name!r} has {size} learners: two distinct"
            " neighbours need 3. Average fewer by jax.lax.pmean."
        )
    return size
