"""The report on all parameters, for people and for the transforms."""

import dataclasses
import re

import jax

from psi_optax._text import summarize
from psi_optax.groups import ScaleGroup
from psi_optax.groups.describe import describe_zero_groups
from psi_optax.groups.paths import map_with_path
from psi_optax.groups.types import Tree
from psi_optax.invariance.finding import Finding, Findings, groups_of
from psi_optax.invariance.formats.notebook import format_html
from psi_optax.invariance.formats.patterns import format_patterns
from psi_optax.invariance.formats.remarks import main_reason, remark
from psi_optax.invariance.formats.screen import format_summary
from psi_optax.invariance.formats.tables import format_report
from psi_optax.invariance.variables import groups_for


@dataclasses.dataclass(frozen=True, eq=False)
class GroupReport:
    """The scale groups of a network, and how they are known.

    Accepted wherever groups are. `print` shows all parameters, and `summary`
    the layers of large networks together. Reports with equal findings on params
    of one structure are equal, and have one hash: a report can be a static
    argument of `jax.jit`.

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

        If all paths of one of the two trees have "params/" in front of those of
        the other, as Linen's variables have, the groups are those of `params`.

        A leaf that is not floating, such as a random key, may be in params
        alone: it has no group.

        Raises:
            TypeError: params are None, or an object that holds no weights.
            ValueError: params are another tree than the one reported on, or a
                part of it, or a parameter has another shape; or params are
                variables with other collections beside "params".
        """
        return groups_for(self.findings, params)

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

    def summary(self) -> str:
        r"""Return the report on one screen, also for a large network.

        A line is for the parameters whose paths differ only in numbers, shown
        as "*", and that have equal findings. Those with groups come first, each
        by weights. Parameters with one number of *ties* share their groups. The
        last line counts weights, and has the advice.

        Examples:
            >>> import jax
            >>> import jax.numpy as jnp
            >>> from psi_optax import find_groups
            >>> def loss(params, x):
            ...     for w in params.values():
            ...         x = jnp.tanh(x @ (w / jnp.linalg.norm(w, axis=0)))
            ...     return jnp.sum(x)
            >>> w = jax.ShapeDtypeStruct((3, 3), jnp.float32)
            >>> params = {"layer_0": w, "layer_1": w, "layer_2": w}
            >>> report = find_groups(loss, params, w)
            >>> print(report.summary())
            pattern  params  weights  axes  ties  known
            layer_*       3       27  0           proved
            27 of 27 weights (100.0 %) in 9 groups; 3 of 3 parameters
        """
        return format_summary(self.findings, self._remark)

    def patterns(self) -> str:
        r"""Return Python text that states the groups by patterns of paths.

        The text is a call of `psi_optax.groups_from_paths`. A script with it
        needs no search. Numbers of layers become `\d+` if all layers have the
        same groups: the text then holds at another depth as well. Otherwise
        they are listed, and a comment says so.

        It holds at other widths unless groups are blocks of an axis, as those
        of GroupNorm or of heads in one axis: their number may depend on the
        width. A comment says that there are blocks, but blocks of one element
        are stated as separate channels. Use `check_groups` at the other width.

        Raises:
            ValueError: no parameter has groups.

        Examples:
            >>> import jax
            >>> import jax.numpy as jnp
            >>> from psi_optax import find_groups
            >>> def loss(params, x):
            ...     for w in params.values():
            ...         x = jnp.tanh(x @ (w / jnp.linalg.norm(w, axis=0)))
            ...     return jnp.sum(x)
            >>> w = jax.ShapeDtypeStruct((3, 3), jnp.float32)
            >>> params = {"layer_0": w, "layer_1": w, "layer_2": w}
            >>> report = find_groups(loss, params, w)
            >>> print(report.patterns())
            psi_optax.groups_from_paths(
                {
                    r"layer_\d+": psi_optax.ScaleGroup(axes=0),
                }
            )
        """
        if not groups_of(self.findings):
            reason = self.main_reason or "all are ordinary or inert"
            raise ValueError(
                "no parameter has scale groups, so there are no patterns to"
                f" state: {reason}."
            )
        return format_patterns(self.findings)

    @property
    def main_reason(self) -> str:
        """The reason why weights have no groups, as one sentence.

        It is, in this order: a penalty that the loss adds, more than one array
        that it returns, running averages that it subtracts, an operation that
        the analysis does not know, or the reason of the parameters with the
        most weights; "" if nothing is known.
        """
        return main_reason(self.findings, self.returned)

    def __str__(self) -> str:
        return format_report(self.findings, self._remark)

    def _repr_html_(self) -> str:
        """Return the table for notebooks; a long one is below its summary."""
        return format_html(self.findings, self._remark)

    @property
    def _remark(self) -> str:
        return remark(self.findings, self.returned, self.advice)


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
