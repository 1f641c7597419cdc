"""Groups resolved against one tree of parameters, and sums over them."""

import dataclasses
import functools
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.groups.paths import (
    PathLeaf,
    check_no_refs,
    leaves_with_paths,
    map_with_path,
)
from psi_optax.groups.reductions import (
    accumulation_dtype,
    broadcast_groups,
    first_in_groups,
    sum_groups,
    sum_over_mesh,
    to_accumulator,
    total_mesh_size,
)
from psi_optax.groups.scale_group import ScaleGroup
from psi_optax.groups.specs import covering_specs, read_specs
from psi_optax.groups.types import Groups, Leaves, Scalars, Tree

_DTYPES = [
    jnp.dtype(name) for name in ("float16", "bfloat16", "float32", "float64")
]


@dataclasses.dataclass(frozen=True)
class GroupedLeaf:
    """One grouped parameter.

    Attributes:
        path: where it is in the tree.
        shape: of the parameter.
        dtype: of the parameter.
        group: its statement, resolved for the shape.
        name: key of the leaf's groups, shared by tied leaves.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    group: ScaleGroup
    name: str

    def __str__(self) -> str:
        return f"{self.path!r} of shape {self.shape} with {self.group}"

    @property
    def group_shape(self) -> tuple[int, ...]:
        """The shape of a scalar per group."""
        return self.group.group_shape(self.shape)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The grouped leaves of one tree, and the reduction over their groups.

    Scalars of groups are dictionaries from group name to an array of the group
    shape. The name of a group is the path of its leaf, or the alphabetically
    first path of its tied leaves. A plan is hashable. Trees that differ only
    in their containers have equal plans.

    Attributes:
        leaves: in the order of the tree.
    """

    leaves: tuple[GroupedLeaf, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the grouped leaves."""
        return tuple(leaf.path for leaf in self.leaves)

    def parts(self) -> dict[str, "Plan"]:
        """Return a plan for each name: one leaf, or the leaves of a tie."""
        return self._parts

    @functools.cached_property
    def _parts(self) -> dict[str, "Plan"]:
        leaves: dict[str, tuple[GroupedLeaf, ...]] = defaultdict(tuple)
        for leaf in self.leaves:
            leaves[leaf.name] += (leaf,)
        return {name: Plan(tied) for name, tied in leaves.items()}

    def anonymous(self) -> "Plan":
        """Return the plan with numbers for paths, so that equal leaves agree.

        Functions that are compiled for a part of a plan then share their trace.
        """
        number = {path: str(i) for i, path in enumerate(self.paths)}
        return Plan(
            tuple(
                dataclasses.replace(
                    leaf,
                    path=number[leaf.path],
                    name=number[leaf.name],
                    group=dataclasses.replace(leaf.group, tie=None),
                )
                for leaf in self.leaves
            )
        )

    def select(self, tree: Tree, what: str = "params") -> Leaves:
        """Return the grouped leaves of a tree like params, by path.

        Raises:
            ValueError: a leaf is missing or has another shape.
        """
        found = dict(leaves_with_paths(tree))
        selected: Leaves = {}
        for leaf in self.leaves:
            x = found.get(leaf.path)
            shape = None if x is None else np.shape(x)
            if shape != leaf.shape:
                have = "nothing there" if x is None else f"shape {shape}"
                raise ValueError(
                    f"params have {leaf}, but {what} have {have}: pass"
                    f" {what} of the same structure and shapes as params."
                )
            selected[leaf.path] = jnp.asarray(x)
        return selected

    def select_steps(self, tree: Tree, what: str = "updates") -> Leaves:
        """Return the grouped leaves, multiplied by zero for singletons.

        A group of one element has no tangent space: it can be rescaled, never
        rotated. Its non-finite steps stay non-finite.

        Raises:
            ValueError: a leaf is missing or has another shape.
        """
        steps = self.select(tree, what)
        for leaf in self.leaves:
            if leaf.name in self.singletons:
                steps[leaf.path] = 0 * steps[leaf.path]
        return steps

    def merge(self, tree: Tree, leaves: Leaves) -> Tree:
        """Return the tree with its grouped leaves replaced."""
        return map_with_path(lambda path, x: leaves.get(path, x), tree)

    def unflatten(self, scalars: Scalars, tree: Tree) -> Tree:
        """Return scalars as a tree like `tree`, None at ordinary leaves."""
        names = {leaf.path: leaf.name for leaf in self.leaves}
        return map_with_path(
            lambda path, _: scalars[names[path]] if path in names else None,
            tree,
        )

    def dot(self, a: Leaves, b: Leaves) -> Scalars:
        """Return one inner product per group."""
        return self.sum(
            {
                path: to_accumulator(a[path]) * to_accumulator(b[path])
                for path in self.paths
            }
        )

    def sum(self, x: Leaves) -> Scalars:
        """Return one sum per group of arrays like the leaves.

        Each leaf accumulates in its own accumulation dtype, and is summed over
        its mesh axes. Ties are summed in the widest of these dtypes.
        """
        total: Scalars = {}
        for leaf in self.leaves:
            part = sum_groups(
                to_accumulator(x[leaf.path]),
                leaf.group.axes,
                leaf.group.blocks,
            )
            part = self.sum_over_mesh(part, leaf)
            before = total.get(leaf.name)
            total[leaf.name] = part if before is None else before + part
        return total

    def sum_over_mesh(self, part: jax.Array, leaf: GroupedLeaf) -> jax.Array:
        """Add the shards of a sum over one leaf, in the dtype of its groups.

        Raises:
            ValueError: `axis_name` names an axis that does not exist here.
        """
        total = sum_over_mesh(part, leaf.group.axis_name, str(leaf))
        return total.astype(self.dtypes[leaf.name])

    def first_weights(self, w: Leaves) -> Scalars:
        """Return one weight of every group, of the first leaf of a tie."""
        return {
            name: to_accumulator(
                first_in_groups(
                    w[leaf.path], leaf.group.axes, leaf.group.blocks
                )
            ).astype(self.dtypes[name])
            for name, leaf in self._first_leaves.items()
        }

    def broadcast(self, s: Scalars) -> Leaves:
        """Return scalars of groups as arrays that broadcast against leaves."""
        return {
            leaf.path: broadcast_groups(
                s[leaf.name].astype(accumulation_dtype(leaf.dtype)),
                leaf.shape,
                leaf.group.axes,
                leaf.group.blocks,
            )
            for leaf in self.leaves
        }

    def full(self, value: jax.typing.ArrayLike) -> Scalars:
        """Return the same number for every group."""
        return {
            name: jnp.full(shape, value, self.dtypes[name])
            for name, shape in self.group_shapes.items()
        }

    @functools.cached_property
    def _first_leaves(self) -> dict[str, GroupedLeaf]:
        return {leaf.name: leaf for leaf in reversed(self.leaves)}

    @functools.cached_property
    def dtypes(self) -> dict[str, jnp.dtype]:
        """The dtype of each group's scalars."""
        dtypes: dict[str, jnp.dtype] = {}
        for leaf in self.leaves:
            wide = accumulation_dtype(leaf.dtype)
            dtypes[leaf.name] = max(
                dtypes.get(leaf.name, wide), wide, key=lambda d: d.itemsize
            )
        return dtypes

    @property
    def group_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each group's scalars."""
        return {leaf.name: leaf.group_shape for leaf in self.leaves}

    @functools.cached_property
    def sizes(self) -> dict[str, int]:
        """The number of weights in one group of each name, on all devices."""
        sizes: dict[str, int] = defaultdict(int)
        for leaf in self.leaves:
            here = leaf.group.group_size(leaf.shape)
            shards = total_mesh_size(leaf.group.axis_name, str(leaf))
            sizes[leaf.name] += here * shards
        return dict(sizes)

    @functools.cached_property
    def singletons(self) -> frozenset[str]:
        """The names whose groups have one element, hence no direction."""
        return frozenset(name for name, n in self.sizes.items() if n == 1)


def make_plan(groups: Groups, params: Tree) -> Plan:
    """Resolve groups against the shapes and dtypes of params.

    Args:
        groups: a tree like params, or a prefix of it, with a `ScaleGroup` or
            None at each leaf; a mapping from normalized paths to the same; a
            rule, an object with a method `groups_for(params)` that returns any
            of these; a function that does; or None: all is ordinary.
        params: arrays or `jax.ShapeDtypeStruct`s.

    Returns:
        The plan.

    Raises:
        ValueError: a parameter without a statement, a `ScaleGroup` without a
            parameter, one that does not fit its parameter, a tie of different
            group shapes or one that a mask cuts in two.
        TypeError: a leaf of groups that is neither a `ScaleGroup` nor None; a
            grouped parameter that is not real and floating; a `jax.Ref` among
            params.
    """
    check_no_refs(params)
    leaves = leaves_with_paths(params)
    # A mask, or optax's placeholder for params, hides everything.
    if groups is None or all(x.is_placeholder for x in leaves):
        return Plan(())
    specs = covering_specs(read_specs(groups, params), leaves)
    grouped = []
    for x in leaves:
        group = specs[x.path]
        if group is not None and not x.is_placeholder:
            grouped.append(_grouped_leaf(x, group))
    return Plan(_name_ties(grouped))


def _grouped_leaf(entry: PathLeaf, group: ScaleGroup) -> GroupedLeaf:
    shape = np.shape(entry.leaf)
    dtype = _dtype_of(entry.leaf)
    where = f"{entry.path!r} of shape {shape} with {group}"
    if not isinstance(dtype, np.dtype) or dtype not in _DTYPES:
        raise TypeError(
            f"{where} has dtype {dtype}: only real floating parameters of 16"
            " bits or more have scale groups. Give it None."
        )
    try:
        group = group.resolve(shape)
    except ValueError as error:
        raise ValueError(f"{where}: {error}.") from None
    return GroupedLeaf(entry.path, shape, dtype, group, entry.path)


def _dtype_of(leaf: object) -> np.dtype | str:
    """Return the dtype of a leaf, or the name of a type that has none."""
    try:
        return jax.dtypes.result_type(leaf)
    except TypeError:
        return type(leaf).__name__


def _name_ties(grouped: list[GroupedLeaf]) -> tuple[GroupedLeaf, ...]:
    """Give tied leaves one name, after comparing their group shapes."""
    first: dict[str, GroupedLeaf] = {}
    for leaf in sorted(grouped, key=lambda leaf: leaf.path):
        if leaf.group.tie is None:
            continue
        head = first.setdefault(leaf.group.tie, leaf)
        if head.group_shape != leaf.group_shape:
            raise ValueError(
                f"{head} is tied to {leaf}, but their group shapes differ:"
                f" {head.group_shape} and {leaf.group_shape}. Tied leaves share"
                " one scalar per group, so these must be equal."
            )
    return tuple(
        leaf
        if leaf.group.tie is None
        else dataclasses.replace(leaf, name=first[leaf.group.tie].path)
        for leaf in grouped
    )
