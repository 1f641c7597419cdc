"""Parameters by path: one name, whatever library holds them.

A path is the keys that lead to a parameter, joined by "/": "Conv_0/kernel" in
Linen, "blocks/0/kernel" in NNX, "layers/1/weight" in Equinox, "mlp/linear/w" in
Haiku. NNX shows its optimizer `Variable`s at first and arrays later; the
attribute "value" at the end of the former is dropped, so that both have one
name. A dictionary key "value" is a name like any other.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

Tree = Any


class Entry(NamedTuple):
    """A leaf with its path; a hole is a None or a MaskedNode."""

    path: str
    leaf: Any

    @property
    def is_hole(self) -> bool:
        """Whether nothing is here for the present reader of the tree."""
        return is_hole(self.leaf)


def is_hole(leaf: Any) -> bool:
    """None stands for "no parameter", MaskedNode for "somebody else's"."""
    return leaf is None or isinstance(leaf, optax.MaskedNode)


def normalize_path(path: tuple[Any, ...]) -> str:
    """The name of a key path.

    Examples:
        >>> key = jax.tree_util.DictKey
        >>> normalize_path((key("Dense_0"), key("value")))
        'Dense_0/value'
        >>> attribute = jax.tree_util.GetAttrKey
        >>> normalize_path((key("Dense_0"), attribute("value")))
        'Dense_0'
    """
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def entries(tree: Tree) -> list[Entry]:
    """All leaves and holes of a tree, in its order.

    Raises:
        ValueError: two leaves have one name.
    """
    found = [
        Entry(normalize_path(path), leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(
            tree, is_leaf=is_hole
        )[0]
    ]
    seen = set()
    for path, _ in found:
        if path in seen:
            raise ValueError(
                f"two leaves are both called {path!r}: a key with a slash in"
                " it meets a nested one. Rename one of them."
            )
        seen.add(path)
    return found


def map_with_path(function: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """Applies function(path, leaf) to every leaf; holes stay holes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            leaf if is_hole(leaf) else function(normalize_path(path), leaf)
        ),
        tree,
        is_leaf=is_hole,
    )


def is_within(path: str, prefix: str) -> bool:
    """Whether `path` is `prefix` or lies below it.

    Examples:
        >>> is_within("Conv_0/kernel", "Conv_0")
        True
        >>> is_within("Conv_01/kernel", "Conv_0")
        False
    """
    return prefix in ("", path) or path.startswith(prefix + "/")
