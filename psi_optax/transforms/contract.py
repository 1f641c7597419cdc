"""The contract with optax: what `init` and `update` accept and return.

`grouped_transform` is for transforms of grouped leaves, which pass the others
through. `floating_transform` is for transforms of every leaf that can move, and
`stateful_transform` for those of them that know the groups. Inside, params are
there, updates are like params, the state is the transform's own, and leaves are
arrays.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from psi_optax.groups import Groups, Leaves, Plan, Tree, make_plan
from psi_optax.groups.paths import longest_prefix
from psi_optax.transforms.floating import (
    floats_as_arrays,
    show_floats,
    with_the_rest,
)
from psi_optax.transforms.state_checks import (
    check_state_type,
    check_structure,
    describe_shape,
    shapes_by_path,
)

# optax raises this in every transform that needs params, but keeps it private.
NO_PARAMS_MSG = (
    "You are using a transformation that requires the current value of "
    "parameters, but you are not passing `params` when calling `update`."
)


def grouped_transform(
    groups: Groups,
    update: Callable[[Plan, Leaves, Leaves, Any], tuple[Leaves, Any]],
    *,
    kind: type[tuple] = optax.EmptyState,
    init: Callable[[Plan, Leaves], Any] = lambda *_: optax.EmptyState(),
    needs_params: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Return a transform of the grouped leaves; the others pass through it.

    The groups are resolved in `init`, which raises for a wrong statement, and
    in `update`, from shapes and only while tracing.

    Args:
        groups: scale groups in any form.
        update: maps (plan, updates, weights, state) to updates, which are cast
            back to their dtypes, and a state.
        kind: the class of the state. As in optax, transforms without state
            accept any.
        init: maps (plan, weights) to a state.
        needs_params: whether `update` reads weights. Otherwise it gets the
            updates in their place.
    """

    @allow_shapes
    def init_fn(params: Tree) -> Any:
        plan = make_plan(groups, params)
        return init(plan, plan.select(params))

    def update_fn(
        updates: Tree, state: Any, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, Any]:
        del extra_args
        if kind is not optax.EmptyState:
            check_state_type(state, kind)
        check_updates(updates, params, needs_params)
        updates = floats_as_arrays(
            updates, updates if params is None else params
        )
        given = params if needs_params else updates
        plan = make_plan(groups, given)
        w, u = plan.select(given), plan.select(updates, "updates")
        moved, state = update(plan, u, w, state)
        return plan.merge(updates, cast_like(moved, u)), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def stateless_transform(
    groups: Groups,
    function: Callable[[Plan, Leaves, Leaves], Leaves],
    *,
    needs_params: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Return a transform of groups: function(plan, updates, weights)."""

    def update(
        plan: Plan, u: Leaves, w: Leaves, state: Any
    ) -> tuple[Leaves, Any]:
        return function(plan, u, w), state

    return grouped_transform(groups, update, needs_params=needs_params)


def stateful_transform(
    groups: Groups,
    update: Callable[..., tuple[Tree, Any]],
    *,
    kind: type[tuple],
    init: Callable[[Plan, Tree], Any],
    needs_params: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Return a transform of every floating leaf that knows the groups.

    Args:
        groups: scale groups in any form.
        update: maps (plan, updates, state, params, **extra_args) to updates
            and a state.
        kind: the class of the state.
        init: maps (plan, params) to a state.
        needs_params: whether params are required. Otherwise the plan is that
            of the updates.
    """

    def init_fn(params: Tree) -> Any:
        return init(make_plan(groups, params), params)

    def update_fn(
        updates: Tree, state: Any, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, Any]:
        plan = make_plan(groups, updates if params is None else params)
        return update(plan, updates, state, params, **extra_args)

    return floating_transform(
        optax.GradientTransformationExtraArgs(init_fn, update_fn),
        groups,
        kind=kind,
        needs_params=needs_params,
    )


def floating_transform(
    inner: optax.GradientTransformation,
    groups: Groups = None,
    *,
    kind: type[tuple] | None = None,
    needs_params: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Show a transform the floating and complex leaves alone, as arrays.

    Other leaves are None to it. Updates of integers and booleans are zeros of
    their own dtype, whatever their gradients are: `jax.grad` with `allow_int`
    returns float0, which cannot be added. A leaf that is not a number, such as
    a typed PRNG key, has its gradient for its update: None, or the zero of
    float0. None stays None. Without params, the updates decide.

    Args:
        inner: a transform.
        groups: its scale groups, none of which may be of integers.
        kind: the class of its state, if that is one of ours.
        needs_params: whether params are required.

    Returns:
        The transform, which raises a ValueError for updates that are not like
        params, and for a state that is not its own.
    """
    inner = optax.with_extra_args_support(inner)

    @allow_shapes
    def init_fn(params: Tree) -> Any:
        make_plan(groups, params)
        return inner.init(show_floats(params, params))

    def update_fn(
        updates: Tree, state: Any, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, Any]:
        if kind is not None:
            check_state_type(state, kind)
        check_updates(updates, params, needs_params)
        given = updates if params is None else params
        shown = show_floats(given, given)
        try:
            steps, state = inner.update(
                show_floats(updates, given),
                state,
                None if params is None else shown,
                **extra_args,
            )
        except Exception as error:
            # The transforms of optax do not check the states that they get.
            other_params = "broadcast", "pytree structure"
            shapes = any(reason in str(error) for reason in other_params)
            check_structure(state, _state_of(inner, shown), shapes=shapes)
            raise
        return with_the_rest(steps, updates, given), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _state_of(inner: optax.GradientTransformation, params: Tree) -> Any:
    """Return the shapes of a transform's first state; None if unknown."""
    try:
        return jax.eval_shape(inner.init, params)
    except Exception:  # A foreign `init` may not be traceable.
        return None


def check_updates(
    updates: Tree,
    params: Tree | None,
    needs_params: bool = True,
    what: str = "updates",
) -> None:
    """Require one update of the same shape for each parameter.

    A placeholder, such as a mask or a gradient of None, fits anything.

    Args:
        updates: a tree like params.
        params: the weights; None if there are none.
        needs_params: whether to require params.
        what: the name of the updates, for an error.

    Raises:
        ValueError: params are missing; an update is missing, is one too many,
            or has another shape.
    """
    if params is None:
        if needs_params:
            raise ValueError(NO_PARAMS_MSG)
        return
    have, want = shapes_by_path(updates), shapes_by_path(params)
    placeholders = {path for x in (have, want) for path in x if x[path] is None}
    for path in want | have:
        differ = have.get(path) != want.get(path)
        if differ and longest_prefix(path, placeholders) is None:
            raise ValueError(
                f"{what} have {describe_shape(path, have)} at {path!r}, where"
                f" params have {describe_shape(path, want)}: pass {what} of"
                " the same structure and shapes as params."
            )


def with_init_check(
    tx: optax.GradientTransformation, check: Callable[[Tree], object]
) -> optax.GradientTransformationExtraArgs:
    """Return the transform, with an `init` that calls check(params) first."""

    def init_fn(params: Tree) -> Any:
        check(params)
        return tx.init(params)

    tx = optax.with_extra_args_support(tx)
    return optax.GradientTransformationExtraArgs(init_fn, tx.update)


def allow_shapes(init_fn: optax.TransformInitFn) -> optax.TransformInitFn:
    """Make `init` of `jax.ShapeDtypeStruct`s return the shapes of the state."""

    @functools.wraps(init_fn)
    def init(params: Tree) -> Any:
        leaves = jax.tree.leaves(params)
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
            return jax.eval_shape(init_fn, params)
        return init_fn(params)

    return init


def cast_like(leaves: Leaves, template: Leaves) -> Leaves:
    """Cast leaves to the dtypes of a template with the same paths."""
    return {path: x.astype(template[path].dtype) for path, x in leaves.items()}
