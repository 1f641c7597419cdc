"""What every transform of groups shares: the optax contract."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax.geometry import Leaves, Scalars, norm
from psi_optax.groups import Plan, make_plan
from psi_optax.groups.paths import Tree, entries
from psi_optax.groups.plan import covering

# optax says this in every transform that needs params, but keeps it private.
NO_PARAMS_MSG = (
    "You are using a transformation that requires the current value of "
    "parameters, but you are not passing `params` when calling `update`."
)

_State = TypeVar("_State")

Radius = str | None | jax.typing.ArrayLike


def require_params(updates: Any, params: Any) -> None:
    """Raises for params that are missing, or that updates are not like.

    Raises:
        ValueError: optax's for missing params; see `check_updates`.
    """
    if params is None:
        raise ValueError(NO_PARAMS_MSG)
    check_updates(updates, params)


def check_updates(updates: Tree, params: Tree | None) -> None:
    """Raises unless there is an update for each parameter, and no other.

    Holes are like anything: a mask, or a gradient that is None.

    Raises:
        ValueError: something is missing, too many, or of another shape.
    """
    if params is None:
        return
    have, want = _shapes(updates), _shapes(params)
    holes = {path for x in (have, want) for path in x if x[path] is None}
    for path in want | have:
        other = have.get(path) != want.get(path)
        if other and covering(path, holes) is None:
            raise ValueError(
                f"updates have {_there(path, have)} at {path!r}, where params"
                f" have {_there(path, want)}: pass updates of the same"
                " structure and shapes as params."
            )


def _shapes(tree: Tree) -> dict[str, Any]:
    """The shape at each path; None for a hole."""
    return {
        entry.path: None if entry.is_hole else np.shape(entry.leaf)
        for entry in entries(tree)
    }


def _there(path: str, shapes: dict[str, Any]) -> str:
    return f"shape {shapes[path]}" if path in shapes else "nothing"


def allow_shapes(init_fn: optax.TransformInitFn) -> optax.TransformInitFn:
    """Lets a state be made from shapes: the shapes of the state."""

    @functools.wraps(init_fn)
    def init(params):
        leaves = jax.tree.leaves(params)
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
            return jax.eval_shape(init_fn, params)
        return init_fn(params)

    return init


def like(leaves: Leaves, template: Leaves) -> Leaves:
    """Casts results to the dtypes of what came in."""
    return {path: x.astype(template[path].dtype) for path, x in leaves.items()}


def stateless(
    groups: Any, function: Callable[[Plan, Leaves, Leaves], Leaves]
) -> optax.GradientTransformationExtraArgs:
    """A transform without state, from function(plan, updates, params).

    The groups are resolved in `init`, where a wrong statement shows at once,
    and again in `update`, from shapes alone and only while tracing.
    """

    def init_fn(params):
        make_plan(groups, params)
        return optax.EmptyState()

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        require_params(updates, params)
        plan = make_plan(groups, params)
        u = plan.select(updates, "updates")
        moved = function(plan, u, plan.select(params))
        return plan.merge(updates, like(moved, u)), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def stateless_without_params(
    groups: Any, function: Callable[[Plan, Leaves], Leaves]
) -> optax.GradientTransformationExtraArgs:
    """The same, from function(plan, updates), whatever params are."""

    def init_fn(params):
        make_plan(groups, params)
        return optax.EmptyState()

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        check_updates(updates, params)
        plan = make_plan(groups, updates)
        u = plan.select(updates)
        return plan.merge(updates, like(function(plan, u), u)), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def check_radius(radius: Radius) -> None:
    """Raises for a radius that is no number, "init" or None."""
    if isinstance(radius, str) and radius != "init":
        raise ValueError(f'radius={radius!r}: choose "init", None or a number.')
    if radius is not None and not isinstance(radius, str):
        check_positive("radius", radius)


def check_positive(name: str, number: jax.typing.ArrayLike) -> None:
    """Raises unless this is, where it is known already, a positive number."""
    if isinstance(number, jax.core.Tracer):
        return
    if np.asarray(number).dtype == object:
        raise TypeError(f"{name}={number!r} is no number.")
    if not np.all(np.asarray(number) > 0):
        raise ValueError(f"{name}={number!r} is not positive.")


def radius_of(retraction: str | None, radius: Radius) -> Radius:
    """The radius, of which there is none without a retraction.

    Raises:
        ValueError: a number that nothing would bring weights to.
    """
    if retraction is not None:
        return radius
    if radius is None or isinstance(radius, str):
        return None
    raise ValueError(
        f"radius={radius!r} means nothing with retraction=None, which lets"
        " norms grow."
    )


def initial_radius(radius: Radius, plan: Plan, w: Leaves) -> Any:
    """What a transform stores: the radii now for "init", nothing otherwise."""
    if not isinstance(radius, str):
        return None
    # A leaf in place of an empty dictionary, so that a state made from optax's
    # placeholder for params, which hides them, is a prefix of the real one.
    return norm(plan, w) if plan.leaves else jnp.zeros([])


def sphere_radius(radius: Radius, stored: Any, plan: Plan) -> Scalars | None:
    """The radius of every group's sphere; None for the norm that it has.

    Raises:
        ValueError: the state was made for other groups.
    """
    if radius is None:
        return None
    if not isinstance(radius, str):
        return plan.full(radius)
    return stored_scalars("radii", stored, plan)


def stored_scalars(what: str, stored: Any, plan: Plan) -> Scalars:
    """One number a group from a state.

    Raises:
        ValueError: the state was made for other groups.
    """
    have = stored if isinstance(stored, dict) else {}
    shapes = {name: jnp.shape(x) for name, x in have.items()}
    if shapes != plan.group_shapes:
        raise ValueError(
            f"the state holds {what} of shapes {shapes}, but the groups have"
            f" {plan.group_shapes}: make the state anew with init(params)."
        )
    return have


def require_transformation(name: str, tx: Any) -> None:
    """Raises for what is no gradient transformation."""
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise TypeError(
            f"{name}={tx!r} is no gradient transformation; did you mean"
            " optax.sgd(0.1), or a direction such as optax.trace(0.9)?"
        )


def states_of(opt_state: optax.OptState, kind: type[_State]) -> list[_State]:
    """The states of one kind, anywhere in that of an optimizer."""
    found = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind))
    return [node for node in found if isinstance(node, kind)]


def refuse_lookahead(who: str, state: optax.OptState) -> None:
    """Raises for optax.lookahead inside, whose params are pairs of params."""
    if isinstance(state, optax.LookaheadState):
        raise ValueError(
            f"{who} cannot run optax.lookahead inside: its params are fast and"
            " slow weights together. Put stochastic_rounding(psi(...), key)"
            " inside of it; master_weights goes neither inside nor around."
        )


def require_decay(name: str, number: Any) -> None:
    """Raises for what is known to be no decay of a running mean or sum."""
    require_number(name, number)
    if isinstance(number, jax.core.Tracer):
        return
    # In single precision, which takes what is nearer to 1 than 3e-8 for it.
    if not 0 <= np.float32(number) < 1:
        raise ValueError(f"{name}={number!r} is not in [0, 1).")


def require_number(name: str, number: Any) -> None:
    """Raises for an optimizer or a schedule in a number's place."""
    if isinstance(number, (str, tuple)) or callable(number):
        raise TypeError(f"{name}={number!r} is no number.")


def require_rate(learning_rate: Any) -> None:
    """Raises for a learning rate that is no number and no schedule."""
    if learning_rate is None or isinstance(learning_rate, str):
        raise TypeError(
            f"learning_rate={learning_rate!r}: give a number or a schedule."
        )


def additive_rate(
    learning_rate: optax.ScalarOrSchedule | None, count: jax.typing.ArrayLike
) -> jax.typing.ArrayLike:
    """What a step is multiplied by before it is added: 1 for no rate."""
    if learning_rate is None:
        return 1
    rate = learning_rate(count) if callable(learning_rate) else learning_rate
    return -jnp.asarray(rate)
