"""Groups in any form, read as one statement for each path.

A tree, a prefix tree, a mapping from paths and a rule are all flattened to
statements by path. The statement with the longest path that leads to a
parameter covers it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from psi_optax._text import short_repr, summarize
from psi_optax.groups.paths import (
    PathLeaf,
    is_within,
    leaves_with_paths,
    longest_prefix,
)
from psi_optax.groups.scale_group import ScaleGroup
from psi_optax.groups.types import GroupRule, Groups, Tree

Specs = Mapping[str, ScaleGroup | None]

_MISSING_REMEDY = "give each a ScaleGroup, or None for an ordinary parameter"
_IDLE_REMEDY = "Are these the groups of another tree?"


def read_specs(groups: Groups, params: Tree) -> dict[str, ScaleGroup | None]:
    """Return the statements of groups in any form, by path.

    Raises:
        TypeError: a leaf is neither a `ScaleGroup` nor None.
    """
    if isinstance(groups, GroupRule):
        groups = groups.groups_for(params)
    elif callable(groups) and _is_leaf(groups):
        groups = groups(params)
    return {entry.path: _spec(entry) for entry in leaves_with_paths(groups)}


def _is_leaf(x: Any) -> bool:
    """Return whether x is no container: trees of modules may be callable."""
    return jax.tree_util.treedef_is_leaf(jax.tree.structure(x))


def _spec(entry: PathLeaf) -> ScaleGroup | None:
    if entry.is_placeholder or isinstance(entry.leaf, ScaleGroup):
        return None if entry.is_placeholder else entry.leaf
    if not entry.path:
        raise TypeError(
            f"groups={short_repr(entry.leaf)}: pass a ScaleGroup, a tree or a"
            " mapping of them, or a rule such as groups_from_paths returns. Are"
            " the arguments in order?"
        )
    raise TypeError(
        f"groups hold {short_repr(entry.leaf)} at {entry.path!r}: each leaf of"
        " groups is a ScaleGroup, such as ScaleGroup(axes=(0, 1)), or None. Are"
        " the arguments in order?"
    )


def covering_specs(
    specs: Specs, leaves: Sequence[PathLeaf]
) -> dict[str, ScaleGroup | None]:
    """Return the statement for each leaf, after checking that all fit.

    Args:
        specs: statements by path.
        leaves: those of params, placeholders included.

    Raises:
        ValueError: a parameter without a statement, a `ScaleGroup` without a
            parameter, or a tie that a mask hides in part.
    """
    check_coverage(specs, leaves)
    covers = _covers(specs, leaves)
    _check_masks(specs, leaves, covers)
    return {
        path: None if cover is None else specs[cover]
        for path, cover in covers.items()
    }


def _covers(specs: Specs, leaves: Sequence[PathLeaf]) -> dict[str, str | None]:
    """Return the path of the statement for each leaf."""
    return {x.path: longest_prefix(x.path, specs) for x in leaves}


def check_coverage(
    specs: Specs,
    leaves: Sequence[PathLeaf],
    missing_remedy: str = _MISSING_REMEDY,
    idle_remedy: str = _IDLE_REMEDY,
) -> None:
    """Check that each parameter has a statement, and each group a parameter.

    Args:
        specs: statements by path.
        leaves: those of params, placeholders included.
        missing_remedy: the remedy for a parameter without a statement.
        idle_remedy: the remedy for a group without a parameter.

    Raises:
        ValueError: one has not, and no mask hides it.
    """
    covers = _covers(specs, leaves)
    used = set(covers.values())
    masked = [x.path for x in leaves if x.is_placeholder]
    # A None without a parameter has no effect.
    idle = [
        f"{path!r} ({group})"
        for path, group in specs.items()
        if group is not None
        and path not in used
        and not any(is_within(path, hidden) for hidden in masked)
    ]
    missing = [
        f"{x.path!r} of shape {np.shape(x.leaf)}"
        for x in leaves
        if covers[x.path] is None and not x.is_placeholder
    ]
    if missing:
        also = f" They name {summarize(idle)}, not in params." * bool(idle)
        raise ValueError(
            f"groups do not cover {summarize(missing)}: {missing_remedy}.{also}"
        )
    if idle:
        raise ValueError(
            f"groups name {summarize(idle)}, where params have no parameter;"
            f" params have {summarize([repr(x.path) for x in leaves])}."
            f" {idle_remedy}"
        )


def _check_masks(
    specs: Specs,
    leaves: Sequence[PathLeaf],
    covers: Mapping[str, str | None],
) -> None:
    """Require all leaves of a joint group: a part of it has another norm."""
    hidden: dict[str, str] = {}
    for x in leaves:
        if not x.is_placeholder:
            continue
        below = [path for path in specs if is_within(path, x.path)]
        cover = covers[x.path]
        if isinstance(x.leaf, optax.MaskedNode) and not below:
            below = [] if cover is None else [cover]
        for path in below:
            group = specs[path]
            if group is not None and group.tie is not None:
                hidden[group.tie] = x.path
    for x in leaves:
        cover = covers[x.path]
        group = None if cover is None else specs[cover]
        if not x.is_placeholder and group is not None and group.tie in hidden:
            raise ValueError(
                f"{x.path!r} of shape {np.shape(x.leaf)} with {group} is tied"
                f" to {hidden[group.tie]!r}, which a mask hides: mask all"
                " leaves of a tie or none."
            )
