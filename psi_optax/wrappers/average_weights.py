"""The average of the weights that a run passes through."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from psi_optax.groups.types import Leaves, Tree
from psi_optax.transforms.states import find_states

from psi_optax import geometry
from psi_optax._validation import check_decay, check_schedule
from psi_optax.groups import Plan, make_plan
from psi_optax.groups.paths import (
    is_placeholder,
    leaves_with_paths,
    map_with_path,
)
from psi_optax.transforms.contract import on_floats
from psi_optax.wrappers._low_precision import upcast_half


class AverageWeightsState(NamedTuple):
    """What `average_weights` keeps.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        weight: what the shares of all weights add up to before they are
            divided by it; shape=(), 0 before the first and at most 1.
        average: a tree like params, float32 for what is of 16 bits; zeros
            before the first step.
    """

    count: jax.typing.ArrayLike
    weight: jax.typing.ArrayLike
    average: Any


def average_weights(
    decay: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    r"""Averages the weights after each step, and passes updates through.

    \(s_t \propto d_t\,s_{t-1} + (1 - d_t)\,w_t\), divided by what the shares of
    the weights add up to, so that it owes nothing to where it began. A decay
    of 0.999 averages some thousand steps; of `lambda t: t / (t + 1)` all of
    them alike (SWA), and of 1 leaves a step out, which is how to begin later.
    In float32 the shares of such a uniform average are off by up to
    \(3\cdot 10^{-8}\,t\), relatively: 3 % after a million steps.

    It goes last in a chain, where updates are what will be added to params:
    `optax.chain(psi(...), average_weights(0.999))`. With `optax.MultiSteps` it
    goes inside with the rest, or it averages the steps in between as well.
    Read it by `get_average`: an average of weights on a sphere lies inside of it.

    Weights that are not finite spoil their elements of the average for good,
    unless their step is left out: `optax.apply_if_finite` around the chain
    keeps them out.

    Args:
        decay: \(d\), a number in [0, 1), or a schedule of the number of steps
            taken before this one, with values in [0, 1].

    Returns:
        A transform that needs params, with an `AverageWeightsState`.

    Raises:
        ValueError: a decay not in [0, 1); params are missing in `update`.
        TypeError: the decay is no number and no schedule.

    Examples:
        >>> tx = optax.chain(
        ...     optax.sgd(1.0), average_weights(lambda t: t / (t + 1))
        ... )
        >>> w = jnp.array([4.0])
        >>> state = tx.init(w)
        >>> for gradient in [1.0, 2.0]:  # to 3, then to 1
        ...     u, state = tx.update(jnp.array([gradient]), state, w)
        ...     w = optax.apply_updates(w, u)
        >>> get_average(state, w).tolist()
        [2.0]

    References:
        Izmailov et al., [Averaging weights leads to wider
        optima](https://arxiv.org/abs/1803.05407), UAI 2018; Polyak and
        Juditsky, [Acceleration of stochastic approximation by
        averaging](https://doi.org/10.1137/0330046), 1992.
    """
    decay = check_schedule("decay", decay, check_decay)

    def init_fn(params):
        return AverageWeightsState(
            count=jnp.zeros([], jnp.int32),
            weight=jnp.zeros([]),
            average=jax.tree.map(jnp.zeros_like, upcast_half(params)),
        )

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        d = decay(state.count) if callable(decay) else decay
        d = jnp.asarray(d, state.weight.dtype)
        weight = d * state.weight + (1 - d)
        share = geometry.safe_divide(1 - d, weight)

        def mix(average, w, u):
            moved = w if is_placeholder(u) else optax.apply_updates(w, u)
            moved = jnp.asarray(moved, average.dtype)
            new = average + share.astype(average.dtype) * (moved - average)
            return jnp.where(share == 0, average, new)

        return updates, AverageWeightsState(
            count=optax.safe_increment(state.count),
            weight=weight,
            average=jax.tree.map(mix, state.average, params, updates),
        )

    return on_floats(
        optax.GradientTransformationExtraArgs(init_fn, update_fn),
        kind=AverageWeightsState,
    )


def get_average(
    opt_state: optax.OptState, params: Tree, groups: Any = None
) -> Tree:
    """The average that `average_weights` keeps, with groups on their spheres.

    Every scale group has the direction of its average and the norm that it has
    in params. Multiply groups of the weights that a run began with, and the
    result is multiplied alike, if the run is.

    A network with BatchNorm has to have its statistics collected anew for
    these weights, by `batch_stats.recalibrate`: no step had them.

    Args:
        opt_state: the state of any optimizer with an `average_weights`
            anywhere in it (of NNX's optimizer, `optimizer.opt_state`), or with
            several for different parameters.
        params: the weights now.
        groups: scale groups in any form; None gives the plain average.

    Returns:
        A tree like params, in its dtypes. What is not averaged is as it is in
        params: all before the first step, what a mask hides, integers. So is a
        group whose average is zero, which has no direction.

    Raises:
        ValueError: there is no average in the state, or there are two of one
            parameter; it is of parameters of other shapes; the state is of
            several steps or seeds; groups do not fit params.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = average_weights(lambda t: t / (t + 1))
        >>> east, north = jnp.array([2.0, 0.0]), jnp.array([0.0, 2.0])
        >>> _, state = tx.update(jnp.zeros(2), tx.init(east), east)
        >>> _, state = tx.update(jnp.zeros(2), state, north)
        >>> get_average(state, north).tolist()
        [1.0, 1.0]
        >>> print(get_average(state, north, ScaleGroup(axes=0)).round(2))
        [1.41 1.41]
    """
    averages = _averages(opt_state, params)
    plan = make_plan(groups, params)
    w = plan.select(params)
    inside = {
        path: averages[path].leaf if path in averages else x
        for path, x in w.items()
    }
    on_spheres = _on_spheres(plan, w, inside)

    def leaf(path, x):
        if path not in averages:
            return x
        found = averages[path]
        x = jnp.asarray(x)
        average = on_spheres.get(path, found.leaf).astype(x.dtype)
        return jnp.where(found.weight == 0, x, average)

    return map_with_path(leaf, params)


def _on_spheres(plan: Plan, w: Leaves, inside: Leaves) -> Leaves:
    """Brought to the norms of w; w itself where there is no direction."""
    moved = geometry.project_to_sphere(plan, inside, geometry.norm(plan, w))
    norms = plan.broadcast(geometry.norm(plan, inside))
    return {
        path: jnp.where(norm == 0, geometry.widen(w[path]), moved[path])
        for path, norm in norms.items()
    }


class _Average(NamedTuple):
    leaf: jax.Array
    weight: jax.typing.ArrayLike


def _averages(opt_state: optax.OptState, params: Tree) -> dict[str, _Average]:
    """The averages of parameters, by path."""
    states = find_states(opt_state, AverageWeightsState)
    if not states:
        raise ValueError(
            "there is no average in this state: put average_weights(decay)"
            " last into the chain that it is the state of."
        )
    if any(jnp.ndim(state.count) for state in states):
        raise ValueError(
            "this state is of several steps or seeds together: vmap averaged"
            " as well, or take one of them, as by"
            " jax.tree.map(lambda x: x[0], state)."
        )
    shapes = {
        entry.path: np.shape(entry.leaf)
        for entry in leaves_with_paths(params)
        if not entry.is_placeholder
    }
    found: dict[str, _Average] = {}
    for state in states:
        for path, leaf in leaves_with_paths(state.average):
            if is_placeholder(leaf):
                continue
            if path in found:
                raise ValueError(f"two average {path!r}: keep one.")
            if shapes.get(path) != leaf.shape:
                raise ValueError(
                    f"the average of {path!r} is of shape {leaf.shape}, but"
                    f" params have {shapes.get(path, 'nothing')} there: pass"
                    " the params and the state of one run."
                )
            found[path] = _Average(leaf, state.weight)
    return found
