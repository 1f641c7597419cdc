"""Names of ties that one rule by path can give to all layers of a network."""

import collections
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.formats.layers import (
    join_path,
    shared_start,
    split_path,
)

Groups = dict[str, ScaleGroup]


class TieName(NamedTuple):
    r"""The name of a tie in a rule.

    Attributes:
        template: the name, with references such as "\1" to what is captured;
            or None.
        components: the number of first components of a path that are captured
            as one.
        numbers: the number of first numbers that are captured one by one.
    """

    template: str | None
    components: int = 0
    numbers: int = 0


UNTIED = TieName(None)


class _Tie(NamedTuple):
    """Parameters with one tie.

    Attributes:
        groups: statements by path.
        shared: the number of first numbers that the paths have in common.
        start: the first components that the paths have in common.
    """

    groups: Groups
    shared: int
    start: str

    @classmethod
    def of(cls, groups: Groups) -> "_Tie":
        """Find what the paths have in common."""
        return cls(groups, _shared_numbers(groups), shared_start(groups))

    @property
    def is_nested(self) -> bool:
        """Return whether the components in common hold all such numbers."""
        return len(split_path(self.start).numbers) == self.shared

    def place(self, path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return a path without the numbers in common."""
        texts, numbers = split_path(path)
        return texts, numbers[self.shared :]

    @property
    def kind(self) -> Hashable:
        """A key, equal for ties that differ only in their first numbers."""
        return self.shared, frozenset(
            (self.place(path), group.axes, group.blocks, group.axis_name)
            for path, group in self.groups.items()
        )


def name_ties(groups: Groups) -> dict[str, TieName]:
    """Return names by the names of a report, for ties of more than one leaf.

    Ties that differ only in numbers share a template. Others keep their name.
    """
    members: dict[str, Groups] = collections.defaultdict(dict)
    for path, group in groups.items():
        if group.tie is not None:
            members[group.tie][path] = group
    ties = {k: _Tie.of(v) for k, v in members.items() if len(v) > 1}
    kinds = collections.Counter(tie.kind for tie in ties.values())
    starts = collections.Counter([*ties, *(x.start for x in ties.values())])
    return {
        name: _repeated(tie, is_unique=starts[tie.start] == 1)
        if tie.shared and kinds[tie.kind] > 1
        else TieName(_escaped(name))
        for name, tie in ties.items()
    }


def _repeated(tie: _Tie, is_unique: bool) -> TieName:
    """Return the name of a tie that other layers have too.

    Args:
        tie: the tie.
        is_unique: whether the components in common tell it from other ties.
    """
    first = min(tie.groups, key=tie.place)
    if tie.is_nested:
        rest = "" if is_unique else _escaped(first[len(tie.start) :])
        return TieName(rf"\1{rest}", components=tie.start.count("/") + 1)
    texts, numbers = split_path(first)
    captured = [rf"\{k + 1}" for k in range(tie.shared)]
    template = join_path(
        tuple(map(_escaped, texts)), [*captured, *numbers[tie.shared :]]
    )
    return TieName(template, numbers=tie.shared)


def _shared_numbers(paths: Iterable[str]) -> int:
    numbers = [split_path(path).numbers for path in paths]
    shared = 0
    for column in zip(*numbers, strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    return shared


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\")
