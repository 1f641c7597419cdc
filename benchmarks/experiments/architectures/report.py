"""The table, and the claims about it."""

import collections
from typing import Any, NamedTuple

from benchmarks.experiments.architectures.analysis import JOINT, OWN
from benchmarks.experiments.architectures.networks import ARCHITECTURES
from benchmarks.harness import pages
from benchmarks.harness.results import Content

# Parameters with a smaller share of their cell's weights are not shown.
_SHOWN = 0.05

_HEAD = [
    "network",
    "weights",
    "scale-invariant",
    "by themselves",
    "in joint groups",
    "not in groups",
    "select",
]

# Networks of which it is claimed that all groups are one.
ONE_GROUP = ("vit", "pre_norm", "experts", "state_space")


class Row(NamedTuple):
    """The results of an architecture.

    Attributes:
        name: its name.
        part: its part of the content.
    """

    name: str
    part: dict[str, Any]

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the lines of these kinds; all without any."""
        lines = self.part["lines"]
        return [x for x in lines if not kinds or x["kind"] in kinds]

    def weights(self, *kinds: str) -> int:
        """Return the number of weights of these kinds; of all without any."""
        return sum(line["weights"] for line in self.lines(*kinds))

    def share(self, weights: int) -> str:
        """Return a share of all weights, in percent."""
        return f"{100 * weights / self.weights():.2f} %"


def rows(content: Content) -> list[Row]:
    """Return the rows that were measured, in the order of the table."""
    parts = content["parts"]
    return [Row(name, parts[name]) for name in ARCHITECTURES if name in parts]


def report(content: Content) -> str:
    """Return a line for each architecture."""
    return pages.table([_HEAD, *map(_cells, rows(content))])


def _cells(row: Row) -> list[str]:
    architecture, joint = ARCHITECTURES[row.name], row.part["joint_groups"]
    selected = row.share(row.part["selected"])
    select = f"`{architecture.select}`: {selected}"
    noun = "group" if joint == 1 else "groups"
    return [
        architecture.title,
        f"{row.weights():,}",
        row.share(row.weights(OWN, JOINT)),
        _cell(row, OWN),
        _cell(row, JOINT, f" in {joint:,} {noun}"),
        _names(row.lines("ordinary", "partly", "inert")),
        select if architecture.select else "none",
    ]


def _cell(row: Row, kind: str, count: str = "") -> str:
    """Return a share and the parameters with it."""
    if not (weights := row.weights(kind)):
        return ""
    return f"{row.share(weights)}{count}: {_names(row.lines(kind))}"


def _names(lines: list[dict[str, Any]]) -> str:
    """Return names of parameters, with axes, by weights."""
    weights: collections.Counter[str] = collections.Counter()
    for line in lines:
        name = "/".join(line["pattern"].split("/")[-2:])
        weights[f"`{name}` {line['axes']}".strip()] += line["weights"]
    least = _SHOWN * weights.total()
    return ", ".join(name for name, n in weights.most_common() if n >= least)


def faults(content: Content) -> list[str]:
    """Return the claims that do not hold.

    GPT-2 has no groups. Networks with a stream that is not normalized but in
    front of branches and the head have one.
    """
    found = {row.name: row for row in rows(content)}
    wrong = [
        f"{name}: not one joint group."
        for name in ONE_GROUP
        if (row := found.get(name))
        and (row.weights(OWN) or row.part["joint_groups"] != 1)
    ]
    if "gpt2" in found and found["gpt2"].weights(OWN, JOINT):
        wrong.append("gpt2: there are groups.")
    return wrong
