"""Facts about the updates of the last step that this thread has traced.

A transform that follows a step in a chain is given its updates alone, and would
have to measure what the step knows. JAX has no room for it on an array. Hence
the last step is remembered beside its updates, and recognized by them: they
have to be the very same tracers, with the very same weights, in the same
groups. So whatever changes updates in between, and every function that is
traced on its own (`jax.jit`, `jax.vmap`, a branch), leaves nothing to recall.

It saves time and changes values by rounding alone. The memory holds no updates
alive and forgets the step when the first of them dies, so that no tracer
outlives its trace. Concrete arrays are not remembered.
"""

import threading
import weakref
from collections.abc import Callable
from typing import Any

import jax

from psi_optax.groups.plan import Plan
from psi_optax.groups.types import Leaves


class _Step:
    """A step, until the first of its updates dies.

    Attributes:
        plan: the groups.
        weights: by path.
        updates: weak references, by path.
        facts: maps the updates to what is known of them.
    """

    def __init__(
        self, plan: Plan, w: Leaves, u: Leaves, facts: Callable[[Leaves], Any]
    ) -> None:
        self.plan = plan
        self.weights = w
        self.facts = facts
        self.updates = {
            path: weakref.ref(x, self._forget) for path, x in u.items()
        }

    def _forget(self, _: weakref.ref) -> None:
        self.plan, self.weights, self.updates = Plan(()), {}, {}
        self.facts = lambda _: None

    def made(self, plan: Plan, w: Leaves, u: Leaves) -> bool:
        """Return whether these are its updates, of its weights and groups."""
        return self.plan == plan and all(
            self.updates[path]() is u[path] and self.weights[path] is w[path]
            for path in plan.paths
        )


class _Memory(threading.local):
    step: _Step | None = None


_MEMORY = _Memory()


def remember(
    plan: Plan, w: Leaves, u: Leaves, facts: Callable[[Leaves], Any]
) -> None:
    """Remember a step in place of the last one, if it is traced.

    Args:
        plan: the groups.
        w: the weights.
        u: the updates that the step returns.
        facts: a pure function of the updates, and of arrays that the step has
            computed. It must not hold the updates.
    """
    if u and all(isinstance(x, jax.core.Tracer) for x in u.values()):
        _MEMORY.step = _Step(plan, w, u, facts)


def recall(plan: Plan, w: Leaves, u: Leaves) -> Callable[[Leaves], Any] | None:
    """Return the facts about updates, if the last step made them."""
    step = _MEMORY.step
    if step is None or not plan.leaves or not step.made(plan, w, u):
        return None
    return step.facts
