"""The report on all parameters, for people and for the transforms."""

import dataclasses
import re

import jax

from psi_optax._text import format_table, summarize
from psi_optax.groups import ScaleGroup
from psi_optax.groups.describe import describe_zero_groups
from psi_optax.groups.paths import leaves_with_paths, map_with_path
from psi_optax.groups.types import Tree
from psi_optax.invariance.finding import Finding, Findings, groups_of


@dataclasses.dataclass(frozen=True, eq=False)
class GroupReport:
    """The scale groups of a network, and how they are known.

    Accepted wherever groups are. `print` shows a table. Reports with equal
    findings on params of one structure are equal, and have one hash: a report
    can be a static argument of `jax.jit`.

    Attributes:
        groups: a tree like params with a `ScaleGroup` or None at each leaf.
        findings: one `Finding` for each parameter, by path.
        returned: the number of arrays that the loss returned; all count.
        advice: a change of the loss that makes more parameters invariant; "" if
            none is known.

    Raises:
        KeyError: `report[path]` for a path that is no parameter's.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import find_groups
        >>> def loss(params, x):
        ...     w = params["w"] / jnp.linalg.norm(params["w"], axis=0)
        ...     return jnp.sum(jnp.tanh(x @ w) @ params["v"])
        >>> params = {"w": jnp.ones((3, 2)), "v": jnp.ones(2)}
        >>> report = find_groups(loss, params, jnp.ones((4, 3)))
        >>> report.groups
        {'v': None, 'w': ScaleGroup(axes=(0,))}
        >>> report["w"].kind
        'proved'
    """

    groups: Tree
    findings: dict[str, Finding]
    returned: int = 1
    advice: str = ""

    def __getitem__(self, path: str) -> Finding:
        if path not in self.findings:
            known = ", ".join(map(repr, self.findings))
            raise KeyError(f"{path!r} is no parameter; there are {known}")
        return self.findings[path]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GroupReport):
            return NotImplemented
        return (
            self.findings == other.findings
            and self.returned == other.returned
            and self.advice == other.advice
            and jax.tree.structure(self.groups)
            == jax.tree.structure(other.groups)
        )

    def __hash__(self) -> int:
        return hash((frozenset(self.findings.items()), self.returned))

    def groups_for(self, params: Tree) -> dict[str, ScaleGroup | None]:
        """Return the groups of each path, checked against params.

        Raises:
            ValueError: a parameter has another shape than the one reported on.
        """
        for entry in leaves_with_paths(params):
            finding = self.findings.get(entry.path)
            shape = tuple(getattr(entry.leaf, "shape", ()))
            if (
                entry.is_placeholder
                or finding is None
                or shape == finding.shape
            ):
                continue
            raise ValueError(
                f"{entry.path!r} has shape {shape}, but the report is on shape"
                f" {finding.shape}: find the groups of these params."
            )
        return {path: f.group for path, f in self.findings.items()}

    def select(self, where: str) -> "GroupReport":
        """Keep the groups of paths that a pattern matches as a whole.

        Raises:
            ValueError: the pattern picks no group, or cuts a tie in two.
        """
        groups = groups_of(self.findings)
        kept = {path for path in groups if re.fullmatch(where, path)}
        if not kept:
            raise ValueError(
                f"where={where!r} picks none of the groups, which are those of"
                f" {', '.join(map(repr, groups))}. A pattern must match a whole"
                " path."
            )
        self._check_ties(where, kept)
        unselected = {
            path: dataclasses.replace(
                self.findings[path],
                group=None,
                kind="ordinary",
                reason="not selected",
                note="",
            )
            for path in groups
            if path not in kept
        }
        findings = self.findings | unselected
        tree = _tree(self.groups, findings)
        return dataclasses.replace(self, groups=tree, findings=findings)

    def _check_ties(self, where: str, kept: set[str]) -> None:
        groups = groups_of(self.findings)
        ties = {groups[path].tie for path in kept} - {None}
        cut = [
            f"{path!r} of shape {self.findings[path].shape} with {group}"
            for path, group in groups.items()
            if group.tie in ties and path not in kept
        ]
        if cut:
            raise ValueError(
                f"where={where!r} omits {summarize(cut)}, tied to others that"
                " it selects: extend the pattern to all of a tie, or to none."
            )

    def __str__(self) -> str:
        rows = [("path", "shape", "axes", "groups", "tie", "known", "notes")]
        grouped = [f for f in self.findings.values() if f.group is not None]
        count = len(self.findings)
        tail = f"{len(grouped)} of {count} parameters have scale groups"
        deviations = {finding.deviation for finding in grouped}
        joint = len(grouped) > 1 == len(deviations) and None not in deviations
        rows += [_row(f, joint) for f in self.findings.values()]
        if joint:
            tail += f"; rescaled jointly: deviation {deviations.pop():.0e}"
        return "\n".join(
            [*format_table(rows), tail + self._remark(bool(grouped))]
        )

    def _remark(self, grouped: bool) -> str:
        """Return how to find more groups, if a way is known or likely."""
        remarks = [self.advice] if self.advice else []
        if self.returned > 1:
            remarks.append(
                f"loss_fn returns {self.returned} arrays, and groups leave all"
                " of them unchanged: return the loss alone, no new statistics,"
                " logits or gradients"
            )
        searched = any(f.kind == "ordinary" for f in self.findings.values())
        if searched and not grouped and not remarks:
            remarks.append(
                "If the network has normalization layers: pass the loss of"
                " training, which normalizes by the batch, and return nothing"
                " else, no new statistics, logits or gradients"
            )
        return "".join(f". {remark}" for remark in remarks)


def make_report(
    params: Tree, findings: Findings, returned: int = 1, advice: str = ""
) -> GroupReport:
    """Return the report on params, with notes on groups of norm zero.

    Args:
        params: arrays or shapes.
        findings: one for each parameter, by path.
        returned: see `GroupReport`.
        advice: see `GroupReport`.
    """
    groups = {path: finding.group for path, finding in findings.items()}
    notes = describe_zero_groups(params, groups)
    findings = {
        path: dataclasses.replace(finding, note=notes.get(path, ""))
        for path, finding in findings.items()
    }
    return GroupReport(_tree(params, findings), findings, returned, advice)


def _tree(params: Tree, findings: Findings) -> Tree:
    """Return a tree like params with the groups of each path."""
    groups = {path: finding.group for path, finding in findings.items()}
    return map_with_path(lambda path, _: groups.get(path), params)


def _row(finding: Finding, joint: bool) -> tuple[str, ...]:
    """Return the cells of a row of the table.

    Args:
        finding: the finding.
        joint: whether all deviations are one number, shown below the table.
    """
    notes = [finding.reason] if finding.reason else []
    if finding.deviation is not None and not joint:
        notes.append(f"deviation {finding.deviation:.0e}")
    if finding.note:
        notes.append(finding.note)
    axes, count, tie = "", "", ""
    if (group := finding.group) is not None:
        blocks = dict(group.blocks)
        axes = " ".join(
            f"{a}:{blocks[a]}" if a in blocks else str(a) for a in group.axes
        )
        axes = axes or "()"
        shape = group.group_shape(finding.shape)
        count = " x ".join(map(str, shape)) or "1"
        tie = group.tie or ""
    head = finding.path or "(root)", str(finding.shape)
    return (*head, axes, count, tie, _known(finding), "; ".join(notes))


def _known(finding: Finding) -> str:
    """Return how groups are known, with the epsilon and the bound."""
    known = finding.kind
    if finding.epsilon:
        known = f"proved up to epsilon {finding.epsilon:.2g}"
    if finding.is_bounded:
        proved = known if finding.epsilon else "proved"
        known = f"{proved} while |x| <= {finding.bound:.2g}"
    return known
