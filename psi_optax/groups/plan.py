"""Groups resolved against one tree of parameters, and sums over them.

Everything that a user may hand over as groups (a tree, a prefix tree, a mapping
from paths, a rule) is flattened to statements by path; the statement with the
longest path that leads to a parameter speaks for it. That one mechanism is all
that the package knows of containers: the rest of it works on a `Plan`.
"""

import dataclasses
import functools
import math
from collections import defaultdict
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax._messages import short_repr, summarize
from psi_optax.groups.paths import (
    PathLeaf,
    check_no_refs,
    is_within,
    leaves_with_paths,
    map_with_path,
)
from psi_optax.groups.reductions import (
    accumulation_dtype,
    broadcast_groups,
    sum_groups,
    to_accumulator,
)
from psi_optax.groups.scale_group import ScaleGroup
from psi_optax.groups.types import Leaves, Scalars, Tree

_DTYPES = [
    jnp.dtype(name) for name in ("float16", "bfloat16", "float32", "float64")
]


@dataclasses.dataclass(frozen=True)
class GroupedLeaf:
    """One grouped parameter; `name` is what its groups are called."""

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
    shape; the name of a group is the path of its leaf, or of the first of its
    tied leaves in alphabetical order. A plan is hashable, and equal for trees
    that differ in their containers alone.
    """

    leaves: tuple[GroupedLeaf, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the grouped leaves."""
        return tuple(leaf.path for leaf in self.leaves)

    def parts(self) -> dict[str, "Plan"]:
        """A plan for each name: of one leaf, or of the leaves of a tie."""
        leaves: dict[str, tuple[GroupedLeaf, ...]] = defaultdict(tuple)
        for leaf in self.leaves:
            leaves[leaf.name] += (leaf,)
        return {name: Plan(tied) for name, tied in leaves.items()}

    def select(self, tree: Tree, what: str = "params") -> Leaves:
        """The grouped leaves of a tree like params, by path.

        Raises:
            ValueError: a leaf is missing or of another shape.
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
        """What `select` does, with zero steps where there is nowhere to go.

        A group of one element has no tangent: it can be rescaled, never turned.
        What is not finite stays so.
        """
        steps = self.select(tree, what)
        for leaf in self.leaves:
            if leaf.name in self.singletons:
                steps[leaf.path] = 0 * steps[leaf.path]
        return steps

    def merge(self, tree: Tree, leaves: Leaves) -> Tree:
        """The tree with its grouped leaves replaced."""
        return map_with_path(lambda path, x: leaves.get(path, x), tree)

    def unflatten(self, scalars: Scalars, tree: Tree) -> Tree:
        """Scalars as a tree like `tree`, None at ordinary leaves."""
        names = {leaf.path: leaf.name for leaf in self.leaves}
        return map_with_path(
            lambda path, _: scalars[names[path]] if path in names else None,
            tree,
        )

    def dot(self, a: Leaves, b: Leaves) -> Scalars:
        """One inner product a group.

        Formed leaf by leaf in the leaf's accumulator, summed over the leaf's
        mesh axes, then over the ties in the widest of their accumulators.
        """
        total: Scalars = {}
        for leaf in self.leaves:
            product = to_accumulator(a[leaf.path]) * to_accumulator(
                b[leaf.path]
            )
            part = sum_groups(product, leaf.group.axes, leaf.group.blocks)
            part = sum_over_mesh(part, leaf).astype(self.dtypes[leaf.name])
            before = total.get(leaf.name)
            total[leaf.name] = part if before is None else before + part
        return total

    def spread(self, s: Scalars) -> Leaves:
        """Scalars of groups, one array a leaf, broadcasting against it."""
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
        """The same number for every group."""
        return {
            name: jnp.full(shape, value, self.dtypes[name])
            for name, shape in self.group_shapes.items()
        }

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
        """How many weights one group of each name has, on all devices."""
        sizes: dict[str, int] = defaultdict(int)
        for leaf in self.leaves:
            here = leaf.group.group_size(leaf.shape)
            sizes[leaf.name] += here * _mesh_size(leaf)
        return dict(sizes)

    @functools.cached_property
    def singletons(self) -> frozenset[str]:
        """The names whose groups have one element and thus no direction."""
        return frozenset(name for name, n in self.sizes.items() if n == 1)


def sum_over_mesh(part: jax.Array, leaf: GroupedLeaf) -> jax.Array:
    """Adds up what the shards of a leaf have, where there are shards."""
    names = _mesh_axes(leaf)
    return jax.lax.psum(part, names) if names else part


def _mesh_size(leaf: GroupedLeaf) -> int:
    """Over how many shards a leaf's groups are spread."""
    return math.prod(jax.lax.axis_size(name) for name in _mesh_axes(leaf))


def _mesh_axes(leaf: GroupedLeaf) -> tuple[str, ...]:
    """The mesh axes over which a leaf is sharded here."""
    name = leaf.group.axis_name
    if name is None:
        return ()
    names = (name,) if isinstance(name, str) else name
    unbound = [name for name in names if not _is_bound(name)]
    if not unbound:
        return names
    # Outside of shard_map and pmap nobody binds names: the leaf is whole.
    manual = jax.sharding.get_abstract_mesh().manual_axes
    if not manual and len(unbound) == len(names):
        return ()
    raise ValueError(
        f"{leaf}: there is no mesh axis {summarize([repr(n) for n in unbound])}"
        f" here; those that are manual are {manual}."
    )


def _is_bound(name: str) -> bool:
    try:
        jax.lax.axis_size(name)
    except NameError:
        return False
    return True


def make_plan(groups: Any, params: Tree) -> Plan:
    """Resolves groups against params, of which only shapes are looked at.

    Args:
        groups: a tree like params, or a prefix of it, with a `ScaleGroup` or
            None at each leaf; a mapping from normalized paths to the same; a
            rule, an object with a method `groups_for(params)` that returns any
            of these; a function that does; or None: all is ordinary.
        params: arrays or `jax.ShapeDtypeStruct`s.

    Returns:
        The plan.

    Raises:
        ValueError: a parameter that no statement covers, a statement that
            covers no parameter, a statement that does not fit its parameter, a
            tie of different group shapes or one that a mask cuts in two.
        TypeError: something else than a `ScaleGroup` or None in groups; a
            grouped parameter that is not real and floating; a `jax.Ref` among
            params.
    """
    check_no_refs(params)
    found = leaves_with_paths(params)
    # Everything is hidden: a mask, or optax's placeholder for params.
    if groups is None or all(entry.is_placeholder for entry in found):
        return Plan(())
    statements = read_specs(groups, params)
    covers = {
        entry.path: longest_prefix(entry.path, statements) for entry in found
    }
    _check_coverage(statements, found, covers)
    _check_masks(statements, found, covers)
    grouped = []
    for entry in found:
        cover = covers[entry.path]
        group = None if cover is None else statements[cover]
        if group is not None and not entry.is_placeholder:
            grouped.append(_grouped_leaf(entry, group))
    return Plan(_name_ties(grouped))


def read_specs(groups: Any, params: Tree) -> dict[str, ScaleGroup | None]:
    """What groups in any form say, by path."""
    if hasattr(groups, "groups_for"):
        groups = groups.groups_for(params)
    elif callable(groups) and _is_leaf(groups):
        groups = groups(params)
    return {
        entry.path: _statement(entry) for entry in leaves_with_paths(groups)
    }


def _is_leaf(x: Any) -> bool:
    """Whether x is no container; trees of modules may well be callable."""
    return jax.tree_util.treedef_is_leaf(jax.tree.structure(x))


def _statement(entry: PathLeaf) -> ScaleGroup | None:
    if entry.is_placeholder or isinstance(entry.leaf, ScaleGroup):
        return None if entry.is_placeholder else entry.leaf
    if not entry.path:
        raise TypeError(
            f"groups={short_repr(entry.leaf)}: give a ScaleGroup, a tree or a"
            " mapping of them, or a rule such as groups_from_paths makes. Are"
            " the arguments in order?"
        )
    raise TypeError(
        f"groups hold {short_repr(entry.leaf)} at {entry.path!r}: each leaf of"
        " groups is a ScaleGroup, such as ScaleGroup(axes=(0, 1)), or None. Are"
        " the arguments in order?"
    )


def longest_prefix(path: str, statements: Collection[str]) -> str | None:
    """The longest statement's path that leads to `path`."""
    while path not in statements:
        if not path:
            return None
        path = path.rpartition("/")[0]
    return path


def _check_coverage(statements, found, covers) -> None:
    used = set(covers.values())
    holes = [entry.path for entry in found if entry.is_placeholder]
    # Ordinary parameters that are not there do no harm.
    idle = [
        f"{path!r} ({group})"
        for path, group in statements.items()
        if group is not None
        and path not in used
        and not any(is_within(path, hole) for hole in holes)
    ]
    missing = [
        f"{entry.path!r} of shape {np.shape(entry.leaf)}"
        for entry in found
        if covers[entry.path] is None and not entry.is_placeholder
    ]
    if missing:
        also = f" But they speak of {summarize(idle)}, not in params." * bool(
            idle
        )
        raise ValueError(
            f"groups say nothing of {summarize(missing)}: give each a ScaleGroup,"
            f" or None for an ordinary parameter.{also}"
        )
    if idle:
        raise ValueError(
            f"groups speak of {summarize(idle)}, where params have no parameter;"
            f" params have {summarize([repr(entry.path) for entry in found])}."
            " Are these the groups of another tree?"
        )


def _check_masks(statements, found, covers) -> None:
    """A joint group needs all of its leaves: half of one has another norm."""
    hidden: dict[str, str] = {}
    for hole in (entry for entry in found if entry.is_placeholder):
        below = [p for p in statements if is_within(p, hole.path)]
        if isinstance(hole.leaf, optax.MaskedNode) and not below:
            below = [p for p in [covers[hole.path]] if p is not None]
        for path in below:
            group = statements[path]
            if group is not None and group.tie is not None:
                hidden[group.tie] = hole.path
    for entry in found:
        group = statements.get(covers[entry.path])
        if (
            not entry.is_placeholder
            and group is not None
            and group.tie in hidden
        ):
            raise ValueError(
                f"{entry.path!r} of shape {np.shape(entry.leaf)} with {group}"
                f" is tied to what a mask hides at {hidden[group.tie]!r}: mask"
                " all leaves of a tie or none."
            )


def _grouped_leaf(entry: PathLeaf, group: ScaleGroup) -> GroupedLeaf:
    shape = np.shape(entry.leaf)
    dtype = _dtype_of(entry.leaf)
    where = f"{entry.path!r} of shape {shape} with {group}"
    if dtype not in _DTYPES:
        raise TypeError(
            f"{where} has dtype {dtype}: only real floating parameters of 16"
            " bits or more have scale groups. Give it None."
        )
    try:
        group = group.resolve(shape)
    except ValueError as error:
        raise ValueError(f"{where}: {error}.") from None
    return GroupedLeaf(entry.path, shape, dtype, group, entry.path)


def _dtype_of(leaf: Any) -> Any:
    """The dtype of a leaf, or the name of a type that has none."""
    try:
        return jax.dtypes.result_type(leaf)
    except TypeError:
        return type(leaf).__name__


def _name_ties(grouped: list[GroupedLeaf]) -> tuple[GroupedLeaf, ...]:
    """Gives tied leaves one name; their group shapes must agree."""
    first: dict[str, GroupedLeaf] = {}
    for leaf in sorted(grouped, key=lambda leaf: leaf.path):
        if leaf.group.tie is None:
            continue
        head = first.setdefault(leaf.group.tie, leaf)
        if head.group_shape != leaf.group_shape:
            raise ValueError(
                f"{head} is tied to {leaf}, but their group shapes differ:"
                f" {head.group_shape} and {leaf.group_shape}. Tied leaves give"
                " one scalar per group each, so these must be equal."
            )
    return tuple(
        leaf
        if leaf.group.tie is None
        else dataclasses.replace(leaf, name=first[leaf.group.tie].path)
        for leaf in grouped
    )
