"""Optimizers of ordinary parameters: given, or required."""

import numpy as np
import optax

from psi_optax._text import summarize
from psi_optax._validation import check_transformation
from psi_optax.groups import Groups, Tree, group_labels, make_plan
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.optimizers._warnings import (
    describe_missing_groups,
    warn_without_groups,
)
from psi_optax.transforms.contract import with_init_check
from psi_optax.transforms.floating import is_inexact


def with_ordinary(
    tx: optax.GradientTransformation,
    ordinary: optax.GradientTransformation | None,
    groups: Groups,
) -> optax.GradientTransformation:
    """Return a transform of scale groups, with another for the rest, if any.

    Raises:
        TypeError: `ordinary` is not a gradient transformation.
    """
    if ordinary is None:
        return tx
    check_transformation(ordinary=ordinary)
    return optax.partition(
        {"scale": tx, "ordinary": ordinary},
        lambda tree: group_labels(tree, groups),
    )


def require_ordinary(
    tx: optax.GradientTransformation,
    ordinary: optax.GradientTransformation | None,
    groups: Groups,
) -> optax.GradientTransformationExtraArgs:
    """Return a recipe whose learning rate is an angle, checked at `init`.

    An angle means nothing to ordinary parameters. Therefore `init` raises for
    them without `ordinary`. It warns as `warn_without_groups` does.

    Args:
        tx: the recipe.
        ordinary: the optimizer of its ordinary parameters, or None.
        groups: scale groups in any form.
    """
    tx = warn_without_groups(tx, groups)
    if ordinary is not None:
        return tx
    return with_init_check(tx, lambda params: _check_grouped(params, groups))


def _check_grouped(params: Tree, groups: Groups) -> None:
    """Require a scale group for each floating or complex parameter."""
    grouped = set(make_plan(groups, params).paths)
    ordinary = [
        f"{x.path!r} of shape {np.shape(x.leaf)}"
        for x in leaves_with_paths(params)
        if is_inexact(x.leaf) and x.path not in grouped
    ]
    if ordinary:
        raise ValueError(
            "the learning rate of this optimizer is an angle, which ordinary"
            f" parameters do not have: {summarize(ordinary)}. Pass their own"
            " optimizer, such as ordinary=optax.adamw(1e-3), or"
            " ordinary=optax.set_to_zero() to freeze them."
            f" {describe_missing_groups(groups, params)}".rstrip()
        )
