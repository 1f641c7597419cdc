"""Parameters by path: one name, whatever library holds them.

A path is the keys that lead to a parameter, joined by "/": "Conv_0/kernel" in
Linen, "blocks/0/kernel" in NNX, "layers/1/weight" in Equinox, "mlp/linear/w" in
Haiku. NNX shows its optimizer `Variable`s at first and arrays later; the
attribute "value" at the end of the former is dropped, so that both have one
name. A dictionary key "value", or one field of several, is a name like others.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import optax

Tree = Any
KeyPath = tuple[Any, ...]


class PathLeaf(NamedTuple):
    """A leaf with its path; a hole is a None or a MaskedNode."""

    path: str
    leaf: Any

    @property
    def is_hole(self) -> bool:
        """Whether nothing is here for the present reader of the tree."""
        return is_placeholder(self.leaf)


def is_placeholder(leaf: Any) -> bool:
    """None stands for "no parameter", MaskedNode for "somebody else's"."""
    return leaf is None or isinstance(leaf, optax.MaskedNode)


def normalize_paths(paths: Sequence[KeyPath]) -> list[str]:
    """The names of the key paths of one tree.

    An attribute "value" is dropped where it is all that its parent has, as in
    a `Variable`; beside a "query" and a "key" it is a name.

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
    """All leaves and holes of a tree, in its order.

    Raises:
        ValueError: two leaves have one name.
    """
    found, _ = _flatten(tree)
    counts = Counter(path for path, _ in found)
    for path, count in counts.items():
        if count > 1:
            raise ValueError(
                f"two leaves are both called {path!r}: a key with a slash in"
                " it meets a nested one. Rename one of them."
            )
    return found


def map_with_path(function: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """Applies function(path, leaf) to every leaf; holes stay holes."""
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
    """Whether `path` is `prefix` or lies below it.

    Examples:
        >>> is_within("Conv_0/kernel", "Conv_0")
        True
        >>> is_within("Conv_01/kernel", "Conv_0")
        False
    """
    return prefix in ("", path) or path.startswith(prefix + "/")


def summarize(items: Sequence[str], most: int = 8) -> str:
    """A few of them, and how many more there are.

    Examples:
        >>> some(["a", "b", "c"], most=2)
        'a, b, and 1 more'
    """
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return ", ".join([*items[:most], *more])


def short_repr(value: Any) -> str:
    """Return how a value is written, or its type where that is long.

    Examples:
        >>> brief(0.1), brief(list(range(100)))
        ('0.1', 'a value of type list')
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape and dtype is not None:
        return f"an array of shape {shape}, {dtype}"
    text = repr(value)
    return (
        text if len(text) <= 80 else f"a value of type {type(value).__name__}"
    )


def check_no_refs(tree: Tree) -> None:
    """Raises for refs among parameters, which transforms cannot replace.

    Raises:
        TypeError: a leaf is a `jax.Ref`.
    """
    for entry in leaves_with_paths(tree):
        if isinstance(entry.leaf, jax.Ref):
            raise TypeError(
                f"params hold a jax.Ref at {entry.path!r} of shape"
                f" {entry.leaf.shape}: pass the arrays that refs hold, such as"
                " nnx.as_pure(params)."
            )
