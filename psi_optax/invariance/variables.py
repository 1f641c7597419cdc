"""Findings for the tree that an optimizer gets, with or without "params/"."""

import dataclasses
from collections.abc import Sequence

from psi_optax._text import summarize
from psi_optax.groups.paths import PathLeaf, leaves_with_paths
from psi_optax.groups.types import Tree
from psi_optax.invariance.finding import Finding, Findings

_PARAMS = "params/"


def findings_for(findings: Findings, params: Tree) -> Findings:
    """Return findings by the paths of params.

    Linen's `variables` hold the parameters in the collection "params".

    Args:
        findings: by the paths of a report.
        params: the tree, or `variables` that hold it, or the reverse.

    Raises:
        ValueError: a parameter has another shape than the one reported on; or
            params have other collections beside "params".
    """
    leaves = [x for x in leaves_with_paths(params) if not x.is_placeholder]
    findings = _moved(findings, leaves)
    for path, leaf in leaves:
        finding = findings.get(path)
        shape = tuple(getattr(leaf, "shape", ()))
        if finding is not None and finding.shape != shape:
            raise ValueError(
                f"{path!r} has shape {shape}, but the report is on shape"
                f" {finding.shape}: find the groups of these params."
            )
    return findings


def _moved(findings: Findings, leaves: Sequence[PathLeaf]) -> Findings:
    """Return findings with or without "params/" in front, as leaves have it."""
    paths = [x.path for x in leaves]
    if not paths or any(path in findings for path in paths):
        return findings
    inner = {path.removeprefix(_PARAMS) for path in findings}
    if all(path.startswith(_PARAMS) for path in findings):
        return _renamed(findings, "") if inner.issuperset(paths) else findings
    below = [path for path in paths if path.startswith(_PARAMS)]
    if not below or not all(p.removeprefix(_PARAMS) in findings for p in below):
        return findings
    _check_collections(paths)
    return _renamed(findings, _PARAMS)


def _check_collections(paths: Sequence[str]) -> None:
    others = [repr(path) for path in paths if not path.startswith(_PARAMS)]
    if others:
        raise ValueError(
            f"params are variables with {summarize(others)} beside"
            " 'params', but the report is on variables['params']: pass this to"
            " the optimizer too."
        )


def _renamed(findings: Findings, prefix: str) -> Findings:
    renamed: dict[str, Finding] = {}
    for path, finding in findings.items():
        new = prefix + path.removeprefix(_PARAMS)
        renamed[new] = dataclasses.replace(finding, path=new)
    return renamed
