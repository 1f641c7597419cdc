"""Values of all groups of a tree as one row of numbers, and back."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psi_optax._text import summarize
from psi_optax._validation import check_nonnegative
from psi_optax.groups import GroupedLeaf, Groups, Plan, Tree, make_plan
from psi_optax.groups.paths import leaves_with_paths


class GroupTable(NamedTuple):
    """The groups of a tree; a row has one number for each, in double precision.

    Attributes:
        plan: of the groups, whose names are in the order of the row.
        params: arrays, or shapes.
    """

    plan: Plan
    params: Tree

    @property
    def number(self) -> int:
        """Number of groups."""
        shapes = self.plan.group_shapes.values()
        return sum(math.prod(shape) for shape in shapes)

    def row(self, scalars: dict[str, np.ndarray]) -> np.ndarray:
        """Return scalars of groups as a row; each broadcasts to its shape."""
        return np.concatenate(
            [
                np.broadcast_to(scalars[name], shape).ravel().astype(float)
                for name, shape in self.plan.group_shapes.items()
            ]
        )

    def tree(self, row: np.ndarray) -> Tree:
        """Return a row as a tree like params, None at ordinary leaves."""
        shapes = self.plan.group_shapes
        counts = [math.prod(shape) for shape in shapes.values()]
        parts = np.split(row, np.cumsum(counts)[:-1])
        return self.plan.unflatten(
            {
                name: jnp.asarray(part.reshape(shapes[name]), dtype)
                for (name, dtype), part in zip(
                    self.plan.dtypes.items(), parts, strict=True
                )
            },
            self.params,
        )

    def names(self) -> np.ndarray:
        """Return the name of each group: the path of its first leaf."""
        return np.concatenate(
            [
                np.full(math.prod(shape), name, object)
                for name, shape in self.plan.group_shapes.items()
            ]
        )

    def sizes(self) -> np.ndarray:
        """Return the number of weights in each group."""
        sizes = self.plan.sizes.items()
        return self.row({name: np.asarray(size) for name, size in sizes})

    def norms(self) -> np.ndarray:
        """Return the norm of each group.

        Squares are in double precision, where those of finite weights of
        single precision neither overflow nor underflow.

        Raises:
            TypeError: grouped params are shapes.
            ValueError: a norm is not finite.
        """
        found = dict(leaves_with_paths(self.params))
        squares: dict[str, np.ndarray] = {}
        for leaf in self.plan.leaves:
            _check_array(leaf, found[leaf.path])
            part = _sum_of_squares(leaf, np.asarray(found[leaf.path], float))
            squares[leaf.name] = squares.get(leaf.name, 0.0) + part
        norms = {name: np.sqrt(square) for name, square in squares.items()}
        _check_finite(norms)
        return self.row(norms)

    def read(self, argument: str, value: ArrayLike | Tree) -> np.ndarray:
        """Return an argument that has a nonnegative number for each group.

        Args:
            argument: its name.
            value: a number, or a mapping from the names of groups or a tree
                like params, with a number or an array of the group shape.

        Raises:
            TypeError: a value is not a number.
            ValueError: a value is missing, negative or of another shape.
        """
        found = {entry.path: entry.leaf for entry in leaves_with_paths(value)}
        if list(found) == [""] and np.shape(found[""]) == ():
            found = dict.fromkeys(self.plan.group_shapes, found[""])
        scalars = {}
        for name, shape in self.plan.group_shapes.items():
            scalars[name] = _group_value(argument, name, found, shape)
        return self.row(scalars)


def make_table(groups: Groups, params: Tree) -> GroupTable:
    """Return the table of all groups of params.

    Raises:
        TypeError: params are traced.
        ValueError: groups do not fit params, or are none.
    """
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(params)):
        raise TypeError(
            "params are traced, and their values are needed: convert the"
            " learning rate outside of jax.jit and jax.vmap."
        )
    plan = make_plan(groups, params)
    if not plan.leaves:
        raise ValueError(
            "no parameter has a scale group, so that no rate is converted: pass"
            " the groups of these params. Ordinary parameters keep their rate."
        )
    return GroupTable(plan, params)


def require_rotating(table: GroupTable, rotates: np.ndarray) -> None:
    """Require a group that can rotate.

    Raises:
        ValueError: there is none.
    """
    if not rotates.any():
        names = summarize([*table.plan.group_shapes], 3)
        raise ValueError(
            f"no group of {names} can rotate: each has norm zero, a single"
            " weight or a gradient of zero. Initialize the params, or give"
            " groups of several weights."
        )


def _sum_of_squares(leaf: GroupedLeaf, w: np.ndarray) -> np.ndarray:
    """Return the sums over groups of one leaf, an array of the group shape."""
    blocks = dict(leaf.group.blocks)
    shape: list[int] = []
    summed: list[int] = []
    for axis, length in enumerate(w.shape):
        if axis in blocks:
            shape.append(blocks[axis])
            length //= blocks[axis]
        if axis in leaf.group.axes:
            summed.append(len(shape))
        shape.append(length)
    return np.sum(np.square(w.reshape(shape)), axis=tuple(summed))


def _check_array(leaf: GroupedLeaf, x: Any) -> None:
    """Require values, not shapes alone."""
    if isinstance(x, jax.ShapeDtypeStruct):
        raise TypeError(
            f"params have a shape without values at {leaf}: pass arrays, since"
            " norms set the rate, or a weight_decay, which sets the norms."
        )


def _check_finite(norms: dict[str, np.ndarray]) -> None:
    """Require finite norms."""
    for name, norm in norms.items():
        if not np.all(np.isfinite(norm)):
            raise ValueError(
                f"params have a group of non-finite norm at {name!r}: pass"
                " params from before they diverged."
            )


def _group_value(
    argument: str, name: str, found: dict, shape: tuple[int, ...]
) -> np.ndarray:
    """Return the value of the groups of one name, after checking it."""
    where = f"{argument} at {name!r}"
    value = found.get(name)
    if value is None:
        raise ValueError(
            f"{where} is missing: pass a number, or a tree like params with a"
            " value for each parameter that has groups."
        )
    check_nonnegative(where, value, arrays=True)
    if np.shape(value) not in ((), shape):
        raise ValueError(
            f"{where} has shape {np.shape(value)}: pass a number, or an array"
            f" of the group shape {shape}."
        )
    return np.asarray(value)
