"""Learners that average their weights in place of their gradients.

Each device along `data` is a learner: it has weights, statistics and an
optimizer's state of its own, and a part of each batch. All arrays of a run have
a first axis for learners.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks.train.layout import Layout
from psi_optax.groups import Groups
from psi_optax.transforms import mix_with_neighbors, retract

AXIS = "data"

_OF_EACH, _OF_ALL = PartitionSpec(AXIS), PartitionSpec()


def check(averaging: str, layout: Layout) -> None:
    """Raise a ValueError if the devices are no such learners."""
    sizes = dict(layout.mesh.shape)
    count, rest = sizes.pop(AXIS), sizes
    least = 3 if averaging == "ring" else 1
    for message, wrong in {
        f"it needs --mesh.data {least} or more, not {count} (of one CPU,"
        f" JAX_NUM_CPU_DEVICES={least} makes as many devices)": count < least,
        "a learner is one device: say no --mesh.fsdp, --mesh.model": any(
            size > 1 for size in rest.values()
        ),
        "say --mesh.axes auto": AxisType.Explicit in layout.mesh.axis_types,
    }.items():
        if wrong:
            raise ValueError(f"--averaging {averaging}: {message}.")


def chain(
    optimizer: optax.GradientTransformation, averaging: str, groups: Groups
) -> optax.GradientTransformation:
    """Let an average of weights follow an optimizer.

    Args:
        optimizer: of each learner.
        averaging: "ring" for the mean of a learner and its two neighbours,
            "all" for that of all learners.
        groups: scale groups whose norms the optimizer keeps, if any.
    """
    average = {"ring": lambda: mix_with_neighbors(AXIS), "all": _average_all}
    return optax.chain(optimizer, average[averaging](), retract(groups))


def _average_all() -> optax.GradientTransformation:
    def update(updates: Any, params: Any) -> Any:
        return jax.tree.map(
            lambda u, w: u + (jax.lax.pmean(w, AXIS) - w), updates, params
        )

    return optax.stateless(update)


def copy_to_each(training: Any, layout: Layout) -> Any:
    """Return the weights and the state of one learner for each."""
    count = layout.mesh.shape[AXIS]

    def copy(tree: Any) -> Any:
        return jax.tree.map(
            lambda x: jnp.broadcast_to(x, (count, *x.shape)), tree
        )

    sharding = NamedSharding(layout.mesh, _OF_EACH)
    return jax.jit(copy, out_shardings=sharding)(training)


def update_each(update: Callable) -> Callable:
    """Return an update like this one, of each learner by its examples."""

    def make(loss: Callable, optimizer: optax.GradientTransformation):
        one = update(loss, optimizer)

        def learner(training, images, labels):
            training, value = one(_first(training), images, labels)
            training = jax.tree.map(lambda x: x[None], training)
            return training, jax.lax.pmean(value, AXIS)

        return jax.shard_map(
            learner, in_specs=_OF_EACH, out_specs=(_OF_EACH, _OF_ALL)
        )

    return make


def sum_each(sums: Callable) -> Callable:
    """Return sums of variables and examples, over learners and theirs."""

    def learner(variables, *batch):
        return jax.lax.psum(sums(_first(variables), *batch), AXIS)

    return jax.shard_map(learner, in_specs=_OF_EACH, out_specs=_OF_ALL)


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[0], tree)
