"""Warning of learning rates that are too large for Adam-like directions."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import optax

from psi_optax._schedules import LARGEST_STEP, sample_rates
from psi_optax.groups import GroupedLeaf, Groups, Plan, Tree, make_plan
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.optimizers._step_norms import step_norm
from psi_optax.optimizers._warnings import warn_user
from psi_optax.transforms.state_checks import find_states

# Of these, each element of a step is about 1: its norm is about the root of
# the number of weights, unless other transforms follow.
_ADAM_LIKE: tuple[Callable[[], optax.GradientTransformation], ...] = (
    optax.scale_by_adam,
    optax.scale_by_amsgrad,
    optax.scale_by_belief,
    optax.scale_by_lion,
    optax.scale_by_adan,
    optax.scale_by_rms,
    functools.partial(optax.scale_by_rms, bias_correction=True),
    optax.scale_by_stddev,
    functools.partial(optax.scale_by_stddev, bias_correction=True),
    optax.scale_by_factored_rms,
    optax.contrib.scale_by_ademamix,
)


def warn_of_large_steps(
    direction: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
) -> optax.GradientTransformationExtraArgs:
    """Return the direction, with an `init` that warns of large steps.

    A step of an Adam-like direction has the norm lr * sqrt(n) for a group of n
    weights. Other transforms may scale it down, which a first step shows. The
    warning is of a norm above 0.3 in the largest group that such a direction
    moves. A traced learning rate is not known, and passes.

    Args:
        direction: a transform without a learning rate.
        learning_rate: a number or a schedule; 1,000 of its steps are sampled.
        groups: scale groups in any form.
    """

    def init_fn(params: Tree) -> Any:
        state = direction.init(params)
        plan = make_plan(groups, params)
        leaf = _largest_adam_like(plan, state)
        if leaf is None:
            return state
        size = plan.sizes[leaf.name]
        rate, norm = max(sample_rates(learning_rate), default=0.0), size**0.5
        is_chain = type(state) not in _adam_like_states()
        if is_chain and rate * norm > LARGEST_STEP:
            norm = min(norm, step_norm(direction, plan, leaf.name, params))
        if rate * norm > LARGEST_STEP:
            warn_user(_describe(leaf, size, rate, norm))
        return state

    direction = optax.with_extra_args_support(direction)
    return optax.GradientTransformationExtraArgs(init_fn, direction.update)


def _largest_adam_like(plan: Plan, state: Any) -> GroupedLeaf | None:
    """Return a leaf of the largest groups in an Adam-like state, if any.

    Masked leaves are not in a state: a partition may run Adam elsewhere.
    """
    held = {
        x.path
        for node in find_states(state, *_adam_like_states())
        for field in node
        for x in leaves_with_paths(field)
        if not x.is_placeholder
    }
    leaves = [x for x in plan.leaves if x.path in held]
    leaves = [x for x in leaves if x.name not in plan.singletons]
    return max(leaves, key=lambda x: plan.sizes[x.name], default=None)


@functools.cache
def _adam_like_states() -> tuple[type, ...]:
    """Return the classes of states; optax exports only some of them."""
    return tuple({type(jax.eval_shape(f().init, {})) for f in _ADAM_LIKE})


def _describe(leaf: GroupedLeaf, size: int, rate: float, norm: float) -> str:
    """Return the warning of a learning rate, whose step has this norm at 1."""
    return (
        f"learning_rate={rate:.3g} rotates the groups of {size} weights in"
        f" {leaf.path!r} of shape {leaf.shape} by up to {rate * norm:.2g}"
        " radians per step: steps of this Adam-like direction have the norm"
        f" {norm:.3g} * learning_rate, where that of Adam is sqrt(n). Use at"
        f" most {_round_down(LARGEST_STEP / norm)}, for {LARGEST_STEP} radians;"
        " psi_optax.dynamics.convert_learning_rate converts that of a tuned"
        " optimizer."
    )


def _round_down(x: float) -> float:
    """Return a positive number with two digits, not rounded up."""
    unit = 10.0 ** (math.floor(math.log10(x)) - 1)
    return float(f"{math.floor(x / unit) * unit:.2g}")
