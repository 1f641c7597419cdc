"""Warnings of optimizers: where they point, and that nothing has a group."""

import sys
import warnings
from typing import Any

import numpy as np
import optax

from psi_optax.groups import GroupRule, Groups, JointGroups, Tree, make_plan
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.groups.specs import read_specs
from psi_optax.transforms.contract import with_init_check
from psi_optax.transforms.floating import is_inexact

_LIBRARIES = {"contextlib", "flax", "jax", "optax", "psi_optax"}


def warn_user(message: str) -> None:
    """Warn of the line of the program that led to a call of `init`."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and _package(frame.f_globals) in _LIBRARIES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _package(names: dict[str, Any]) -> str:
    """Return the package of a frame, by its global names."""
    return names.get("__name__", "").partition(".")[0]


def warn_without_groups(
    tx: optax.GradientTransformation, groups: Groups
) -> optax.GradientTransformationExtraArgs:
    """Return the transform, with an `init` that warns where no group is found.

    A None for groups states that there are none. Groups that a mask hides
    belong to another transform. Both are silent.
    """

    def check(params: Tree) -> None:
        if message := describe_missing_groups(groups, params):
            warn_user(message)

    return with_init_check(tx, check)


def describe_missing_groups(groups: Groups, params: Tree) -> str:
    """Return why no parameter has a group, and a remedy; "" if that is meant.

    Raises:
        ValueError: groups do not fit params.
    """
    while isinstance(groups, JointGroups):
        groups = groups.groups
    shown = [x for x in leaves_with_paths(params) if is_inexact(x.leaf)]
    plan = make_plan(groups, params)
    if groups is None or not shown or plan.leaves or _hides(groups, params):
        return ""
    reason = getattr(groups, "main_reason", "")
    why = f" The report's main reason: {reason.rstrip('.')}." if reason else ""
    return (
        f"groups give a scale group to none of {len(shown)} parameters, such as"
        f" {shown[0].path!r} of shape {np.shape(shown[0].leaf)}: all are"
        f" updated as ordinary ones.{why} print(report) shows all reasons of"
        " find_groups, which needs the loss of training; output_channels and"
        " groups_from_paths state groups by hand; groups=None states that there"
        " are none."
    )


def _hides(groups: Groups, params: Tree) -> bool:
    """Return whether a mask may hide all groups."""
    leaves = leaves_with_paths(params)
    if callable(groups) and not isinstance(groups, GroupRule):
        # A function says nothing about parameters that it does not see.
        return any(isinstance(x.leaf, optax.MaskedNode) for x in leaves)
    return any(group for group in read_specs(groups, params).values())
