"""Groups by the paths of parameters."""

import dataclasses
import re
from collections.abc import Mapping

import optax

from psi_optax._text import summarize
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.groups.scale_group import ScaleGroup
from psi_optax.groups.types import Tree


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


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern; an error quotes it."""
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
        >>> import jax.numpy as jnp
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
        compile_pattern(pattern)
    return PathRules(tuple(rules.items()))
