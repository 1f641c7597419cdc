"""The two entrances of all transforms: what optax and JAX may hand over.

`on_groups` is for what changes grouped leaves alone and passes the others on,
`on_floats` for what moves every leaf that can be moved. Behind them params are
there, updates are like params, the state is the transform's own, and leaves are
arrays.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax.groups import Plan, make_plan
from psi_optax.groups.paths import leaves_with_paths, map_with_path
from psi_optax.groups.specs import longest_prefix
from psi_optax.groups.types import Leaves, Tree

# optax says this in every transform that needs params, but keeps it private.
NO_PARAMS_MSG = (
    "You are using a transformation that requires the current value of "
    "parameters, but you are not passing `params` when calling `update`."
)


def on_groups(
    groups: Any,
    update: Callable[[Plan, Leaves, Leaves, Any], tuple[Leaves, Any]],
    *,
    kind: type[tuple] = optax.EmptyState,
    init: Callable[[Plan, Leaves], Any] = lambda *_: optax.EmptyState(),
    needs_params: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Returns a transform of the grouped leaves; the others pass through it.

    The groups are resolved in `init`, where a wrong statement shows at once,
    and again in `update`, from shapes alone and only while tracing.

    Args:
        groups: scale groups in any form.
        update: from (plan, updates, weights, state) to updates, which are cast
            back to the dtypes that they had, and a state.
        kind: the class of the state. Transforms without state accept any, as
            those of optax do.
        init: from (plan, weights) to a state.
        needs_params: whether `update` looks at weights. Otherwise it is given
            the updates in their place.
    """

    @allow_shapes
    def init_fn(params):
        plan = make_plan(groups, params)
        return init(plan, plan.select(params))

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        if kind is not optax.EmptyState:
            check_state_type(state, kind)
        check_updates(updates, params, needs_params)
        updates = _as_arrays(updates, updates if params is None else params)
        given = params if needs_params else updates
        plan = make_plan(groups, given)
        w, u = plan.select(given), plan.select(updates, "updates")
        moved, state = update(plan, u, w, state)
        return plan.merge(updates, cast_like(moved, u)), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def stateless(
    groups: Any,
    function: Callable[[Plan, Leaves, Leaves], Leaves],
    *,
    needs_params: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Returns a transform of groups: function(plan, updates, weights)."""

    def update(plan: Plan, u: Leaves, w: Leaves, state: Any):
        return function(plan, u, w), state

    return on_groups(groups, update, needs_params=needs_params)


def on_floats(
    inner: optax.GradientTransformation,
    groups: Any = None,
    *,
    kind: type[tuple] | None = None,
    needs_params: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Shows a transform the floating and complex leaves, as arrays.

    The others it does not see, as if they were None. Updates of integers and
    booleans are zeros of their own dtype, whatever their gradients are:
    `jax.grad` with `allow_int` gives float0, which nothing can be added to.
    What is no number, such as a typed PRNG key, has its gradient for its
    update: None, or the zero of float0. None stays None. Without params, the
    updates decide.

    Args:
        inner: a transform.
        groups: its scale groups, of which none may be of integers.
        kind: the class of its state, where that is one of ours.
        needs_params: whether params must be there.

    Returns:
        The transform, which raises a ValueError for updates that are not like
        params, and for a state that is not its own.
    """
    inner = optax.with_extra_args_support(inner)

    @allow_shapes
    def init_fn(params):
        make_plan(groups, params)
        return inner.init(_as_arrays(params, params, hide=True))

    def update_fn(updates, state, params=None, **extra_args):
        if kind is not None:
            check_state_type(state, kind)
        check_updates(updates, params, needs_params)
        given = updates if params is None else params
        shown = _as_arrays(given, given, hide=True)
        try:
            steps, state = inner.update(
                _as_arrays(updates, given, hide=True),
                state,
                None if params is None else shown,
                **extra_args,
            )
        except Exception as error:
            # Optax's own do not look at the states that they get.
            shapes = "broadcast" in str(error)
            _check_state(state, _state_of(inner, shown), shapes=shapes)
            raise
        return _with_the_rest(steps, updates, given), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _as_arrays(tree: Tree, given: Tree, *, hide: bool = False) -> Tree:
    """The tree with arrays where `given` has floating or complex leaves.

    The others stay, or are hidden as None.
    """
    found = {
        e.path: e.leaf for e in leaves_with_paths(given) if not e.is_placeholder
    }

    def leaf(path, x):
        w = found.get(path, x)
        if _is_inexact(w):
            return _as_array(x, w)
        return None if hide else x

    return map_with_path(leaf, tree)


def _is_inexact(leaf: Any) -> bool:
    """Tells floating and complex numbers from all else."""
    if isinstance(leaf, (float, complex)):
        return True
    return jnp.issubdtype(getattr(leaf, "dtype", object), jnp.inexact)


def _as_array(x: Any, w: Any) -> jax.Array:
    """An array of x; a Python number takes the dtype of its parameter."""
    if isinstance(x, jax.Array):
        return x
    return jnp.asarray(x, jnp.result_type(x if hasattr(x, "dtype") else w))


def _with_the_rest(steps: Tree, updates: Tree, given: Tree) -> Tree:
    """The steps, with updates for what was not shown; holes stay."""
    hidden = {
        entry.path: entry.leaf
        for entry in leaves_with_paths(given)
        if not entry.is_placeholder and not _is_inexact(entry.leaf)
    }
    if not hidden:
        return steps
    moved = {entry.path: entry.leaf for entry in leaves_with_paths(steps)}

    def leaf(path, u):
        return _no_step(u, hidden[path]) if path in hidden else moved[path]

    return map_with_path(leaf, updates)


def _no_step(u: Any, leaf: Any) -> Any:
    """Zero for an integer or a boolean; what is no number keeps its update."""
    dtype = getattr(leaf, "dtype", object)
    kinds = (jnp.integer, jnp.bool_)
    if isinstance(leaf, int) or any(jnp.issubdtype(dtype, k) for k in kinds):
        return jnp.zeros_like(leaf)
    return u


def check_updates(
    updates: Tree, params: Tree | None, needs_params: bool = True
) -> None:
    """Raises unless there is an update for each parameter, and no other.

    Holes are like anything: a mask, or a gradient that is None.

    Raises:
        ValueError: params are missing; an update is missing, is one too many,
            or has another shape.
    """
    if params is None:
        if needs_params:
            raise ValueError(NO_PARAMS_MSG)
        return
    have, want = _shapes(updates), _shapes(params)
    holes = {path for x in (have, want) for path in x if x[path] is None}
    for path in want | have:
        other = have.get(path) != want.get(path)
        if other and longest_prefix(path, holes) is None:
            raise ValueError(
                f"updates have {_there(path, have)} at {path!r}, where params"
                f" have {_there(path, want)}: pass updates of the same"
                " structure and shapes as params."
            )


def _shapes(tree: Tree) -> dict[str, Any]:
    """The shape at each path; None for a hole."""
    return {
        entry.path: None if entry.is_placeholder else np.shape(entry.leaf)
        for entry in leaves_with_paths(tree)
    }


def _there(path: str, shapes: dict[str, Any]) -> str:
    return f"shape {shapes[path]}" if path in shapes else "nothing"


def check_state_type(
    state: Any, kind: type[tuple], where: str = "state"
) -> None:
    """Raises for a state of another class.

    Raises:
        ValueError: the state is that of another optimizer, or of none.
    """
    if type(state) is not kind:
        raise ValueError(
            f"{where} is of type {type(state).__name__}, where this optimizer"
            f" keeps one of type {kind.__name__}: pass the state that its own"
            " init or update returned, between updates and params. After a"
            " change of optimizers begin with init(params); restore a"
            " checkpoint into the structure of init(params)."
        )


def _state_of(inner: optax.GradientTransformation, params: Tree) -> Any:
    """The state that a transform begins with; None if that is not known."""
    try:
        return jax.eval_shape(inner.init, params)
    except Exception:  # Its `init` is somebody else's, and may not be traced.
        return None


def _check_state(
    state: Any, expected: Any, where: str = "state", *, shapes: bool
) -> None:
    """Raises for a state that differs from the expected one in a class.

    Chains and partitions are followed down to the trees that are like params,
    of which the shapes are compared as well, if asked for.
    """
    if isinstance(expected, dict) and isinstance(state, dict):
        for key in expected.keys() & state.keys():
            _check_state(
                state[key], expected[key], f"{where}[{key!r}]", shapes=shapes
            )
    if not isinstance(expected, tuple):
        if shapes:
            _check_shapes(state, expected, where)
        return
    check_state_type(state, type(expected), where)
    if len(state) != len(expected):
        raise ValueError(
            f"{where} is a chain of {len(state)}, where this optimizer is one"
            f" of {len(expected)}: begin with init(params)."
        )
    names = getattr(expected, "_fields", range(len(expected)))
    for name, have, want in zip(names, state, expected, strict=True):
        _check_state(have, want, f"{where}[{name!r}]", shapes=shapes)


def _check_shapes(state: Any, expected: Any, where: str) -> None:
    """Raises for a tree in a state whose arrays have other shapes.

    Raises:
        ValueError: the state is that of other params.
    """
    have, want = _shapes(state), _shapes(expected)
    for path in want | have:
        if have.get(path) != want.get(path):
            raise ValueError(
                f"{where} has {_there(path, have)}{path and f' at {path!r}'},"
                f" where init(params) has {_there(path, want)}: it is the state"
                " of other params. Begin with init(params)."
            )


def allow_shapes(init_fn: optax.TransformInitFn) -> optax.TransformInitFn:
    """Lets a state be made from shapes: the shapes of the state."""

    @functools.wraps(init_fn)
    def init(params):
        leaves = jax.tree.leaves(params)
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
            return jax.eval_shape(init_fn, params)
        return init_fn(params)

    return init


def cast_like(leaves: Leaves, template: Leaves) -> Leaves:
    """Casts results to the dtypes of what came in."""
    return {path: x.astype(template[path].dtype) for path, x in leaves.items()}
