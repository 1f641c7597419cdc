"""Parameters by path: one name for a parameter in every library.

A path is the keys that lead to a parameter, joined by "/": "Conv_0/kernel" in
Linen, "blocks/0/kernel" in NNX, "layers/1/weight" in Equinox, "mlp/linear/w" in
Haiku. NNX shows its optimizer `Variable`s in `init` and arrays in `update`. The
attribute "value" of a `Variable` is dropped, so that both have the same path. A
dictionary key "value", or one field of several, is kept.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import optax

from psi_optax.groups.types import Tree

KeyPath = tuple[Any, ...]


class PathLeaf(NamedTuple):
    """A leaf with its path; a placeholder is a None or a MaskedNode."""

    path: str
    leaf: Any

    @property
    def is_placeholder(self) -> bool:
        """Whether the leaf holds no parameter."""
        return is_placeholder(self.leaf)


def is_placeholder(leaf: Any) -> bool:
    """Return whether a leaf is None, or is hidden by a mask of optax."""
    return leaf is None or isinstance(leaf, optax.MaskedNode)


def normalize_paths(paths: Sequence[KeyPath]) -> list[str]:
    """Return the names of the key paths of one tree.

    An attribute "value" is dropped if its parent has no other child, as in a
    `Variable`. Beside "query" and "key" it is a name.

    Examples:
        >>> key, field = jax.tree_util.DictKey, jax.tree_util.GetAttrKey
        >>> normalize_paths([(key("a"), key("value"))])
        ['a/value']
        >>> normalize_paths([(key("a"), field("value"))])
        ['a']
        >>> normalize_paths([(field("key"),), (field("value"),)])
        ['key', 'value']
    """
    value = jax.tree_util.GetAttrKey("value")
    children = Counter(
        parent
        for parent, _ in {(path[:-1], path[-1]) for path in paths if path}
    )
    return [
        jax.tree_util.keystr(
            path[:-1]
            if path and path[-1] == value and children[path[:-1]] == 1
            else path,
            simple=True,
            separator="/",
        )
        for path in paths
    ]


def leaves_with_paths(tree: Tree) -> list[PathLeaf]:
    """Return all leaves and placeholders of a tree, in its order.

    Raises:
        ValueError: two leaves have the same path.
    """
    found, _ = _flatten(tree)
    counts = Counter(path for path, _ in found)
    for path, count in counts.items():
        if count > 1:
            raise ValueError(
                f"two leaves have the path {path!r}: a key that contains a"
                " slash collides with a nested key. Rename one of them."
            )
    return found


def map_with_path(function: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """Apply function(path, leaf) to every leaf; placeholders stay."""
    found, structure = _flatten(tree)
    return jax.tree.unflatten(
        structure,
        [
            entry.leaf
            if entry.is_placeholder
            else function(entry.path, entry.leaf)
            for entry in found
        ],
    )


def _flatten(tree: Tree) -> tuple[list[PathLeaf], jax.tree_util.PyTreeDef]:
    pairs, structure = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=is_placeholder
    )
    names = normalize_paths([path for path, _ in pairs])
    leaves = [leaf for _, leaf in pairs]
    return list(map(PathLeaf, names, leaves)), structure


def is_within(path: str, prefix: str) -> bool:
    """Return whether `path` is `prefix` or lies below it.

    Examples:
        >>> is_within("Conv_0/kernel", "Conv_0")
        True
        >>> is_within("Conv_01/kernel", "Conv_0")
        False
    """
    return prefix in ("", path) or path.startswith(prefix + "/")


def longest_prefix(path: str, specs: Collection[str]) -> str | None:
    """Return the longest of some paths that leads to `path`."""
    while path not in specs:
        if not path:
            return None
        path = path.rpartition("/")[0]
    return path


def check_no_refs(tree: Tree) -> None:
    """Reject a `jax.Ref` among parameters, which transforms cannot replace.

    Raises:
        TypeError: a leaf is a `jax.Ref`.
    """
    for path, leaf in leaves_with_paths(tree):
        if isinstance(leaf, jax.Ref):
            raise TypeError(
                f"params hold a jax.Ref at {path!r} of shape {leaf.shape}: pass"
                " the arrays that refs hold, such as nnx.as_pure(params)."
            )
