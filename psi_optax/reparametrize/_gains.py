"""Gains of groups: their norms after a reparametrization."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psi_optax._validation import check_number
from psi_optax.groups import Plan, Scalars

Gains = ArrayLike | Mapping[str, ArrayLike]


def read_gains(plan: Plan, gains: Gains) -> Scalars:
    """Return gains by group name.

    Args:
        plan: the groups.
        gains: a number, or an array of the group shape for each name.

    Raises:
        TypeError: not a number, nor a mapping.
        ValueError: other names or shapes than those of the groups; a
            non-finite number.
    """
    if not isinstance(gains, Mapping):
        check_number("gains", gains)
        return plan.full(gains)
    given = {name: np.shape(gain) for name, gain in gains.items()}
    if given != plan.group_shapes:
        raise ValueError(
            f"gains are of {_listed(given)}, groups of"
            f" {_listed(plan.group_shapes)}: pass a number, or an array of the"
            " group shape for the name of each group."
        )
    return {
        name: jnp.asarray(gain, plan.dtypes[name])
        for name, gain in gains.items()
    }


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    named = [f"{name!r} of shape {shape}" for name, shape in shapes.items()]
    return ", ".join(named) or "nothing"
