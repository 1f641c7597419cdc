"""A report as a call of `groups_from_paths`, to be pasted into a script."""

import dataclasses
import re
from collections.abc import Collection

import jax
import jax.numpy as jnp

from psi_optax.groups import (
    Groups,
    ScaleGroup,
    groups_from_paths,
    make_plan,
)
from psi_optax.invariance.finding import Findings, groups_of
from psi_optax.invariance.formats.pattern_rules import escape, make_rules

# Statements by regular expression; the first that matches applies.
Rules = dict[str, ScaleGroup | None]

_WIDTH = 80
_DEPTH = "# Layers that are listed by number are those of this depth."
_BLOCKS = "# Blocks are those of this width: call check_groups at another one."


def format_patterns(findings: Findings) -> str:
    """Return Python text of rules that state the groups of findings.

    The rules are resolved on the paths and shapes of the findings. Where this
    does not return their groups, parameters are stated one by one.

    Args:
        findings: one for each parameter, by path; some have groups.
    """
    rules = make_rules(groups_of(findings), tuple(findings))
    stated: Rules = {rule.regex: rule.group for rule in rules}
    is_general = not any(rule.lists_layers for rule in rules)
    if wrong := differing_paths(stated, findings):
        stated, is_general = _stated_first(wrong, stated, findings), False
    if differing_paths(stated, findings):
        stated = _one_by_one(groups_of(findings), findings)
    return _text(stated, [] if is_general else [_DEPTH])


def _on_blocks(rules: Rules) -> list[str]:
    has_blocks = any(group and group.blocks for group in rules.values())
    return [_BLOCKS] if has_blocks else []


def differing_paths(rules: Rules, findings: Findings) -> set[str]:
    """Return the paths for which rules do not return the groups of findings.

    Ties may have other names.
    """
    expected = _resolved({p: f.group for p, f in findings.items()}, findings)
    try:
        found = _resolved(groups_from_paths(rules), findings)
    except ValueError:  # A rule without a path, or a tie of unequal groups.
        return set(findings)
    return {path for path in findings if found.get(path) != expected.get(path)}


def _resolved(
    groups: Groups, findings: Findings
) -> dict[str, tuple[ScaleGroup, frozenset[str]]]:
    """Return groups by path, with all paths of their tie."""
    params = {
        path: jax.ShapeDtypeStruct(finding.shape, jnp.float32)
        for path, finding in findings.items()
    }
    parts = make_plan(groups, params).parts().values()
    return {
        leaf.path: (
            dataclasses.replace(leaf.group, tie=None),
            frozenset(part.paths),
        )
        for part in parts
        for leaf in part.leaves
    }


def _one_by_one(paths: Collection[str], findings: Findings) -> Rules:
    """Return a rule for each of some paths."""
    return {
        escape(path): _with_literal_tie(findings[path].group)
        for path in findings
        if path in paths
    }


def _with_literal_tie(group: ScaleGroup | None) -> ScaleGroup | None:
    if group is None or group.tie is None:
        return group
    return dataclasses.replace(group, tie=group.tie.replace("\\", "\\\\"))


def _stated_first(paths: set[str], rules: Rules, findings: Findings) -> Rules:
    """Return rules for some paths, in front of those for the others."""
    others = [path for path in findings if path not in paths]
    used = {
        regex: group
        for regex, group in rules.items()
        if any(re.fullmatch(regex, path) for path in others)
    }
    return _one_by_one(paths, findings) | used


# -- text ---------------------------------------------------------------------


def _text(rules: Rules, comments: list[str]) -> str:
    entries = [
        line for regex, group in rules.items() for line in _entry(regex, group)
    ]
    lines = [*comments, *_on_blocks(rules), *entries]
    body = [f"        {line}" for line in lines]
    head = ["psi_optax.groups_from_paths(", "    {"]
    return "\n".join([*head, *body, "    }", ")"])


def _entry(regex: str, group: ScaleGroup | None) -> list[str]:
    """Return the lines of a rule, as ruff formats them."""
    key = _string(regex, raw=True)
    if group is None:
        return [f"{key}: None,"]
    arguments = _arguments(group)
    line = f"{key}: psi_optax.ScaleGroup({', '.join(arguments)}),"
    if len(line) <= _WIDTH - 8:
        return [line]
    inner = [", ".join(arguments)]
    if len(inner[0]) > _WIDTH - 12:
        inner = [f"{argument}," for argument in arguments]
    return [
        f"{key}: psi_optax.ScaleGroup(",
        *(f"    {text}" for text in inner),
        "),",
    ]


def _arguments(group: ScaleGroup) -> list[str]:
    axes = group.axes[0] if len(group.axes) == 1 else group.axes
    arguments = [f"axes={axes}"]
    if group.blocks:
        arguments.append(f"blocks={dict(group.blocks)}")
    if group.tie is not None:
        arguments.append(f"tie={_string(group.tie, raw=chr(92) in group.tie)}")
    if group.axis_name is not None:
        arguments.append(f"axis_name={group.axis_name!r}".replace("'", '"'))
    return arguments


def _string(text: str, raw: bool) -> str:
    """Return a literal; most have double quotes."""
    if '"' in text or not text.isprintable() or text.endswith("\\"):
        return repr(text)
    return f'{"r" * raw}"{text}"'
