"""The radius of a group's sphere: an argument, and what a state stores."""

from typing import Any, TypeAlias

import jax

from psi_optax import geometry
from psi_optax._validation import check_positive
from psi_optax.groups import Leaves, Plan, Scalars
from psi_optax.transforms.state_checks import (
    state_or_placeholder,
    stored_scalars,
)

# "init", a number, or None for the norm at each step.
Radius: TypeAlias = str | jax.typing.ArrayLike | None


def check_radius(radius: Radius) -> None:
    """Require a positive number, "init" or None."""
    if isinstance(radius, str):
        if radius != "init":
            raise ValueError(
                f'radius={radius!r}: choose "init", None or a number.'
            )
    elif radius is not None:
        check_positive("radius", radius)


def radius_for(retraction: str | None, radius: Radius) -> Radius:
    """Return the radius, or None without a retraction.

    Raises:
        ValueError: a number without a retraction, which would have no effect.
    """
    if retraction is not None:
        return radius
    if radius is None or isinstance(radius, str):
        return None
    raise ValueError(
        f"radius={radius!r} has no effect with retraction=None, which lets"
        ' norms grow: choose a retraction, or radius="init".'
    )


def initial_radius(radius: Radius, plan: Plan, w: Leaves) -> Any:
    """Return what a state stores: the norms for "init", None otherwise."""
    if not isinstance(radius, str):
        return None
    return state_or_placeholder(geometry.norm(plan, w))


def sphere_radius(radius: Radius, stored: Any, plan: Plan) -> Scalars | None:
    """Return the radius of every group's sphere; None for its current norm.

    Raises:
        ValueError: the state was made for other groups.
    """
    if radius is None:
        return None
    if not isinstance(radius, str):
        return plan.full(radius)
    return stored_scalars("radii", stored, plan)
