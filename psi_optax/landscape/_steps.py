"""A loss as a function of steps, with compiled derivatives.

Groups are handled in `space.py`, models and compilation here.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from psi_optax.groups import Groups, Plan, Tree, make_plan
from psi_optax.groups.frameworks import (
    as_function,
    choose,
    interleave,
    is_array,
    take_apart,
)
from psi_optax.landscape.space import (
    TangentSpace,
    read_units,
    space_of_plan,
    zero_step,
)


class StepLoss(NamedTuple):
    """A loss as a function of steps; each function takes (u, *batch).

    Attributes:
        space: the space of the steps.
        zero: the step that leads to params.
        value: returns the loss.
        gradient: returns the loss and its gradient.
        product: returns the Hessian at zero times u.
    """

    space: TangentSpace
    zero: Tree
    value: Callable[..., jax.Array]
    gradient: Callable[..., tuple[jax.Array, Tree]]
    product: Callable[..., Tree]


@dataclasses.dataclass(frozen=True)
class WeightLoss:
    """A loss as a function of weights and of the other arrays that it reads.

    Two of them are equal if they make the same program.

    Attributes:
        loss_fn: the loss.
        join: returns its arguments, see `groups.frameworks.Inputs`.
        structure: the tree structure of the rest of the model and of the other
            arguments.
        are_arrays: whether each of their leaves is an array.
        others: their other leaves.
    """

    loss_fn: Callable[..., Any]
    join: Callable[..., tuple[Any, ...]]
    structure: jax.tree_util.PyTreeDef
    are_arrays: tuple[bool, ...]
    others: tuple[Any, ...]

    def __hash__(self) -> int:
        return hash((self.structure, self.are_arrays))

    def __call__(
        self, params: Tree, arrays: list[jax.Array], batch: tuple[Any, ...]
    ) -> jax.Array:
        """Return the loss.

        Raises:
            ValueError: the loss is no floating scalar.
        """
        leaves = interleave(self.are_arrays, arrays, self.others)
        state, args = jax.tree.unflatten(self.structure, leaves)
        found = self.loss_fn(*self.join(params, state, args), *batch)
        dtype = getattr(found, "dtype", object)
        if not jnp.issubdtype(dtype, jnp.floating) or jnp.shape(found):
            raise ValueError(_describe_no_loss(found))
        return found


def _describe_no_loss(found: Any) -> str:
    have = (
        f"{found.dtype} of shape {found.shape}"
        if is_array(found)
        else f"a {type(found).__name__}"
    )
    return (
        f"loss_fn returns {have}: return the loss alone, a floating scalar"
        " (the mean over examples; without auxiliary outputs)."
    )


def separate(
    loss_fn: Callable[..., Any], params: Any, args: tuple[Any, ...]
) -> tuple[WeightLoss, Tree, list[jax.Array]]:
    """Return the loss of weights, the weights and the other arrays."""
    inputs = take_apart(params, args)
    leaves, structure = jax.tree.flatten((inputs.state, inputs.args))
    are_arrays = tuple(map(is_array, leaves))
    others = tuple(choose(leaves, [not x for x in are_arrays]))
    loss = WeightLoss(
        as_function(loss_fn), inputs.join, structure, are_arrays, others
    )
    return loss, inputs.params, choose(leaves, are_arrays)


def loss_of_steps(
    loss_fn: Callable[..., Any],
    params: Any,
    args: tuple[Any, ...],
    groups: Groups,
    units: Tree | None,
) -> StepLoss:
    """Return the loss of steps from params.

    Raises:
        TypeError: a parameter is complex.
        ValueError: groups or units do not fit params.
    """
    loss, weights, arrays = separate(loss_fn, params, args)
    plan = make_plan(groups, weights)
    units = read_units(units, weights)

    def bind(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled = _compiled(function, loss, plan)
        return lambda u, *batch: compiled(weights, arrays, units, u, batch)

    return StepLoss(
        space_of_plan(plan, weights, units),
        zero_step(weights),
        bind(_value),
        bind(_value_and_gradient),
        bind(_product),
    )


def _compiled(
    function: Callable[..., Any], loss: WeightLoss, plan: Plan
) -> Callable[..., Any]:
    """Compile a function of one loss.

    If the loss is compiled by `jax.jit`, the program is kept for later calls.
    Any other loss may read variables that change between calls.
    """
    if hasattr(loss.loss_fn, "lower"):
        return functools.partial(_kept(function), loss, plan)
    return jax.jit(functools.partial(function, loss, plan))


@functools.cache
def _kept(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function, static_argnums=(0, 1))


def _value(
    loss: WeightLoss,
    plan: Plan,
    params: Tree,
    arrays: list[jax.Array],
    units: Tree | None,
    u: Tree,
    batch: tuple[Any, ...],
) -> jax.Array:
    space = space_of_plan(plan, params, units)
    return loss(space.at(u), arrays, batch)


_value_and_gradient = jax.value_and_grad(_value, argnums=5)


def _product(
    loss: WeightLoss,
    plan: Plan,
    params: Tree,
    arrays: list[jax.Array],
    units: Tree | None,
    u: Tree,
    batch: tuple[Any, ...],
) -> Tree:
    """Return the derivative of the gradient at zero along u."""
    space = space_of_plan(plan, params, units)
    gradient = jax.grad(lambda u: loss(space.at(u), arrays, batch))
    # Products of lower precision hide all but the largest eigenvalues.
    with jax.default_matmul_precision("highest"):
        zero = jax.tree.map(jnp.zeros_like, u)
        return jax.jvp(gradient, (zero,), (u,))[1]
