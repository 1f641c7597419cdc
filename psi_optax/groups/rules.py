"""Rules that state groups by hand: by layout and by path."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from psi_optax._text import summarize
from psi_optax.groups.paths import PathLeaf, leaves_with_paths, map_with_path
from psi_optax.groups.scale_group import ScaleGroup
from psi_optax.groups.types import Tree

Where = str | Iterable[str] | Callable[[str, Any], bool]


def output_channels(
    params: Tree, *, where: Where, axis: int | Iterable[int] = -1
) -> Tree:
    """State one group per output channel of the kernels that `where` selects.

    There is no default for `where`: parameters do not show which kernels feed a
    normalization layer. The kernel of the last layer looks like the others, and
    its scale changes the loss.

    | kernel | shape | `axis` |
    |---|---|---|
    | Flax Dense, Conv (grouped, depthwise) | (..., in, out) | -1 |
    | Flax ConvTranspose(transpose_kernel=True) | (H, W, out, in) | -2 |
    | Flax attention query, key, value | (in, heads, head_dim) | (-2, -1) |
    | PyTorch and Equinox layout, OIHW | (out, in, ...) | 0 |

    Args:
        params: arrays or `jax.ShapeDtypeStruct`s.
        where: a regular expression, or several, one of which matches the whole
            normalized path; or a predicate function(path, leaf).
        axis: the output axis or axes: one group for each of their indices.

    Returns:
        A tree like params with a `ScaleGroup` at the chosen leaves and None at
        all others.

    Raises:
        TypeError: `where` is neither a pattern nor a predicate.
        ValueError: `where`, or one of several patterns, selects nothing; an
            axis is out of range; no axis is left for a group to lie along.

    Examples:
        >>> params = {"conv": {"kernel": jnp.ones((3, 3, 8, 16))},
        ...           "head": {"kernel": jnp.ones((16, 10))}}
        >>> output_channels(params, where="conv/kernel")
        {'conv': {'kernel': ScaleGroup(axes=(0, 1, 2))},
         'head': {'kernel': None}}
    """
    axes = ScaleGroup(axis).axes
    shown = [x for x in leaves_with_paths(params) if not x.is_placeholder]
    selected = {}
    for text, predicate in _predicates(where).items():
        found = [x for x in shown if predicate(*x)]
        if not found:
            raise ValueError(_selects_nothing(text, shown))
        selected |= {x.path: _all_axes_but(axes, x) for x in found}
    return map_with_path(lambda path, _: selected.get(path), params)


def _predicates(where: Where) -> dict[str, Callable[[str, Any], Any]]:
    """Return a predicate for each pattern, by its repr."""
    if callable(where):
        return {repr(where): where}
    if not isinstance(where, Iterable):
        raise TypeError(f"where={where!r}: pass a pattern or a predicate.")
    listed = [where] if isinstance(where, str) else list(where)
    return {repr(p): _matching(_compile(p)) for p in listed}


def _matching(pattern: re.Pattern[str]) -> Callable[[str, Any], Any]:
    return lambda path, _: pattern.fullmatch(path)


def _selects_nothing(where: str, shown: list[PathLeaf]) -> str:
    if not shown:
        return "params hold no parameter: pass the tree of weights."
    names = summarize([repr(entry.path) for entry in shown])
    return (
        f"where={where} selects none of {names}. A pattern must match a whole"
        r" path, as r'.*/kernel' does."
    )


def _all_axes_but(axes: tuple[int, ...], entry: PathLeaf) -> ScaleGroup:
    shape = jnp.shape(entry.leaf)
    place = f"{entry.path!r} of shape {shape}"
    try:
        kept = ScaleGroup(axes).resolve(shape).axes
    except ValueError as error:
        raise ValueError(f"{place}, axis={axes}: {error}.") from None
    rest = tuple(i for i in range(len(shape)) if i not in kept)
    if not rest:
        raise ValueError(
            f"{place} has only output axes {axes}, none for a group to lie"
            " along. For a bias tied to its kernel, state ScaleGroup(axes=(),"
            " tie=...) through groups_from_paths."
        )
    return ScaleGroup(rest)


@dataclasses.dataclass(frozen=True)
class PathRules:
    """Groups by path, as `groups_from_paths` returns them.

    Attributes:
        rules: pairs of a regular expression and its statement.
    """

    rules: tuple[tuple[str, ScaleGroup | None], ...]

    def groups_for(self, params: Tree) -> dict[str, ScaleGroup | None]:
        """Return the statement for each path of params.

        Masked parameters are included, so that a mask that cuts a tie raises.

        Raises:
            ValueError: a rule matches no path, and no mask can hide its match.
        """
        found = leaves_with_paths(params)
        matched = {x.path: self._match(x.path) for x in found}
        used = {index for index, _ in matched.values()}
        masked = any(isinstance(x.leaf, optax.MaskedNode) for x in found)
        for index, (pattern, group) in enumerate(self.rules):
            if index not in used and not masked:
                names = summarize([repr(path) for path in matched])
                raise ValueError(
                    f"the rule {pattern!r}: {group} applies to none of {names}."
                    " A pattern must match a whole path, and the first match"
                    " applies."
                )
        return {path: group for path, (_, group) in matched.items()}

    def _match(self, path: str) -> tuple[int | None, ScaleGroup | None]:
        for index, (pattern, group) in enumerate(self.rules):
            match = re.fullmatch(pattern, path)
            if match is None:
                continue
            if group is not None and group.tie is not None:
                group = dataclasses.replace(group, tie=_expand(match, group))
            return index, group
        return None, None


def _expand(match: re.Match[str], group: ScaleGroup) -> str:
    try:
        return match.expand(group.tie or "")
    except re.error as error:
        raise ValueError(
            f"the tie of {group} does not fit its pattern"
            f" {match.re.pattern!r}: {error}."
        ) from None


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r}: {error}.") from None


def groups_from_paths(
    rules: Mapping[str, ScaleGroup | None],
) -> PathRules:
    r"""State groups by regular expressions on normalized paths.

    A path is the keys joined by "/", the same for Linen, NNX (in `init` and in
    `update` of its optimizer), Equinox and Haiku. The first pattern that
    matches a whole path applies; a path without a match is ordinary. A tie may
    refer to groups of its pattern, so that one rule ties each layer to itself.

    The result is resolved against the parameters that it meets, and serves
    wherever groups are taken. It is not callable, because
    `optax.inject_hyperparams` treats callables as schedules. A function of
    params serves too, with `static_args=("groups",)` there.

    Args:
        rules: statements by pattern.

    Returns:
        The rule. Resolving it raises a ValueError for a pattern that applies
        to no parameter.

    Raises:
        TypeError: a value is neither a `ScaleGroup` nor None.
        ValueError: a pattern is not a regular expression.

    Examples:
        >>> rule = groups_from_paths({
        ...     r"head/.*": None,
        ...     r"(.*)/kernel": ScaleGroup(axes=0, tie=r"\1"),
        ...     r"(.*)/bias": ScaleGroup(axes=(), tie=r"\1"),
        ... })
        >>> layer = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}
        >>> rule.groups_for({"dense": layer, "head": layer})
        {'dense/bias': ScaleGroup(axes=(), tie='dense'),
         'dense/kernel': ScaleGroup(axes=(0,), tie='dense'),
         'head/bias': None, 'head/kernel': None}
    """
    if not isinstance(rules, Mapping):
        raise TypeError(f"{rules!r} is not a mapping from patterns.")
    for pattern, group in rules.items():
        if group is not None and not isinstance(group, ScaleGroup):
            raise TypeError(f"{pattern!r}: {group!r} is not a ScaleGroup.")
        _compile(pattern)
    return PathRules(tuple(rules.items()))
