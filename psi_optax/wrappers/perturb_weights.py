"""Noise of the weights before the gradient, relative to their norms."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import (
    check_choice,
    check_nonnegative,
    check_transformation,
)
from psi_optax.groups import Groups, Plan, Scalars, Tree
from psi_optax.groups.paths import is_placeholder, map_with_path
from psi_optax.transforms.contract import stateful_transform
from psi_optax.transforms.floating import upcast_half
from psi_optax.transforms.state_checks import read_states
from psi_optax.wrappers._random import as_key, draw_normal
from psi_optax.wrappers._stored_leaves import stored_leaves
from psi_optax.wrappers.nesting import Conflict, check_nesting

_CONFLICTS = {
    optax.LookaheadState: Conflict(
        "its params are pairs of fast and slow weights",
        "{outer} fits neither inside nor around it: choose average_weights.",
    )
}


class PerturbWeightsState(NamedTuple):
    """State of `perturb_weights`.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        center: the weights without noise; like params.
        inner: of the inner optimizer, which moves the center.
    """

    count: jax.typing.ArrayLike
    center: Any
    inner: optax.OptState


def perturb_weights(
    optimizer: optax.GradientTransformation,
    sigma: jax.typing.ArrayLike,
    groups: Groups,
    key: jax.typing.ArrayLike,
    *,
    layers: str = "all",
    ordinary_sigma: jax.typing.ArrayLike = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Take gradients at perturbed weights, and step from the unperturbed ones.

    \[z_{t+1} = z_t + \mathrm{optimizer}(\nabla L(z_t + \xi_t), z_t)\]

    The params are \(z_t + \xi_t\), so a step costs one gradient. The center z
    is in the state. With SGD the params follow anti-correlated perturbed
    gradient descent, \(x \mapsto x - \eta\nabla L(x) + \xi_{t+1} - \xi_t\).
    The noise is normal. Its root mean square norm is \(\sigma |z|\) for a
    group: a run with `psi` inside does not depend on the norms of the weights.
    The first gradient is without noise, as `init` does not change params. A
    group of one element gets none.

    Evaluate the center, which `get_center` reads. Running statistics of
    BatchNorm are those of perturbed weights: see `batch_stats.recalibrate`. Put
    it around the optimizer: `perturb_weights(psi(...), 0.1, groups, 0)`. The
    next step undoes a change of the params by other code: make a new state
    after it. Behind it, `optax.freeze` holds the params, but not the center:
    put it inside, or `optax.selective_transform` around.

    Gradients at perturbed weights are not tangent at the center. In place of
    `psi_sgd` with momentum, which is exact for tangent ones alone, use
    `psi_direction` of `optax.trace`.

    Random numbers depend on the key, the number of steps and the path of the
    leaf. Inside of `jax.shard_map` every shard draws the same, as in
    `stochastic_rounding`.

    Args:
        optimizer: an optimizer, such as `psi(...)`.
        sigma: \(\sigma\), nonnegative; 0.1 is a perturbation of a tenth of the
            norm.
        groups: scale groups in any form.
        key: a seed or a `jax.random.key`.
        layers: "all" perturbs every group; "one" those of one parameter, or of
            one tie, drawn anew at each step. Parameters whose groups have one
            element are not drawn.
        ordinary_sigma: the standard deviation of each ordinary weight,
            nonnegative, in the units of weights.

    Returns:
        A transform that needs params, with a `PerturbWeightsState`.

    Raises:
        TypeError: `optimizer` is not a gradient transformation; the key is
            neither an integer nor a `jax.random.key`.
        ValueError: a negative sigma; layers="one" without groups; groups do
            not fit params; params are missing in `update`; `optimizer` is a
            lookahead.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = perturb_weights(optax.sgd(0.5), 0.1, ScaleGroup(axes=0), 0)
        >>> w = jnp.array([3.0, 4.0])
        >>> u, state = tx.update(jnp.array([2.0, 0.0]), tx.init(w), w)
        >>> get_center(state).tolist()
        [2.0, 4.0]
        >>> bool(jnp.any(optax.apply_updates(w, u) != get_center(state)))
        True

    References:
        Orvieto et al., [Explicit regularization via noise
        injection](https://arxiv.org/abs/2206.04613), 2022, for one layer at a
        time; Orvieto et al., [Anticorrelated noise
        injection](https://arxiv.org/abs/2202.02831), ICML 2022.
    """
    check_transformation(optimizer=optimizer)
    check_nonnegative("sigma", sigma)
    check_choice("layers", layers, ("all", "one"))
    check_nonnegative("ordinary_sigma", ordinary_sigma)
    inner, key = optax.with_extra_args_support(optimizer), as_key(key)

    def init(plan: Plan, params: Tree) -> PerturbWeightsState:
        state = inner.init(params)
        check_nesting("perturb_weights", state, _CONFLICTS)
        if layers == "one" and jax.tree.leaves(params) and not _layers(plan):
            raise ValueError(
                'layers="one" chooses among scale groups of several weights,'
                ' and groups has none for these params: choose layers="all"'
                " and ordinary_sigma."
            )
        # A step may donate params and state, which cannot share buffers.
        center = jax.tree.map(jnp.array, params)
        return PerturbWeightsState(jnp.zeros([], jnp.int32), center, state)

    def update(
        plan: Plan,
        updates: Tree,
        state: PerturbWeightsState,
        params: Tree,
        **extra_args: Any,
    ) -> tuple[Tree, PerturbWeightsState]:
        steps, inner_state = inner.update(
            updates, state.inner, state.center, **extra_args
        )
        count = jnp.asarray(optax.safe_increment(state.count))
        center = jax.tree.map(_move, state.center, steps)
        noise_key, layer_key = jax.random.split(jax.random.fold_in(key, count))
        scales = _scales(plan, center, sigma)
        if layers == "one":
            scales = _one_of(scales, _layers(plan), layer_key)
        noise = _noise(plan, center, scales, ordinary_sigma, noise_key)
        updates = jax.tree.map(
            _step, params, updates, steps, state.center, noise
        )
        return updates, PerturbWeightsState(count, center, inner_state)

    return stateful_transform(
        groups, update, kind=PerturbWeightsState, init=init
    )


def get_center(opt_state: optax.OptState, params: Tree = None) -> Tree:
    """Return the weights of `perturb_weights` without noise.

    A network with BatchNorm needs new running statistics for these weights, see
    `batch_stats.recalibrate`.

    Args:
        opt_state: the state of any optimizer with a `perturb_weights` anywhere
            in it (of NNX's optimizer, `optimizer.opt_state`), or with several
            for different parameters.
        params: the current weights, for the leaves that have no center: masked
            leaves, integers. Without them these are missing.

    Returns:
        A tree like params, in its dtypes.

    Raises:
        ValueError: the state has no center, two of one parameter, or several
            without params; the center is of parameters of other shapes; the
            state is of several steps or seeds.

    Examples:
        >>> tx = perturb_weights(optax.sgd(1.0), 0.1, None, 0)
        >>> w = {"w": jnp.array([1.0]), "steps": jnp.array(3)}
        >>> get_center(tx.init(w), w)["steps"].item()
        3
    """
    states = read_states(
        opt_state,
        PerturbWeightsState,
        "wrap the optimizer in perturb_weights.",
    )
    if params is None:
        if len(states) > 1:
            raise ValueError(
                f"the state has {len(states)} centers: pass params, whose"
                " leaves they are."
            )
        return states[0].center
    centers = stored_leaves("center", states, params)
    return map_with_path(
        lambda path, x: centers[path].leaf if path in centers else x, params
    )


def _scales(plan: Plan, center: Tree, sigma: Any) -> Scalars:
    """Return the standard deviation of each group's weights."""
    norms = geometry.norm(plan, plan.select(center))
    return {
        name: jnp.asarray(sigma, r.dtype) * r / max(plan.sizes[name], 1) ** 0.5
        for name, r in norms.items()
    }


def _layers(plan: Plan) -> list[str]:
    """Return the names whose groups can have noise, in alphabetic order."""
    return sorted(plan.group_shapes.keys() - plan.singletons)


def _one_of(scales: Scalars, names: list[str], key: jax.Array) -> Scalars:
    """Return zeros in place of all scales but those of one of the names."""
    if not names:
        return scales
    drawn = jax.random.randint(key, (), 0, len(names))
    is_drawn = {name: drawn == i for i, name in enumerate(names)}
    return {
        name: jnp.where(is_drawn.get(name, False), s, 0)
        for name, s in scales.items()
    }


def _noise(
    plan: Plan, center: Tree, scales: Scalars, ordinary: Any, key: jax.Array
) -> Tree:
    normal = draw_normal(key, center)
    grouped = geometry.scale(plan, plan.select_steps(normal, "noise"), scales)
    rest = jax.tree.map(lambda x: jnp.asarray(ordinary, x.dtype) * x, normal)
    return plan.merge(rest, grouped)


def _move(z: jax.Array, step: Any) -> jax.Array:
    """Return the center after a step, if there is one."""
    if is_placeholder(step):
        return z
    wide = upcast_half(z)
    return (wide + step.astype(wide.dtype)).astype(z.dtype)


def _step(
    w: jax.Array, u: Any, step: Any, z: jax.Array, noise: jax.Array
) -> Any:
    """Return the update to the next perturbed weights, in the dtype of u."""
    if is_placeholder(u):
        return u
    # In this order a step without any noise is the inner step, to the bit.
    moved = (step.astype(noise.dtype) + noise) + (
        upcast_half(z) - upcast_half(w)
    )
    return moved.astype(u.dtype)
