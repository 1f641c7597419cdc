"""Training that records the rotation of every filter at every step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import psi_optax
from benchmarks.data import Dataset
from benchmarks.training import Build, for_seeds, kernel_groups, make_step


def make_recorded(
    model: nn.Module,
    build: Build,
    dataset: Dataset,
    schedule: Callable[[jax.Array, int], optax.Schedule],
) -> Callable:
    """Compile the training of a model, as `benchmarks.training.make_train`.

    Args:
        model: a Linen model of `psi_optax.models`.
        build: makes the optimizer from `rate`, `decay` and `groups`.
        dataset: the training part is used.
        schedule: makes a schedule from a rate and the number of steps.

    Returns:
        A function `train(variables, batches, rate, decay)` that returns the
        variables after training and the rotations in radians, of shape
        `(seeds, steps, filters)`.
    """
    groups = kernel_groups(model, dataset.train_images)

    def train(images, labels, variables, batches, rate, decay):
        rates = schedule(rate, len(batches))
        optimizer = build(rate=rates, decay=decay, groups=groups)
        step = make_step(model, optimizer, images, labels)

        def look(carry, batch):
            following = step(carry, batch)
            before, after = carry[0]["params"], following[0]["params"]
            angles = psi_optax.rotation(before, after, groups)
            leaves = [angle.ravel() for angle in jax.tree.leaves(angles)]
            return following, jnp.concatenate(leaves)

        carry = variables, optimizer.init(variables["params"])
        (variables, _), angles = jax.lax.scan(look, carry, batches)
        return variables, angles

    return for_seeds(train, dataset)


def rms(angles: np.ndarray, axis: int | tuple[int, ...] | None = None):
    """Return the root of the mean square, in double precision.

    Examples:
        >>> float(rms(np.array([3.0, 4.0, 5.0, 0.0])))
        3.5355339059327378
    """
    return np.sqrt(np.mean(np.square(angles, dtype=np.float64), axis))
