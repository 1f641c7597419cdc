"""Rules by path that state the groups of a report, for layers of any number."""

import collections
import dataclasses
import re
from collections.abc import Collection, Iterator

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.formats.layers import (
    Box,
    Numbers,
    boxes_of,
    is_in,
    join_path,
    numbers_by_texts,
    split_path,
)
from psi_optax.invariance.formats.pattern_ties import (
    UNTIED,
    Groups,
    TieName,
    name_ties,
)

_SPECIAL = re.compile(r"[\\.^$*+?{}\[\]|()]")
# Of a longer one the parts are separate rules.
_LONGEST_ALTERNATIVE = 46


@dataclasses.dataclass(frozen=True)
class PatternRule:
    """A regular expression on paths, and its statement.

    Attributes:
        components: the regular expression, by components of paths.
        group: the statement, with a tie that may refer to what is captured.
        name: the tie, and what of a path it refers to.
        lists_layers: whether it names layers that another depth may not have.
        place: the place of its first parameter in the tree.
    """

    components: tuple[str, ...]
    group: ScaleGroup
    name: TieName = UNTIED
    lists_layers: bool = False
    place: int = 0

    @property
    def regex(self) -> str:
        """The regular expression on a whole path."""
        captured = self.name.components
        if not captured:
            return "/".join(self.components)
        first = "/".join(self.components[:captured])
        return "/".join([f"({first})", *self.components[captured:]])


def make_rules(groups: Groups, paths: Collection[str]) -> list[PatternRule]:
    """Return rules that state groups, and match no other path.

    Args:
        groups: statements by path.
        paths: those of all parameters, in the order of the tree.
    """
    names = name_ties(groups)
    known = numbers_by_texts(paths)
    places = {path: place for place, path in enumerate(paths)}
    parts: dict[tuple[ScaleGroup, TieName], dict[str, int]] = {}
    for path, group in groups.items():
        name = UNTIED if group.tie is None else names.get(group.tie, UNTIED)
        stated = dataclasses.replace(group, tie=name.template)
        parts.setdefault((stated, name), {})[path] = places[path]
    rules = [
        rule
        for (stated, name), part in parts.items()
        for rule in _rules_of(stated, name, part, known)
    ]
    return sorted(_merged(rules), key=lambda rule: rule.place)


def _rules_of(
    group: ScaleGroup,
    name: TieName,
    places: dict[str, int],
    known: dict[tuple[str, ...], set[Numbers]],
) -> Iterator[PatternRule]:
    """Return rules for parameters with one statement."""
    for texts, members in numbers_by_texts(places).items():
        for box in boxes_of(members, known[texts] - members):
            here = [
                place
                for path, place in places.items()
                if _is_at(path, texts, box)
            ]
            regex = join_path(
                tuple(map(escape, texts)), _number_patterns(box, name.numbers)
            )
            yield PatternRule(
                tuple(regex.split("/")),
                group,
                name,
                lists_layers=_lists_layers(texts, box, known[texts]),
                place=min(here),
            )


def _is_at(path: str, texts: tuple[str, ...], box: Box) -> bool:
    layer = split_path(path)
    return layer.texts == texts and is_in(layer.numbers, box)


def _lists_layers(
    texts: tuple[str, ...], box: Box, known: Collection[Numbers]
) -> bool:
    """Return whether another depth may have other numbers than the listed ones.

    These are numbers that differ between paths, and where no number may have
    any value, those that look like the index of a layer.
    """
    listed = [k for k, values in enumerate(box) if values is not None]
    return any(len({numbers[k] for numbers in known}) > 1 for k in listed) or (
        None not in box and any(_is_index(texts, k) for k in listed)
    )


def _is_index(texts: tuple[str, ...], position: int) -> bool:
    """Return whether a number ends a component, after "_" or alone."""
    before, after = texts[position], texts[position + 1]
    return before[-1:] in ("", "/", "_") and after[:1] in ("", "/")


# -- regular expressions ------------------------------------------------------


def escape(text: str) -> str:
    r"""Return a regular expression for a text, with few backslashes.

    Examples:
        >>> print(escape("mlp/~/linear.w"))
        mlp/~/linear\.w
    """
    return _SPECIAL.sub(r"\\\g<0>", text)


def _number_patterns(box: Box, captured: int) -> list[str]:
    patterns = [r"\d+" if x is None else _alternatives(x) for x in box]
    first = [f"({pattern})" for pattern in patterns[:captured]]
    return first + patterns[captured:]


def _alternatives(values: frozenset[str]) -> str:
    """Return a regular expression for some numbers.

    Examples:
        >>> _alternatives(frozenset(["3"])), _alternatives(frozenset("01234"))
        ('3', '[0-4]')
        >>> _alternatives(frozenset(map(str, range(12))))
        '(?:[0-9]|1[01])'
    """
    tens: dict[str, list[int]] = collections.defaultdict(list)
    for value in sorted(values, key=lambda x: (len(x), x)):
        tens[value[:-1]].append(int(value[-1]))
    parts = [ten + _digit_class(digits) for ten, digits in tens.items()]
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"


def _digit_class(digits: list[int]) -> str:
    if len(digits) == 1:
        return str(digits[0])
    if len(digits) > 2 and digits[-1] - digits[0] == len(digits) - 1:
        return f"[{digits[0]}-{digits[-1]}]"
    return f"[{''.join(map(str, digits))}]"


# -- alternatives -------------------------------------------------------------


def _merged(rules: list[PatternRule]) -> list[PatternRule]:
    """Merge rules that differ in one component only."""
    depth = max((len(rule.components) for rule in rules), default=0)
    for position in reversed(range(depth)):
        parts: dict[object, list[PatternRule]] = {}
        for rule in rules:
            parts.setdefault(_others(rule, position), []).append(rule)
        rules = [
            rule
            for part in parts.values()
            for rule in _merged_at(position, part)
        ]
    return rules


def _others(rule: PatternRule, position: int) -> object:
    """Return all of a rule but one component."""
    components = list(rule.components)
    if rule.name.numbers or position >= len(components):
        return rule
    components[position] = ""
    return rule.group, rule.name, tuple(components)


def _merged_at(position: int, part: list[PatternRule]) -> list[PatternRule]:
    if len(part) == 1:
        return part
    texts = sorted(rule.components[position] for rule in part)
    components = list(part[0].components)
    components[position] = f"(?:{'|'.join(texts)})"
    merged = dataclasses.replace(
        part[0],
        components=tuple(components),
        lists_layers=any(rule.lists_layers for rule in part),
        place=min(rule.place for rule in part),
    )
    return [merged] if len(merged.regex) <= _LONGEST_ALTERNATIVE else part
