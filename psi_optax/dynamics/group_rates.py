"""Learning rates of single groups on fixed norms, and their rotations."""

import math
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from psi_optax.dynamics.group_values import GroupTable, require_rotating
from psi_optax.dynamics.source import Source
from psi_optax.groups import Tree


class GroupRates(NamedTuple):
    """Rows with a value for each group, at one rate of the source.

    Attributes:
        base: the rate of a unit group, in proportion to which all others are.
        own: the rate with which a group rotates as under the source.
        tangents: of the source's rotations per step; None if unknown.
        rotates: whether a group can rotate; other values of it mean nothing.
    """

    base: float
    own: np.ndarray
    tangents: np.ndarray | None
    rotates: np.ndarray


class Measured(NamedTuple):
    """Arguments that a user has measured, each a number or a tree, or None.

    Attributes:
        gradient_norm: of SGD, in direction space.
        rotation: in radians per step.
    """

    gradient_norm: ArrayLike | Tree | None
    rotation: ArrayLike | Tree | None

    def gradient_norms(self, table: GroupTable) -> np.ndarray | None:
        """Return the gradient norm of each group, None if unknown."""
        if self.gradient_norm is None:
            return None
        return table.read("gradient_norm", self.gradient_norm)

    def tangents(self, table: GroupTable) -> np.ndarray | None:
        """Return the tangent of each group's rotation, None if unknown.

        Raises:
            ValueError: a rotation of a right angle or more.
        """
        if self.rotation is None:
            return None
        angles = table.read("measured_rotation", self.rotation)
        if angles.max() >= math.pi / 2:
            raise ValueError(
                f"measured_rotation of {angles.max():.3g} radians is a right"
                " angle or more: pass a rotation per step, in radians."
            )
        return np.tan(angles)


def initial_rates(
    source: Source, table: GroupTable, rate: float, to: str, measured: Measured
) -> GroupRates:
    """Return the rates of groups with the norms that params have.

    Raises:
        TypeError: see `GroupTable`.
        ValueError: an angle needs the size of gradients; see `GroupTable`.
    """
    norms, gradients = table.norms(), measured.gradient_norms(table)
    tangents = measured.tangents(table)
    rotates = (norms > 0) & (table.sizes() > 1)
    for row in (gradients, tangents):
        if row is not None:
            rotates &= row > 0
    require_rotating(table, rotates)
    radius = np.where(rotates, norms, 1.0)
    own = rate / radius**2 if source.is_sgd else rate / radius
    if tangents is None:
        update = source.update_norms(table, gradients)
        tangents = None if update is None else own * update
    if to == "psi":
        return GroupRates(rate, own, tangents, rotates)
    if tangents is None:
        other = "measured_rotation, of a short run"
        raise ValueError(_needs(source, "an angle", other))
    return GroupRates(rate, tangents, tangents, rotates)


def equilibrium_rates(
    source: Source, table: GroupTable, rate: float, to: str, measured: Measured
) -> GroupRates:
    """Return the rates of groups at the equilibrium of weight decay.

    Raises:
        ValueError: SGD needs the size of gradients; see `GroupTable`.
    """
    base = float(np.asarray(source.matched(rate, to)))
    angle = float(np.asarray(source.matched(rate, "angle")))
    tangents, rotates = np.full(table.number, angle), table.sizes() > 1
    units = np.ones(table.number)
    if to == "psi":
        units = _unit_norms(source, table, measured)
        rotates &= units > 0
    require_rotating(table, rotates)
    own = base / np.where(rotates, units, 1.0)
    return GroupRates(base, own, tangents, rotates)


def _unit_norms(
    source: Source, table: GroupTable, measured: Measured
) -> np.ndarray:
    """Return the update norm of each group, relative to a unit group."""
    if not source.is_sgd:
        return np.sqrt(table.sizes())
    gradients = measured.gradient_norms(table)
    if gradients is None:
        other = "the params of a run at its equilibrium, and no weight_decay"
        raise ValueError(_needs(source, "psi with a weight_decay", other))
    return gradients


def _needs(source: Source, target: str, otherwise: str) -> str:
    return (
        f"optimizer={source.name!r} to {target} needs the size of gradients:"
        f" pass gradient_norm, the RMS of |w| |g| over steps, or {otherwise}."
    )
