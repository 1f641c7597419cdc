"""Groups of the tree that an optimizer gets, with or without "params/"."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jax import numpy as jnp

from psi_optax._text import summarize
from psi_optax.groups import ScaleGroup
from psi_optax.groups.paths import (
    PathLeaf,
    leaves_with_paths,
    longest_prefix,
)
from psi_optax.groups.specs import check_coverage
from psi_optax.groups.types import Tree
from psi_optax.groups.unsuitable_models import check_model
from psi_optax.invariance.finding import Finding, Findings

_PARAMS = "params/"
_UNKNOWN_REMEDY = "the report is on other params: find the groups of these"
_PART_REMEDY = (
    "If params are the trained part of a model, keep its groups by"
    " report.select(pattern); or find groups with this part alone as params,"
    " as frozen weights change which are invariant (docs: Fine-tuning)."
)


def groups_for(
    findings: Findings, params: Tree
) -> dict[str, ScaleGroup | None]:
    """Return groups by the paths of params, after checking that all fit.

    Linen's `variables` hold the parameters in the collection "params". A leaf
    that the report does not know and that is not floating, such as a counter or
    a random key, is ordinary.

    Args:
        findings: by the paths of a report.
        params: the tree, or `variables` that hold it, or the reverse.

    Raises:
        TypeError: params are None, or an object that holds no weights.
        ValueError: a parameter has another shape than the one reported on, or
            is unknown; params have no parameter where groups are, or other
            collections beside "params".
    """
    if params is None:
        raise TypeError("params are None: pass those of the report.")
    check_model(params)
    leaves = leaves_with_paths(params)
    shown = [x for x in leaves if not x.is_placeholder]
    findings = _moved(findings, shown)
    _check_shapes(findings, shown)
    groups = {path: finding.group for path, finding in findings.items()}
    for path, leaf in shown:
        if _is_data(leaf) and longest_prefix(path, findings) is None:
            groups[path] = None
    check_coverage(groups, leaves, _UNKNOWN_REMEDY, _PART_REMEDY)
    return groups


def _is_data(leaf: object) -> bool:
    dtype = getattr(leaf, "dtype", np.inexact)
    return not jnp.issubdtype(dtype, np.inexact)


def _check_shapes(findings: Findings, leaves: Sequence[PathLeaf]) -> None:
    for path, leaf in leaves:
        finding = findings.get(path)
        shape = tuple(getattr(leaf, "shape", ()))
        if finding is not None and finding.shape != shape:
            raise ValueError(
                f"{path!r} has shape {shape}, but the report is on shape"
                f" {finding.shape}: find the groups of these params."
            )


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
