"""Averages of the weights of a run, and their return to the spheres."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_decay, check_schedule
from psi_optax.groups import Groups, Leaves, Plan, Tree, make_plan
from psi_optax.groups.paths import is_placeholder, map_with_path
from psi_optax.groups.reductions import to_accumulator
from psi_optax.transforms.contract import floating_transform
from psi_optax.transforms.floating import upcast_half
from psi_optax.transforms.state_checks import read_states
from psi_optax.wrappers._stored_leaves import stored_leaves


class AverageWeightsState(NamedTuple):
    """State of `average_weights`.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        weight: sum of the shares of all weights before normalization;
            shape=(), 0 before the first step and at most 1.
        average: like params, float32 for 16-bit leaves; zeros before the first
            step.
    """

    count: jax.typing.ArrayLike
    weight: jax.typing.ArrayLike
    average: Any


def average_weights(
    decay: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    r"""Average the weights after each step, and pass updates through.

    \(s_t \propto d_t\,s_{t-1} + (1 - d_t)\,w_t\), divided by the sum of the
    shares of all weights, so that it does not depend on its initial value. A
    decay of 0.999 averages about a thousand steps. `lambda t: t / (t + 1)`
    averages all steps equally (SWA). A decay of 1 omits a step, and so delays
    the start. In float32 the shares of a uniform average of t steps have a
    relative error of up to \(3\cdot 10^{-8}\,t\): 3 % after a million steps.

    Put it last in a chain, where updates are added to params unchanged:
    `optax.chain(psi(...), average_weights(0.999))`. With `optax.MultiSteps` it
    belongs inside; outside it averages the accumulation steps as well. Read the
    average by `get_average`: an average of weights on a sphere lies inside of
    the sphere.

    Non-finite weights make their elements of the average non-finite for good.
    `optax.apply_if_finite` around the chain omits such steps.

    Args:
        decay: \(d\), a number in [0, 1), or a schedule of the number of
            previous steps, with values in [0, 1].

    Returns:
        A transform that needs params, with an `AverageWeightsState`.

    Raises:
        ValueError: a decay not in [0, 1); params are missing in `update`.
        TypeError: the decay is neither a number nor a schedule.

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

    def init_fn(params: Tree) -> AverageWeightsState:
        return AverageWeightsState(
            count=jnp.zeros([], jnp.int32),
            weight=jnp.zeros([]),
            average=jax.tree.map(jnp.zeros_like, upcast_half(params)),
        )

    def update_fn(
        updates: Tree,
        state: Any,
        params: Tree = None,
        **extra_args: Any,
    ) -> tuple[Tree, AverageWeightsState]:
        del extra_args
        d = decay(state.count) if callable(decay) else decay
        d = jnp.asarray(d, state.weight.dtype)
        weight = d * state.weight + (1 - d)
        share = geometry.safe_divide(1 - d, weight)

        def mix(average: jax.Array, w: jax.Array, u: Any) -> jax.Array:
            moved = w if is_placeholder(u) else optax.apply_updates(w, u)
            moved = jnp.asarray(moved, average.dtype)
            new = average + share.astype(average.dtype) * (moved - average)
            return jnp.where(share == 0, average, new)

        return updates, AverageWeightsState(
            count=optax.safe_increment(state.count),
            weight=weight,
            average=jax.tree.map(mix, state.average, params, updates),
        )

    return floating_transform(
        optax.GradientTransformationExtraArgs(init_fn, update_fn),
        kind=AverageWeightsState,
    )


def get_average(
    opt_state: optax.OptState, params: Tree, groups: Groups = None
) -> Tree:
    """Return the average of `average_weights`, with groups on their spheres.

    Every scale group has the direction of its average and its norm in params.
    If the initial weights of an equivariant run are rescaled by group, the
    result is rescaled alike.

    A network with BatchNorm needs new running statistics for these weights, see
    `batch_stats.recalibrate`.

    Args:
        opt_state: the state of any optimizer with an `average_weights`
            anywhere in it (of NNX's optimizer, `optimizer.opt_state`), or with
            several for different parameters.
        params: the current weights.
        groups: scale groups in any form; None gives the plain average.

    Returns:
        A tree like params, in its dtypes. Leaves without an average are those
        of params: all before the first step, masked leaves, integers. So are
        groups whose average is zero, which have no direction.

    Raises:
        ValueError: the state has no average, or two of one parameter; the
            average is of parameters of other shapes; the state is of several
            steps or seeds; groups do not fit params.

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
    states = read_states(
        opt_state,
        AverageWeightsState,
        "put average_weights(decay) last in the chain.",
    )
    averages = stored_leaves("average", states, params)
    plan = make_plan(groups, params)
    w = plan.select(params)
    inside = {
        path: averages[path].leaf if path in averages else x
        for path, x in w.items()
    }
    on_spheres = _on_spheres(plan, w, inside)

    def leaf(path: str, x: Any) -> Any:
        if path not in averages:
            return x
        found = averages[path]
        x = jnp.asarray(x)
        average = on_spheres.get(path, found.leaf).astype(x.dtype)
        return jnp.where(found.state.weight == 0, x, average)

    return map_with_path(leaf, params)


def _on_spheres(plan: Plan, w: Leaves, inside: Leaves) -> Leaves:
    """Return averages with the norms of w; w for an average of zero."""
    moved = geometry.project_to_sphere(plan, inside, geometry.norm(plan, w))
    norms = plan.broadcast(geometry.norm(plan, inside))
    return {
        path: jnp.where(norm == 0, to_accumulator(w[path]), moved[path])
        for path, norm in norms.items()
    }
