"""Take the model of a framework apart: weights, other state, arguments.

An object of a framework exists only where its module is imported, so the module
is looked up among those that are.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.groups.types import Tree
from psi_optax.groups.unsuitable_models import check_model

Args = tuple[Any, ...]


class Inputs(NamedTuple):
    """The inputs of a loss, apart.

    Attributes:
        params: the weights, as an optimizer gets them.
        state: the rest of the model, and NNX objects among the arguments.
        args: the other arguments.
        join: returns the arguments of the loss, given these three.
        data: names of collections of floating-point arrays beside params.
    """

    params: Tree
    state: Tree
    args: Tree
    join: Callable[[Tree, Tree, Tree], Args]
    data: tuple[str, ...] = ()


def is_array(x: Any) -> bool:
    """Check that an object is an array, or the shape of one."""
    return isinstance(
        x, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct
    )


def choose(items: Iterable[Any], chosen: Sequence[bool]) -> list[Any]:
    """Return the chosen items."""
    return [x for x, one in zip(items, chosen, strict=True) if one]


def interleave(
    chosen: Sequence[bool], items: Iterable[Any], others: Iterable[Any]
) -> list[Any]:
    """Return all items in order, the chosen and the others."""
    one, other = iter(items), iter(others)
    return [next(one) if x else next(other) for x in chosen]


def as_function(loss_fn: Any) -> Any:
    """Return a loss as a function; of a Flax Linen module, its output.

    The module writes to all collections of its variables but the weights.
    """
    linen = sys.modules.get("flax.linen")
    if linen is None or not isinstance(loss_fn, linen.Module):
        return loss_fn

    def output(variables: Mapping[str, Any], *args: Any) -> Any:
        mutable = [name for name in variables if name != "params"]
        return loss_fn.apply(variables, *args, mutable=mutable)[0]

    return output


def take_apart(model: Any, args: Args) -> Inputs:
    """Return the inputs of a loss, apart.

    Args:
        model: a model, its variables, or weights.
        args: the other arguments of the loss.

    Raises:
        TypeError: the model is an object of a framework that holds no weights.
    """
    check_model(model)
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and _holds(nnx.Pytree, (model, args)):
        return _with_nnx(nnx, model, args)
    return _without_nnx(model, args)


def weights_of(model: Any) -> Tree:
    """Return the weights of a model, of its variables, or a tree as it is.

    Only a mapping with "batch_stats" is taken for variables: another one may be
    a tree of weights with a branch "params".

    Raises:
        TypeError: see `take_apart`.
    """
    if isinstance(model, Mapping) and "batch_stats" not in model:
        return model
    return take_apart(model, ()).params


def _without_nnx(model: Any, args: Args) -> Inputs:
    equinox = sys.modules.get("equinox")
    if equinox is not None and _holds(equinox.Module, model):
        return _of_equinox(model, args)
    if _is_variables(model):
        return _of_variables(model, args)
    return Inputs(model, (), args, _join_weights)


def _join_weights(params: Tree, state: Tree, args: Args) -> Args:
    """Return the arguments of a loss of weights.

    One function, so that two losses of weights can be compared.
    """
    del state
    return (params, *args)


def _holds(kind: type, tree: Any) -> bool:
    """Check that a tree has a node of a type."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, kind))
    return any(isinstance(x, kind) for x in leaves)


def _by_leaves(
    model: Any, params: Tree, chosen: Sequence[bool], args: Args
) -> Inputs:
    """Return the inputs of a loss whose weights are some leaves of a model."""
    leaves, structure = jax.tree.flatten(model)
    state = choose(leaves, [not x for x in chosen])

    def join(params: Tree, state: Tree, args: Args) -> Args:
        filled = interleave(chosen, jax.tree.leaves(params), state)
        return (jax.tree.unflatten(structure, filled), *args)

    return Inputs(params, state, args, join)


def _of_equinox(model: Any, args: Args) -> Inputs:
    """Take the leaves that `eqx.is_inexact_array` picks, or their shapes."""
    leaves, structure = jax.tree.flatten(model)
    chosen = list(map(_is_inexact, leaves))
    kept = [x if one else None for x, one in zip(leaves, chosen, strict=True)]
    return _by_leaves(model, jax.tree.unflatten(structure, kept), chosen, args)


def _is_inexact(x: Any) -> bool:
    return is_array(x) and jnp.issubdtype(x.dtype, np.inexact)


def _is_variables(model: Any) -> bool:
    """Check that a tree has collections of variables beside its params."""
    if not isinstance(model, Mapping) or "params" not in model:
        return False
    return len(model) > 1 and all(
        isinstance(x, Mapping) for x in model.values()
    )


def _of_variables(variables: Mapping[str, Any], args: Args) -> Inputs:
    """Take the weights out of the variables of a Flax Linen module."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(variables)
    first = jax.tree_util.DictKey("params")
    chosen = [path[0] == first for path, _ in pairs]
    data = [
        name
        for name, collection in variables.items()
        if name != "params"
        and any(map(_is_inexact, jax.tree.leaves(collection)))
    ]
    inputs = _by_leaves(variables, variables["params"], chosen, args)
    return inputs._replace(data=tuple(data))


def _with_nnx(nnx: Any, model: Any, args: Args) -> Inputs:
    """Split NNX objects, jointly: they may share variables."""
    leaves, structure = jax.tree.flatten(
        args, is_leaf=lambda x: isinstance(x, nnx.Pytree)
    )
    chosen = [isinstance(x, nnx.Pytree) for x in leaves]
    others = choose(leaves, [not x for x in chosen])
    is_model = _holds(nnx.Pytree, model)
    graph, params, state = nnx.split(
        (model if is_model else None, choose(leaves, chosen)),
        nnx.All(nnx.Param, lambda path, _: path[0] == 0),
        ...,
    )
    inner = _without_nnx(model, ())
    if is_model:
        params = params.get(0, params)  # Empty without any nnx.Param.
        inner = Inputs(params, (), (), lambda params, *_: (params,))

    def join(params: Tree, state: Tree, others: Tree) -> Args:
        held = nnx.State({0: params} if is_model else {})
        own, objects = nnx.merge(graph, held, state[0], copy=True)
        first = (own,) if is_model else inner.join(params, state[1], ())
        filled = interleave(chosen, objects, others)
        return (*first, *jax.tree.unflatten(structure, filled))

    both = (state, inner.state)
    return Inputs(inner.params, both, others, join, inner.data)
