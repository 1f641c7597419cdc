"""Rules for the length of a step of each group, from the sums that it takes.

A rule sees no arrays of the size of the weights, and makes none: its factors
are learning rates of groups.
"""

import dataclasses
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from psi_optax import geometry
from psi_optax.groups import Leaves, Plan, Scalars
from psi_optax.transforms.moments import (
    ScaleByGroupRmsState,
    initial_group_rms,
    update_group_rms,
)


class StepSizeRule(Protocol):
    """A factor of the learning rate for each group.

    Attributes:
        stateful: whether the rule has a state.
    """

    stateful: ClassVar[bool]

    def init(self, plan: Plan, w: Leaves) -> Any:
        """Return the state before the first step, from the weights."""
        ...

    def update(
        self, plan: Plan, sums: geometry.StepSums, state: Any
    ) -> tuple[Scalars, Any]:
        """Return the factor of each group, and the next state."""
        ...


def join_states(rule: StepSizeRule, inner: Any, own: Any) -> Any:
    """Return the state of a direction and its rule, as of a chain of both."""
    return (inner, own) if rule.stateful else inner


def split_states(rule: StepSizeRule, joined: Any) -> tuple[Any, Any]:
    """Return the state of a direction, and that of its rule."""
    return joined if rule.stateful else (joined, ())


class _Stateless:
    """A rule without a state."""

    stateful: ClassVar[bool] = False

    def init(self, plan: Plan, w: Leaves) -> tuple[()]:
        """Return no state."""
        del plan, w
        return ()


@dataclasses.dataclass(frozen=True)
class _Unchanged(_Stateless):
    """The learning rate itself."""

    def update(
        self, plan: Plan, sums: geometry.StepSums, state: tuple[()]
    ) -> tuple[Scalars, tuple[()]]:
        """Return ones."""
        del sums
        return plan.full(1), state


UNCHANGED = _Unchanged()


@dataclasses.dataclass(frozen=True)
class Normalized(_Stateless):
    """One over the norm of the direction; 1 for zero, in float32 below 1e-19.

    Steps are those after `normalize_by_group_norm`, but for rounding.
    """

    def update(
        self, plan: Plan, sums: geometry.StepSums, state: tuple[()]
    ) -> tuple[Scalars, tuple[()]]:
        """Return one over the norms of directions."""
        del plan
        return jax.tree.map(_normalizing_factor, sums.length), state


def _normalizing_factor(length: jax.Array) -> jax.Array:
    norm = geometry.safe_sqrt(length)
    return geometry.rescaling_factor(jnp.ones_like(norm), norm)


@dataclasses.dataclass(frozen=True)
class RunningMean:
    r"""One over the root of the running mean of the tangent part's square.

    Steps are those after `project_to_tangent` and `scale_by_group_rms`, but for
    rounding. The square \(|t|^2\) is the difference of \(|d|^2\) and the
    square of the radial part: relative to itself, its error is
    \(16\,\varepsilon\,|d|^2/|t|^2\), less than 1e-4 in float32 unless a
    direction is within 0.14 radians of the weights' own. Below this error it
    means nothing, and the error stands for it: a direction within
    \(\sqrt{16\,\varepsilon}\), 1.4e-3 radians, rotates a group by less than
    other directions do, in the limit by nothing.

    Attributes:
        decay: of the mean, in [0, 1).
        eps: added to its root.
    """

    stateful: ClassVar[bool] = True
    decay: jax.typing.ArrayLike
    eps: jax.typing.ArrayLike

    def init(self, plan: Plan, w: Leaves) -> ScaleByGroupRmsState:
        """Return a mean of zero."""
        return initial_group_rms(plan, w)

    def update(
        self, plan: Plan, sums: geometry.StepSums, state: ScaleByGroupRmsState
    ) -> tuple[Scalars, ScaleByGroupRmsState]:
        """Return one over the root of the mean, with this step in it."""
        squares = jax.tree.map(_tangent_square, *sums)
        return update_group_rms(plan, squares, state, self.decay, self.eps)


# Roundings by which sums may be off, see `geometry.step`.
_ROUNDINGS = 16


def _tangent_square(
    square: jax.Array, inner: jax.Array, length: jax.Array
) -> jax.Array:
    """Return the squared norm of the tangent part, or its error if larger."""
    *_, tangent = geometry.split_direction(square, inner, length)
    least = _ROUNDINGS * jnp.finfo(length.dtype).eps * length
    return geometry.replace_value(tangent, jnp.maximum(tangent, least))
