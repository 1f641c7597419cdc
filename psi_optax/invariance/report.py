"""What was found of each parameter: for people, and for the transforms."""

import dataclasses
import math
import re

import jax

from psi_optax._messages import summarize
from psi_optax.groups import ScaleGroup
from psi_optax.groups.describe import aligned, zero_notes
from psi_optax.groups.paths import leaves_with_paths, map_with_path
from psi_optax.groups.types import Tree


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is known of one parameter.

    Attributes:
        path: its normalized path.
        shape: its shape.
        group: its scale groups, or None.
        kind: "proved"; "proved up to epsilon"; "proved within a bound" (and up
            to epsilon, if there is one); "measured"; "stated" (by the
            user, to `check_groups`); "ordinary"; "inert" (no gradient reaches
            it); "partly" (a part of it is invariant, which no `ScaleGroup` can
            state).
        epsilon: the constant of a norm up to which it is proved; 0 if exactly.
        bound: what the values that are clipped must not exceed for the proof to
            hold; infinite if there is no such clip.
        deviation: by how much, relative to its size, the loss changed when
            groups were multiplied by random numbers between 1/2 and 2; None if
            that was not measured. `find_groups` multiplies all groups that it
            found at once, and the number is the same for all of them;
            `check_groups`, those of one parameter, and those tied to it.
        reason: why it has no groups, or why they are not proved.
        note: what is the matter with its groups: a norm of zero.
    """

    path: str
    shape: tuple[int, ...]
    group: ScaleGroup | None
    kind: str
    epsilon: float = 0.0
    deviation: float | None = None
    reason: str = ""
    note: str = ""
    bound: float = math.inf


@dataclasses.dataclass(frozen=True, eq=False)
class GroupReport:
    """The scale groups of a network, and how they are known.

    Accepted wherever groups are. `print` shows a table. Reports with equal
    findings on params of one structure are equal, and have one hash: a report
    can be a static argument of `jax.jit`.

    Attributes:
        groups: a tree like params with a `ScaleGroup` or None at each leaf.
        findings: one `Finding` for each parameter, by path.
        returned: how many arrays the loss returned, all of which count.
        advice: how to change the loss so that more is invariant, if that is
            known.

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
        """What the report says of each path.

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
                f"{entry.path!r} has shape {shape}, but the report is on one of"
                f" shape {finding.shape}: find the groups of these params."
            )
        return {path: f.group for path, f in self.findings.items()}

    def select(self, where: str) -> "GroupReport":
        """Keep the groups of paths that a pattern matches as a whole.

        Raises:
            ValueError: the pattern picks no group, or cuts a tie in two.
        """
        kept = {
            path
            for path, finding in self.findings.items()
            if finding.group is not None and re.fullmatch(where, path)
        }
        if not kept:
            named = [p for p, f in self.findings.items() if f.group is not None]
            raise ValueError(
                f"where={where!r} picks none of the groups, which are those of"
                f" {', '.join(map(repr, named))}. A pattern must match a whole"
                " path."
            )
        groups = {
            path: finding.group
            for path, finding in self.findings.items()
            if finding.group is not None
        }
        ties = {groups[path].tie for path in kept} - {None}
        cut = [
            f"{path!r} of shape {self.findings[path].shape} with {group}"
            for path, group in groups.items()
            if group.tie in ties and path not in kept
        ]
        if cut:
            raise ValueError(
                f"where={where!r} omits {summarize(cut)}, tied to others that it"
                " picks: extend the pattern to all of a tie, or to none of it."
            )
        findings = {
            path: finding
            if path in kept or finding.group is None
            else dataclasses.replace(
                finding,
                group=None,
                kind="ordinary",
                reason="not selected",
                note="",
            )
            for path, finding in self.findings.items()
        }
        return make_report(self.groups, findings, self.returned, self.advice)

    def __str__(self) -> str:
        rows = [("path", "shape", "axes", "groups", "tie", "known", "notes")]
        grouped = [f for f in self.findings.values() if f.group is not None]
        tail = (
            f"{len(grouped)} of {len(self.findings)} parameters have scale"
            " groups"
        )
        deviations = {finding.deviation for finding in grouped}
        joint = len(grouped) > 1 == len(deviations) and None not in deviations
        rows += [_row(f, joint) for f in self.findings.values()]
        if joint:
            tail += f"; rescaled at once: deviation {deviations.pop():.0e}"
        return "\n".join([*aligned(rows), tail + self._remark(bool(grouped))])

    def _remark(self, grouped: bool) -> str:
        """Return how more may be found, if that is known or likely."""
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
    params: Tree,
    findings: dict[str, Finding],
    returned: int = 1,
    advice: str = "",
) -> GroupReport:
    """The report on a tree of parameters, from what was found of each."""
    found = {path: finding.group for path, finding in findings.items()}
    groups = map_with_path(lambda path, _: found.get(path), params)
    return GroupReport(groups, findings, returned, advice)


def with_notes(findings: dict[str, Finding], params) -> dict[str, Finding]:
    """The findings with notes on groups of norm zero, which never move."""
    groups = {path: finding.group for path, finding in findings.items()}
    notes = zero_notes(params, groups)
    return {
        path: dataclasses.replace(finding, note=notes.get(path, ""))
        for path, finding in findings.items()
    }


def _row(finding: Finding, joint: bool) -> tuple[str, ...]:
    group, known = finding.group, finding.kind
    if finding.epsilon:
        known = f"proved up to epsilon {finding.epsilon:.2g}"
    if finding.bound < math.inf:
        proved = known if finding.epsilon else "proved"
        known = f"{proved} while |x| <= {finding.bound:.2g}"
    notes = [finding.reason] if finding.reason else []
    if finding.deviation is not None and not joint:
        notes.append(f"deviation {finding.deviation:.0e}")
    if finding.note:
        notes.append(finding.note)
    axes, count, tie = "", "", ""
    if group is not None:
        blocks = dict(group.blocks)
        axes = " ".join(
            f"{a}:{blocks[a]}" if a in blocks else str(a) for a in group.axes
        )
        axes = axes or "()"
        shape = group.group_shape(finding.shape)
        count = " x ".join(map(str, shape)) or "1"
        tie = group.tie or ""
    head = finding.path or "(root)", str(finding.shape)
    return (*head, axes, count, tie, known, "; ".join(notes))
