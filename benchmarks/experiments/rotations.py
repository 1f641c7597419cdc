"""Training that records the rotation of every filter at every step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import psi_optax
from benchmarks.data import Dataset
from benchmarks.training import Build, for_seeds, kernel_groups, make_training


def make_recorded(
    model: nn.Module, build: Build, dataset: Dataset, schedule: Callable
) -> Callable:
    """Compile training, as `benchmarks.training.make_train`, by a schedule.

    The function also returns the rotations in radians, of shape `(seeds, steps,
    filters)`.
    """
    groups = kernel_groups(model, dataset.train_images)

    def look(before, after, *_):
        angles = psi_optax.rotation(before, after, groups)
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(angles)])

    train = make_training(model, build, groups, schedule, look)
    return for_seeds(train, dataset)


def rms(angles: np.ndarray, axis: int | tuple[int, ...] | None = None):
    """Return the root of the mean square, in double precision.

    Examples:
        >>> float(rms(np.array([3.0, 4.0, 5.0, 0.0])))
        3.5355339059327378
    """
    return np.sqrt(np.mean(np.square(angles, dtype=np.float64), axis))
